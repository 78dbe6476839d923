"""What an image looks like from afar: a few bytes by which the original of an edited image is found again among many, even where an edit left nothing of its template.

It only tells which templates are worth trying first. Anybody can make an image that resembles another: it proves nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.levels import quantize

SIDE = 12
MOST = 4
"""Originals of an image that are tried first, at most."""
RESEMBLES = 0.9
"""`resemblance` of at least which two images count as versions of one. Of 60 aligned faces, the edits of a StarGAN had 0.987 or more with their original, and none had more than 0.84 with one of
940 other faces."""

SIMILAR = 0.5
"""The same of an image of which a part may show something else. Others may be as similar, so that this says little."""


def look(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] as SIDE × SIDE grey levels, (B, 144) uint8."""
    small = F.interpolate(images.float().mean(1, keepdim=True), (SIDE, SIDE), mode="area")
    return quantize(small).flatten(1)


def resemblance(one: Tensor, others: Tensor) -> Tensor:
    """Correlation of the grey levels' differences between neighbours: a look (144,) and others (N, 144) -> (N,) in [-1, 1]."""
    return differences(others) @ differences(one[None])[0]


def differences(looks: Tensor) -> Tensor:
    """Differences of the grey levels of looks (N, 144) between neighbours, of norm 1 and mean 0: (N, 242). The scalar product of two is their `resemblance`."""
    grey = looks.float().view(-1, SIDE, SIDE)
    steps = torch.cat([grey.diff(dim=1)[:, :, :-1].flatten(1), grey.diff(dim=2)[:, :-1].flatten(1)], 1)
    steps = steps - steps.mean(1, keepdim=True)
    return steps / steps.norm(dim=1, keepdim=True).clamp(min=1e-6)
