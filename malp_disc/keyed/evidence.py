"""Evidence of the template in an image: local correlations, which a network turns into a map, and a test of whether it is there at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from malp_disc.keyed.spectrum import filtered, smoothed
from malp_disc.keyed.template import HIGH, LOW, SPLIT, Parts

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
        presence: the same in standard deviations of its value over all carriers, (B,): above 5 by chance in one of three million images, whatever they show.
    """

    channels: Tensor
    similarity: Tensor
    presence: Tensor


def evidence(images: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Evidence:
    """Evidence of the templates of these numbers in images on the reference grid, (B, 3, h, w) in [-1, 1]; arguments as for `template`.

    The image is whitened and divided by its local contrast: the template adds little to textures, and these would dominate the correlation otherwise.
    """
    parts = Parts.of(images, secret, numbers, size, offset)
    expected = parts.template
    grey = images.mean(1, keepdim=True)
    channels, similarities, whole = [], [], torch.zeros_like(grey)
    for low, high in BANDS:
        residual, contrast = _residual(grey, low, high)
        wanted = filtered(expected, low, high, whiten=1.0)
        wanted = wanted / _root_mean_square(wanted)
        product = residual * wanted
        similarity = product.mean((1, 2, 3)) / _root_mean_square(residual).view(-1)
        channels += [smoothed(product, window) for window in WINDOWS]
        channels += [contrast.log() / 3, (3 * similarity)[:, None, None, None].expand_as(product)]
        similarities.append(similarity)
        whole = whole + _of_norm_one(residual, low, high)
    return Evidence(torch.cat(channels, 1), sum(similarities) / len(BANDS), parts.correlation(whole))


def whole_image(images: Tensor) -> Tensor:
    """What `Evidence.presence` is the correlation of, (B, 3, h, w) -> (B, 1, h, w): both bands, whitened and divided by the local contrast."""
    grey = images.mean(1, keepdim=True)
    return sum(_of_norm_one(_residual(grey, *band)[0], *band) for band in BANDS)


def _residual(grey: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """A band of grey images, whitened and divided by its local contrast, and the contrast."""
    residual = filtered(grey, low, high, whiten=1.0)
    contrast = smoothed(residual.square(), _LOCAL).clamp(min=0).sqrt() + _FLOOR
    return residual / contrast, contrast


def _of_norm_one(residual: Tensor, low: float, high: float) -> Tensor:
    """A residual limited to its band again, with a mean square of 1."""
    again = filtered(residual, low, high, whiten=1.0)
    return again / _root_mean_square(again)


def _root_mean_square(images: Tensor) -> Tensor:
    """Of each image, (B, 1, 1, 1), and not 0."""
    return images.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
