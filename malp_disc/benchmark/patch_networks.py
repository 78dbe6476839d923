"""The networks of patch-forensics (Chai, Bau, Lim, Isola: What makes fake images detectable?, ECCV 2020).

A classifier is cut after some layer, so that every output sees a patch of the image only, and a 1×1 convolution gives each patch two logits. State-dict keys
are those of github.com/chail/patch-forensics (no licence); written from a description.
"""

from __future__ import annotations

from collections.abc import Callable

import torchvision
from torch import Tensor, nn

from malp_disc.benchmark.xception import CADENE, Block, Xception, XceptionEntry

CLASSES = 2
FAKE = 0
"""The authors' class of fakes; that of real images is 1."""


class PatchXception(XceptionEntry):
    """Xception up to one of its first five blocks: images (B, 3, H, W) in [-1, 1] -> logits (B, 2, h, w)."""

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks, names=CADENE)
        self.convout = nn.Conv2d(self.widths[blocks - 1], CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convout(self.features(images))


class LongXception(XceptionEntry):
    """Xception up to block 2, then blocks 3 and 4 with 1×1 kernels and without stride: as deep, but with the small patches of block 2."""

    def __init__(self) -> None:
        super().__init__(2, names=CADENE)
        self.pblock3 = Block(256, 728, 2, kernel=1, names=CADENE)
        self.pblock4 = Block(728, 728, 3, kernel=1, names=CADENE)
        self.convout = nn.Conv2d(728, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convout(self.pblock4(self.pblock3(self.features(images))))


class PatchResNet(nn.Module):
    """A torchvision ResNet up to its first group of blocks: images (B, 3, H, W) in [-1, 1] -> logits (B, 2, H/4, W/4)."""

    def __init__(self, whole: nn.Module, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool, self.layer1 = whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1
        self.convout = nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.convout(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images))))))


class WideNet(nn.Module):
    """One 7×7 convolution of 256 channels and two 1×1 layers: images (B, 3, H, W) in [-1, 1] -> logits (B, 2, H/4, W/4)."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, CLASSES, 1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


PATCH_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **{f"xception_block{blocks}": (lambda blocks=blocks: PatchXception(blocks), 299) for blocks in range(1, 6)},
    "longxception": (LongXception, 299),
    "resnet18_layer1": (lambda: PatchResNet(torchvision.models.resnet18(), 64), 224),
    "resnet50_layer1": (lambda: PatchResNet(torchvision.models.resnet50(), 256), 224),
    "widenet_kw7_d1": (WideNet, 224),
}
"""Networks that classify patches, by the authors' names, and the side of the images that they were trained on."""
WHOLE_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "xception": (lambda: Xception(CLASSES), 299),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=CLASSES), 224),
}
"""The authors' networks of the same kind for whole images: (B, 3, H, W) -> logits (B, 2)."""


def initialize(network: nn.Module, gain: float = 0.02) -> None:
    """The authors' initialization in place: Xavier with a small gain, biases 0, batch norm's scales around 1."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(layer.weight, gain=gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, gain)
            nn.init.zeros_(layer.bias)
