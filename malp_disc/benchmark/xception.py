"""Xception (Chollet, CVPR 2017), with the state-dict keys of the two code bases that build detectors on it.

Both descend from one ImageNet port and differ in the names of two layers only: see `Names`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Names(NamedTuple):
    """State-dict keys of the depthwise convolution and of the norm on the shortcut."""

    depthwise: str
    skip_norm: str


CADENE = Names("conv1", "skipbn")
"""pretrained-models.pytorch, and patch-forensics, which took it from there."""
FFD = Names("c", "skip_bn")
"""Dang et al."""


class SeparableConv(nn.Module):
    """A depthwise convolution without bias, then a 1×1 convolution (``pointwise``): (B, inputs, H, W) -> (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, names: Names) -> None:
        super().__init__()
        self._depthwise = names.depthwise
        self.add_module(names.depthwise, nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs, bias=False))
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.pointwise(getattr(self, self._depthwise)(features))


class Block(nn.Module):
    """Some separable convolutions, each with a ReLU before and a batch norm after it, perhaps a max-pool, and a shortcut around all of them.

    Args:
        units: number of separable convolutions.
        first_relu: whether the first has a ReLU before it.
        grow_last: change the number of channels in the last unit instead of the first.
    """

    def __init__(
        self, inputs: int, outputs: int, units: int, *, names: Names, stride: int = 1, kernel: int = 3, first_relu: bool = True, grow_last: bool = False
    ) -> None:
        super().__init__()
        self._skip_norm = names.skip_norm
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if inputs != outputs or stride != 1 else None
        if self.skip is not None:
            self.add_module(names.skip_norm, nn.BatchNorm2d(outputs))
        widths = [inputs, *([inputs] * (units - 1) if grow_last else [outputs] * (units - 1)), outputs]
        layers: list[nn.Module] = []
        for number, (width, next_width) in enumerate(zip(widths, widths[1:])):
            if number or first_relu:
                layers.append(nn.ReLU(inplace=number > 0))  # the first one's input is the shortcut's too
            layers += [SeparableConv(width, next_width, kernel=kernel, names=names), nn.BatchNorm2d(next_width)]
        if stride != 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.skip is None else getattr(self, self._skip_norm)(self.skip(features))
        return self.rep(features) + shortcut


class XceptionEntry(nn.Module):
    """The beginning of Xception: two convolutions without padding and the first `blocks` of its twelve blocks.

    Shape:
        images (B, 3, H, W) -> features; at 299×299: 74×74 after block 1, 37×37 after block 2, 19×19 from block 3 to 11, 10×10 after block 12.
    """

    widths = (128, 256, *[728] * 9, 1024)
    """Channels after each block."""

    def __init__(self, blocks: int, *, names: Names) -> None:
        super().__init__()
        if not 1 <= blocks <= 12:
            raise ValueError(f"expected 1 to 12 blocks of Xception, got {blocks}")
        self.blocks = blocks
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        inputs = (64, *self.widths)
        for number in range(1, blocks + 1):
            shrinking = number in (1, 2, 3, 12)
            shape = {"stride": 2 if shrinking else 1, "first_relu": number > 1, "grow_last": number == 12, "names": names}
            self.add_module(f"block{number}", Block(inputs[number - 1], inputs[number], 2 if shrinking else 3, **shape))

    def features(self, images: Tensor, *, first: int = 1, last: int | None = None) -> Tensor:
        """The blocks `first` to `last` (by default the last there is); with ``first=1`` the two convolutions before them as well."""
        if first == 1:
            images = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(images))))))
        for number in range(first, (last or self.blocks) + 1):
            images = getattr(self, f"block{number}")(images)
        return images


class Xception(XceptionEntry):
    """The whole network: images (B, 3, H, W) in [-1, 1], 299×299 in training -> logits (B, classes)."""

    def __init__(self, classes: int = 2, *, names: Names = CADENE) -> None:
        super().__init__(12, names=names)
        self.conv3, self.bn3 = SeparableConv(1024, 1536, names=names), nn.BatchNorm2d(1536)
        self.conv4, self.bn4 = SeparableConv(1536, 2048, names=names), nn.BatchNorm2d(2048)
        self.last_linear = nn.Linear(2048, classes)

    def last_features(self, features: Tensor) -> Tensor:
        """The two convolutions after block 12, (B, 1024, h, w) -> (B, 2048, h, w), before the last ReLU."""
        return self.bn4(self.conv4(self.relu(self.bn3(self.conv3(features)))))

    def classify(self, features: Tensor) -> Tensor:
        """ReLU, mean over locations, linear layer: (B, 2048, h, w) -> (B, classes)."""
        return self.last_linear(features.relu().mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.last_features(self.features(images)))


def map_side(side: int) -> int:
    """Side of the features after blocks 3 to 11, for images of this side: 19 for 299."""
    side = (side - 3) // 2 + 1 - 2
    for _ in range(3):
        side = (side - 1) // 2 + 1
    return side
