"""A small convolutional attribute classifier: the built-in evaluation model of edits, and the feature extractor of "FD-faces"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_images
from malp_disc.serialization.state_dicts import load_metadata, load_state, load_tensors, save_tensors

_KIND = "malp-disc AttributeNet"
INPUT_SIZE = 64


class AttributeNet(Float32Module):
    """Attribute classifier: seven 3×3 convolutions at 64, 32, 16 and 8 pixels, global average pooling, one linear layer.

    Args:
        attribute_names: names of the logits, in order.
        width: channels at full size; there are ``4 * width`` pooled features.
        whitened: whether a linear layer, fitted by `whiten`, follows the pooling; for feature extractors of distances.

    Raises:
        ValueError: no attribute names, repeated names, or a width below 4.
    """

    def __init__(self, attribute_names: Sequence[str], *, width: int = 24, whitened: bool = False) -> None:
        super().__init__()
        if not attribute_names or len(set(attribute_names)) != len(attribute_names):
            raise ValueError(f"expected distinct attribute names, at least one, got {list(attribute_names)}")
        if width < 4:
            raise ValueError(f"expected a width of at least 4, got {width}")
        self.attribute_names = tuple(attribute_names)
        self.width = width
        self.dims = 4 * width
        self.body = nn.Sequential(
            _block(3, width, stride=1),  # 64
            _block(width, 2 * width, stride=2),  # 32
            _block(2 * width, 2 * width, stride=1),
            _block(2 * width, 4 * width, stride=2),  # 16
            _block(4 * width, 4 * width, stride=1),
            _block(4 * width, 4 * width, stride=2),  # 8
            _block(4 * width, 4 * width, stride=1),
        )
        self.whitening = nn.Linear(self.dims, self.dims) if whitened else nn.Identity()
        self.head = nn.Linear(self.dims, len(self.attribute_names))

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 4 * width) of images (B, 3, H, W) in [-1, 1], which are resized to 64×64 with antialiasing."""
        return self.whitening(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """The features before whitening.

        Raises:
            ValueError: images of another shape, range or type, or not finite.
        """
        check_images(images)
        images = images.float()
        if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            images = F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False, antialias=True)
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, A) in the order of `attribute_names`; above 0 means present."""
        return self.head(self.features(images))

    @torch.no_grad()
    def whiten(self, pooled: Tensor) -> AttributeNet:
        """A copy with whitened features (uncorrelated, mean 0, variance 1) on the images of `pooled` (N, 4 * width); same logits.

        Without whitening, a few directions of large variance dominate the Fréchet distance, and errors of a generator in directions of
        small variance are lost in the sampling error of the others.

        Raises:
            ValueError: too few images to estimate the covariance.
        """
        if len(pooled) < 4 * self.dims:
            raise ValueError(f"expected at least {4 * self.dims} images to whiten {self.dims} features, got {len(pooled)}")
        mean, covariance = pooled.double().mean(dim=0), pooled.double().T.cov()
        values, vectors = torch.linalg.eigh(covariance)
        root = values.clamp(min=1e-6 * values.max()).sqrt()
        net = AttributeNet(self.attribute_names, width=self.width, whitened=True).to(pooled.device)
        net.body.load_state_dict(self.body.state_dict())
        net.whitening.weight.copy_((vectors / root).T)
        net.whitening.bias.copy_(-(mean @ vectors) / root)
        net.head.weight.copy_(self.head.weight.double() @ (vectors * root))
        net.head.bias.copy_(self.head.bias + self.head.weight.double() @ mean)
        return net.eval().requires_grad_(False)

    def save(self, path: str | Path) -> None:
        """Write safetensors with names, width and whitening in the header; convolutions in half precision, for a small file."""
        tensors = {
            key: value.half() if key.startswith("body.") and value.is_floating_point() else value
            for key, value in self.state_dict().items()
        }
        whitened = isinstance(self.whitening, nn.Linear)
        metadata = {
            "kind": _KIND,
            "attribute_names": json.dumps(self.attribute_names),
            "width": str(self.width),
            "whitened": json.dumps(whitened),
        }
        save_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> AttributeNet:
        """Load a file written by `save`, in evaluation mode, float32, with gradients disabled.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another kind of file, or damaged.
        """
        tensors = load_tensors(path)
        metadata = load_metadata(path)
        if metadata.get("kind") != _KIND:
            raise ValueError(f"{path} is not an AttributeNet; train one with recipes/train_attribute_classifier.py --output PATH")
        try:
            whitened = json.loads(metadata.get("whitened", "false"))
            net = cls(json.loads(metadata["attribute_names"]), width=int(metadata["width"]), whitened=whitened)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is an AttributeNet whose description is damaged ({error!r}); download or train it again") from error
        load_state(net, tensors, source=str(path))
        return net.eval().requires_grad_(False)


def shipped_weights(name: str) -> Path:
    """Path of a network that is part of the package: "faces_features" (FD-faces), "faces_classifier" (edit accuracy), or "squeezenet1_0_features".

    The first two were trained independently, with different seeds and widths on disjoint images; the third is published (``weights/README.md``).
    """
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.safetensors"))
        raise ValueError(f"no shipped network {name!r}; there are {known}")
    return path


def _block(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
