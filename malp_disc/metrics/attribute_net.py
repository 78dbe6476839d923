"""A small convolutional network that reads attributes: the embedded judge of edits, and the source of the "FD-faces" features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.fakeness import check_images
from malp_disc.freezing import Float32Module
from malp_disc.serialization.state_dicts import load_metadata, load_state, load_tensors, save_tensors

_KIND = "malp-disc AttributeNet"
INPUT_SIZE = 64


class AttributeNet(Float32Module):
    """Seven 3×3 convolutions at 64, 32, 16 and 8 pixels, the mean over the last map, one linear layer.

    Args:
        attribute_names: what the logits stand for, in order.
        width: channels at full size; the pooled features have ``4 * width``.
        whitened: with a linear layer after pooling that `whiten` fits; for networks whose features measure distances.

    Raises:
        ValueError: without attribute names, with one twice, or for a width below 4.
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
        """Features (B, 4 * width) of images (B, 3, H, W) in [-1, 1]; another size than 64 is resized with antialiasing."""
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
        """Logits (B, A) in the order of `attribute_names`; above 0 the attribute is read as present."""
        return self.head(self.features(images))

    @torch.no_grad()
    def whiten(self, pooled: Tensor) -> AttributeNet:
        """A copy whose features are uncorrelated, mean 0 and variance 1, on the images that gave `pooled` (N, 4 * width); same logits.

        Without it a Fréchet distance is ruled by the few directions in which faces differ most, and what a generator gets wrong, in
        directions in which real faces hardly differ, is lost in their sampling error.

        Raises:
            ValueError: too few images to know the covariance.
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
        """Write safetensors with names, width and whitening in the header; convolutions rounded to 16 bits to stay small."""
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
        """Read what `save` wrote, in evaluation mode, float32, gradients off.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not such a file.
        """
        tensors = load_tensors(path)
        metadata = load_metadata(path)
        if metadata.get("kind") != _KIND:
            raise ValueError(f"{path} is no AttributeNet; make one with recipes/train_attribute_classifier.py --output PATH")
        try:
            whitened = json.loads(metadata.get("whitened", "false"))
            net = cls(json.loads(metadata["attribute_names"]), width=int(metadata["width"]), whitened=whitened)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is an AttributeNet whose description is damaged ({error!r}); download or train it again") from error
        load_state(net, tensors, source=str(path))
        return net.eval().requires_grad_(False)


def shipped_weights(name: str) -> Path:
    """Path of a network that comes with the library: "faces_features" (FD-faces) or "faces_classifier" (edit accuracy).

    The two are independent: other seed, other width, disjoint images. A generator tuned against one hasn't seen the other.
    """
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.safetensors"))
        raise ValueError(f"no shipped network {name!r}; there are {known}")
    return path


def _block(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
