"""The networks for keyed templates.

`EvidenceNet` sees the image and the evidence of its template, and tells where the image was edited, and whether it was: a small U-Net without normalization, since the absolute
strength of the evidence matters, and normalization over the image would remove it. It works at half the resolution of the reference grid; the evidence is smoothed over
more than two pixels anyway. `ChangeNet` sees the image at full resolution, and tells how much an edited pixel was changed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.localization import START_BIAS, conv_block
from malp_disc.runtime.freezing import Float32Module


class _Block(nn.Module):
    """Two 3×3 convolutions, the second residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        features = F.silu(self.first(features))
        return features + F.silu(self.second(features))


class EvidenceNet(Float32Module):
    """Two scales down and up again.

    Shape:
        channels (B, `inputs`, h, w) -> logits of the coarse map and of the edited region, (B, 1, h, w) each, and of the whole image, (B,).
    """

    def __init__(self, inputs: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 4, stride=2, padding=1)
        self.fine, self.middle, self.coarse = _Block(width, width), _Block(width, 2 * width), _Block(2 * width, 2 * width)
        self.up_middle, self.up_fine = _Block(4 * width, 2 * width), _Block(3 * width, width)
        self.heads = nn.Conv2d(width, 2, 3, padding=1)
        self.classifier = nn.Sequential(nn.Linear(4 * width + 2 + 3 * inputs, 2 * width), nn.SiLU(), nn.Linear(2 * width, 1))
        nn.init.constant_(self.heads.bias, START_BIAS)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.fine(F.silu(self.stem(channels)))
        middle = self.middle(F.avg_pool2d(fine, 2, ceil_mode=True))
        coarse = self.coarse(F.avg_pool2d(middle, 2, ceil_mode=True))
        middle = self.up_middle(torch.cat([middle, _enlarged(coarse, middle)], 1))
        maps, edited = _enlarged(self.heads(self.up_fine(torch.cat([fine, _enlarged(middle, fine)], 1))), channels).split(1, 1)
        share = torch.sigmoid(edited)
        pooled = [coarse.mean((2, 3)), coarse.amax((2, 3)), share.mean((2, 3)), F.avg_pool2d(share, 8, ceil_mode=True).amax((2, 3))]
        return maps, edited, self.classifier(torch.cat([*pooled, *_statistics(channels)], 1))[:, 0]


class ChangeNet(Float32Module):
    """How much each pixel was changed, if it belongs to an edited region: ten layers at full resolution, as in E_C (`malp_disc.localization.ShallowCNN`).

    Shape:
        images (B, 3, h, w) in [-1, 1] -> logits (B, 1, h, w).

    Note:
        It doesn't see the evidence of the template, which tells where an image was edited and not how much: a network that saw both learned more slowly (docs/results/survival.md).
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True), *[conv_block(width, width) for _ in range(8)])
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, START_BIAS)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images.contiguous(memory_format=torch.channels_last)))


def _statistics(channels: Tensor) -> list[Tensor]:
    """Mean, standard deviation and least local mean of each channel, (B, C) each. They tell how much evidence is to be expected in an image as blurred or noisy as this one."""
    local = F.avg_pool2d(channels, [min(16, side) for side in channels.shape[2:]], stride=8, ceil_mode=True)
    return [channels.mean((2, 3)), channels.var((2, 3), correction=0).add(1e-8).sqrt(), local.amin((2, 3))]


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)
