"""A small convolutional network that reads attributes: the embedded judge of edits, and the source of the "FD-faces" features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.checkpoint import load_state, load_tensors, save_tensors

_KIND = "malp-disc AttributeNet"
INPUT_SIZE = 64


class AttributeNet(nn.Module):
    """Seven 3×3 convolutions at 64, 32, 16 and 8 pixels, the mean over the last map, one linear layer.

    Args:
        attribute_names: what the logits stand for, in order.
        width: channels at full size; the pooled features have ``4 * width``.

    Raises:
        ValueError: without attribute names, with one twice, or for a width below 4.
    """

    def __init__(self, attribute_names: Sequence[str], *, width: int = 24) -> None:
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
        self.head = nn.Linear(self.dims, len(self.attribute_names))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, 4 * width) of images (B, 3, H, W) in [-1, 1]; another size than 64 is resized with antialiasing."""
        if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            images = F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False, antialias=True)
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, A) in the order of `attribute_names`; above 0 the attribute is read as present."""
        return self.head(self.features(images))

    def save(self, path: str | Path) -> None:
        """Write safetensors with the names and the width in its header; weights rounded to 16 bits to stay small."""
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in self.state_dict().items()}
        metadata = {"kind": _KIND, "attribute_names": json.dumps(self.attribute_names), "width": str(self.width)}
        save_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> AttributeNet:
        """Read what `save` wrote, in evaluation mode, float32, gradients off.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not such a file.
        """
        tensors = load_tensors(path)
        metadata = _metadata(path)
        if metadata.get("kind") != _KIND:
            raise ValueError(f"{path} is no AttributeNet; make one with recipes/train_attribute_classifier.py --output PATH")
        net = cls(json.loads(metadata["attribute_names"]), width=int(metadata["width"]))
        load_state(net, tensors, source=str(path))
        return net.eval().requires_grad_(False)


def shipped_weights(name: str) -> Path:
    """Path of a network that comes with the library: "faces_features" (FD-faces) or "faces_classifier" (edit accuracy).

    The two are independent: other seed, other width, disjoint pictures. A generator tuned against one hasn't seen the other.
    """
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.safetensors"))
        raise ValueError(f"no shipped network {name!r}; there are {known}")
    return path


def _block(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _metadata(path: str | Path) -> dict[str, str]:
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:  # a torch file, which has no header
        return {}
