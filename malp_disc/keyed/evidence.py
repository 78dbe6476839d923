"""Evidence of the template in an image: local correlations, which a network turns into a map, and a test of whether it is there at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malp_disc.keyed.spectrum import filtered, smoothed
from malp_disc.keyed.template import HIGH, LOW, SPLIT, template

BANDS = ((LOW, SPLIT), (SPLIT, HIGH))
WINDOWS = (1.0, 2.0, 5.0)
"""σ of the windows of local correlation, in pixels of the reference grid."""
CHANNELS = len(BANDS) * (len(WINDOWS) + 2)
_LOCAL, _FLOOR = 4.0, 0.006  # σ of the window of the local contrast, and a bound from below for it


@dataclass(frozen=True)
class Evidence:
    """Evidence for a batch on the reference grid.

    Attributes:
        channels: (B, `CHANNELS`, h, w), for each band its local correlation in each window, its local contrast, and its correlation over the whole image.
        similarity: correlation of template and image over the whole image and both bands, (B,) in [-1, 1].
        presence: the same in standard deviations of its value without a template, (B,): above 5 by chance in one of three million images.
    """

    channels: Tensor
    similarity: Tensor
    presence: Tensor


def evidence(grey: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Evidence:
    """Evidence of the templates of these numbers in grey images on the reference grid, (B, 1, h, w) in [-1, 1]; arguments as for `template`.

    The image is whitened and divided by its local contrast: the template adds little to textures, and these would dominate the correlation otherwise.
    """
    expected = template(grey, secret, numbers, size, offset)
    channels, similarities, presences = [], [], []
    for low, high in BANDS:
        residual = filtered(grey, low, high, whiten=1.0)
        contrast = smoothed(residual.square(), _LOCAL).clamp(min=0).sqrt() + _FLOOR
        residual, wanted = residual / contrast, filtered(expected, low, high, whiten=1.0)
        wanted = wanted / wanted.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
        product = residual * wanted
        whole = product.mean((1, 2, 3)) / residual.square().mean((1, 2, 3)).sqrt().clamp(min=1e-6)
        independent = math.pi * (high**2 - low**2) * grey.shape[2] * grey.shape[3]  # numbers in the band
        channels += [smoothed(product, window) for window in WINDOWS]
        channels += [contrast.log() / 3, (3 * whole)[:, None, None, None].expand_as(product)]
        similarities.append(whole)
        presences.append(whole * math.sqrt(independent))
    return Evidence(torch.cat(channels, 1), sum(similarities) / len(BANDS), sum(presences) / math.sqrt(len(BANDS)))
