"""Where a crop was cut from: its place on the reference grid, found by the template itself.

A whole image of any size needs no search, since the grid is relative to it. For a crop, every share of the original's side down to `LEAST_SHARE` is tried, and for
each all offsets at once by a cross-correlation: exp(i φ) depends on the image alone, so the correlation of V with (residual · exp(−i φ)) needs one FFT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.spectrum import filtered, reference_size, resampled, smoothed
from malp_disc.keyed.template import HIGH, LOW, carrier, content_phase

LEAST_SHARE, TRIMMED = 0.6, 0.975
"""Least share of the original's side that is searched, for any crop and for an image that may have lost a pixel of the grid at its borders."""
_STEP = 0.985  # ratio of neighbouring shares: at the border of the grid, the template is off by less than half a wavelength
_FINE = (-0.66, -0.33, 0.33, 0.66)  # of a step, around the best share
_FLOOR = 0.006  # as in `malp_disc.keyed.evidence`


@dataclass(frozen=True)
class Alignment:
    """Attributes:
    share: side of the image in relation to that of the protected original: 1 for whole images.
    offset: (down, right) of the image's corner on the reference grid, in pixels of the grid.
    strength: of the correlation, in standard deviations over all offsets.
    """

    share: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    strength: float = 0.0


def grid_size(height: int, width: int, size: int, share: float) -> tuple[int, int]:
    """Sides of the part of the reference grid that an image of this share covers."""
    whole = reference_size(height, width, size)
    return max(1, round(whole[0] * share)), max(1, round(whole[1] * share))


def find_alignment(grey: Tensor, secret: bytes, size: int, *, least_share: float = LEAST_SHARE) -> Alignment:
    """The best alignment of one grey image (1, 1, H, W) in [-1, 1]. Its `strength` says whether to believe it: without a template about 5, at most 6.5."""
    count = math.ceil(math.log(least_share) / math.log(_STEP)) + 1
    best = max((_at_share(grey, secret, size, _STEP**step) for step in range(count)), key=lambda found: found.strength)
    fine = [_at_share(grey, secret, size, best.share * _STEP**part) for part in _FINE if best.share * _STEP**part < 1]
    return max([best, *fine], key=lambda found: found.strength)


def _at_share(grey: Tensor, secret: bytes, size: int, share: float) -> Alignment:
    """The best offset for one share."""
    seen = resampled(grey, grid_size(*grey.shape[2:], size, share))
    residual = filtered(seen, LOW, HIGH, whiten=1.0)
    residual = residual / (smoothed(residual.square(), 4.0).clamp(min=0).sqrt() + _FLOOR)
    turned = content_phase(seen, secret) * residual  # Re(e^{iφ} V) · residual = (cos φ · residual) Re V − (sin φ · residual) Im V
    pattern = carrier(secret, size).to(grey)
    side = pattern.shape[-1]
    turned = turned[0, :, :side, :side]
    turned = F.pad(turned, (0, side - turned.shape[2], 0, side - turned.shape[1]))
    spectrum = torch.fft.rfft2(turned).conj() * torch.fft.rfft2(pattern)
    correlation = torch.fft.irfft2(spectrum[0] - spectrum[1], s=(side, side))
    place = int(correlation.argmax())
    row, column = place // side, place % side
    down = _peak(*(float(correlation[(row + step) % side, column]) for step in (-1, 0, 1)))
    right = _peak(*(float(correlation[row, (column + step) % side]) for step in (-1, 0, 1)))
    # the part of the grid beyond half of it stands for corners left of or above the original's: crops have none, but a rounded one may be off by a fraction
    row, column = (value - side if value > side - 4 else value for value in (row, column))
    return Alignment(share, (row + down, column + right), float(correlation.max() / correlation.std()))


def _peak(before: float, at: float, after: float) -> float:
    """Place of the maximum of the parabola through three neighbours, relative to the middle one."""
    curvature = before - 2 * at + after
    return 0.0 if curvature >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / curvature))
