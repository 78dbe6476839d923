"""A ResNet-50 that regresses the fakeness map: the paper's passive baseline in the comparison across generators (section 4.3, [19])."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from malp_disc.benchmark.baseline import Baseline, at_size, both, check_side, imagenet_normalized, resized, true_maps
from malp_disc.benchmark.localizer import Localization
from malp_disc.metrics.pixels import CHANGED

_WIDTHS = (256, 512, 1024, 2048)  # of the four groups of blocks
_START_BIAS = -2.0  # initial maps are about sigmoid(-2) = 0.12, since most pixels are unchanged


class ResNetMapNetwork(nn.Module):
    """torchvision's ResNet-50 without its classifier, and a pyramid that adds up its four resolutions: images (B, 3, H, W) -> logits (B, 1, H/4, W/4)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        trunk = torchvision.models.resnet50()
        self.conv1, self.bn1, self.relu, self.maxpool = trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        self.lateral = nn.ModuleList([nn.Conv2d(channels, width, 1) for channels in _WIDTHS])
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, 1, 1))
        nn.init.constant_(self.head[-1].bias, _START_BIAS)

    def forward(self, images: Tensor) -> Tensor:
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        levels = []
        for group, lateral in zip((self.layer1, self.layer2, self.layer3, self.layer4), self.lateral):
            features = group(features)
            levels.append(lateral(features))
        merged = levels[-1]
        for level in reversed(levels[:-1]):
            merged = level + F.interpolate(merged, level.shape[2:], mode="nearest")
        return self.head(merged)


class ResNetMap(Baseline):
    """Map regression by the mean squared error to M_GT (Eq. 1 and 2), zero for real images. The score is the mean of the map.

    Args:
        side: images are resized to it; None for their own size, as in the paper.

    Note:
        The paper says "a ResNet50 network to estimate the fakeness map" and nothing of the decoder; there is no code. Maps of the last layer alone would be
        coarser by 32 than the images, so this is a feature pyramid (Lin et al., CVPR 2017), which makes the baseline stronger. Ten times this learning rate is
        too much: from random weights, one step then saturated the sigmoid to a map of zeros, for good.
    """

    name = "resnet50_map"
    learning_rate = 1e-4
    threshold = CHANGED
    head = ("lateral", "head")

    def __init__(self, *, side: int | None = None) -> None:
        check_side(side, 32, self.name)
        super().__init__(ResNetMapNetwork(), {"side": side})
        self.side = side

    def localize(self, images: Tensor) -> Localization:
        maps = at_size(torch.sigmoid(self.network(self._inputs(images)).float()), images)
        return Localization(maps, maps.mean((1, 2, 3)))

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        maps = torch.sigmoid(both(self.network, self._inputs(real), self._inputs(manipulated)).float())
        return {"map": F.mse_loss(at_size(maps, truth), true_maps(truth))}

    def _inputs(self, images: Tensor) -> Tensor:
        return imagenet_normalized(resized(images, self.side))
