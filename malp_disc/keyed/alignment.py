"""Where a crop was cut from: its place on the reference grid, found by the template itself.

A whole image of any size needs no search, since the grid is relative to it. For a crop, every share of the original's side down to `LEAST_SHARE` is tried, and for
each all offsets at once by a cross-correlation: with one set of weights, exp(i φ) depends on the image alone, so the residual is turned back by φ of each set and correlated with V where this set counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.carrier import carrier_phases, on_circle
from malp_disc.keyed.spectrum import filtered, reference_size, resampled, smoothed
from malp_disc.keyed.template import HIGH, LEVEL, LOW, SETS, filter_turn, level_weights, turns_by_levels, which_set

LEAST_SHARE, TRIMMED = 0.6, 0.975
"""Least share of the original's side that is searched, for any crop and for an image that may have lost a pixel of the grid at its borders."""
_STEP = 0.985  # ratio of neighbouring shares: at the border of the grid, the template is off by less than half a wavelength
_FINE = (-0.66, -0.33, 0.33, 0.66)  # of a step, around the best share
_FLOOR = 0.006  # as in `malp_disc.keyed.evidence`
_SLACK = 3  # pixels of the grid by which a rounded corner may lie above or left of the original's
_ENOUGH = 8  # pixels of an image for a pixel of the grid, along each side; a larger one is scaled down once before it is to every share
_BLOCK = 64 * 128**2  # pixels of the grids of the templates that are correlated at once


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


def find_alignment(image: Tensor, secret: bytes, numbers: Sequence[int], size: int, *, least_share: float = LEAST_SHARE) -> tuple[Alignment, int]:
    """The best alignment of one image (1, 3, H, W) in [-1, 1] with any of these templates, and that template's number.

    Its `strength` says whether to believe it (`malp_disc.keyed.identification`).
    """
    count = math.ceil(math.log(least_share) / math.log(_STEP)) + 1
    shape = tuple(image.shape[2:])
    if shape[0] * shape[1] > (_ENOUGH * size) ** 2:
        image = resampled(image, reference_size(*shape, _ENOUGH * size))
    parts = [whitened_and_turned(image, secret, size, _STEP**step, shape) for step in range(count)]
    best, number = max((found for block in blocks(numbers, size) for found in _in_block(parts, secret, block, size)), key=lambda found: found[0].strength)
    fine = [best.share * _STEP**part for part in _FINE if best.share * _STEP**part < 1]
    finer = _in_block([whitened_and_turned(image, secret, size, share, shape) for share in fine], secret, (number,), size)
    return max([(best, number), *finer], key=lambda found: found[0].strength)


def blocks(numbers: Sequence[int], size: int) -> list[range | tuple[int, ...]]:
    """The numbers in parts, whose templates are correlated at once: 64 on a grid of 128 pixels."""
    length = max(1, _BLOCK // size**2)
    parts = [numbers[start : start + length] for start in range(0, len(numbers), length)]
    return [part if isinstance(part, range) else tuple(part) for part in parts]


@dataclass(frozen=True)
class TurnedBack:
    """An image of a share of the original's side, whose residual was turned back by φ: what is left of its template is V.

    Attributes:
        residual: turned back with each set of weights, (3, 2, h, w): the correlation with V is the sum over k of that of `residual[k, 0]` with its real part and of `residual[k, 1]` with its imaginary part,
            at the grid's pixels where set k counts.
        whole: sides of the reference grid of the original.
    """

    share: float
    residual: Tensor
    whole: tuple[int, int]


def whitened_and_turned(image: Tensor, secret: bytes, size: int, share: float, shape: tuple[int, int] | None = None) -> TurnedBack:
    """Of one image (1, 3, H, W) in [-1, 1]: whitened and divided by its local contrast, so that textures don't dominate. `shape` is its (height, width) before it was scaled down, if it was."""
    shape = shape or tuple(image.shape[2:])
    seen = resampled(image, grid_size(*shape, size, share))
    residual = filtered(seen.mean(1, keepdim=True), LOW, HIGH, whiten=1.0)
    residual = residual / (smoothed(residual.square(), 4.0).clamp(min=0).sqrt() + _FLOOR)
    turned = residual * (filter_turn(seen.mean(1, keepdim=True), secret) * turns_by_levels(smoothed(seen, LEVEL), level_weights(secret))).conj()
    return TurnedBack(share, torch.stack([turned.real, turned.imag], 2)[0], reference_size(*shape, size))


def _in_block(parts: Sequence[TurnedBack], secret: bytes, numbers: range | tuple[int, ...], size: int) -> list[tuple[Alignment, int]]:
    """The best offset of each part, and the number of its template; one cross-correlation for each of both."""
    if not parts:
        return []
    from scipy.fft import next_fast_len  # late: takes a while to import

    area = [next_fast_len(min(side, 2 * size) + 2 * _SLACK, real=True) for side in parts[0].whole]
    turns = carrier_phases(secret, numbers, size)[:, : parts[0].whole[0] + _SLACK, : parts[0].whole[1] + _SLACK]
    own_set = which_set(turns.shape[1:])
    pattern = torch.stack([torch.fft.rfft2(on_circle(turns) * (own_set == k), s=area) for k in range(SETS)])  # (3, N, 2, …)
    pattern = pattern.transpose(1, 2).flatten(0, 1).contiguous().to(parts[0].residual.device)
    return [_offset(part, pattern, area, numbers) for part in parts]


def _offset(part: TurnedBack, pattern: Tensor, area: list[int], numbers: Sequence[int]) -> tuple[Alignment, int]:
    """The best offset of a part among templates, given by the spectra over `area` of V where each set of weights counts, 0 elsewhere: (6, N, …), real and imaginary part of one set after the other."""
    residual = part.residual[..., : area[0], : area[1]]
    height, width = residual.shape[2:]
    spectrum = torch.fft.rfft2(F.pad(residual, (0, area[1] - width, 0, area[0] - height))).conj().flatten(0, 1)
    total = torch.zeros_like(pattern[0])
    for own, template in zip(spectrum, pattern):
        total.addcmul_(own, template)
    correlation = torch.fft.irfft2(total, s=area)  # (N, area)
    possible = [torch.arange(-_SLACK, max(whole - side, 0) + _SLACK + 1) % length for whole, side, length in zip(part.whole, (height, width), area)]
    inside = correlation[:, possible[0].to(correlation.device)][:, :, possible[1].to(correlation.device)]
    place = int(inside.argmax())
    which, place = divmod(place, inside.shape[1] * inside.shape[2])
    row, column = (int(values[at]) for values, at in zip(possible, divmod(place, inside.shape[2])))
    own = correlation[which]
    down = _peak(*(float(own[(row + step) % area[0], column]) for step in (-1, 0, 1)))
    right = _peak(*(float(own[row, (column + step) % area[1]]) for step in (-1, 0, 1)))
    strength = float(own[row, column] / part.residual[0].square().sum().div(2).sqrt().clamp(min=1e-12))  # |V| = 1, and its phases are independent
    row, column = (value - length if value > length - _SLACK - 1 else value for value, length in zip((row, column), area))
    return Alignment(part.share, (row + down, column + right), strength), int(numbers[which])


def _peak(before: float, at: float, after: float) -> float:
    """Place of the maximum of the parabola through three neighbours, relative to the middle one."""
    curvature = before - 2 * at + after
    return 0.0 if curvature >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / curvature))
