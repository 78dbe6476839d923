"""Where a crop was cut from: its place on the reference grid, found by the template itself.

A whole image of any size needs no search, since the grid is relative to it. For a crop, every share of the original's side down to `LEAST_SHARE` is tried, and for
each all offsets at once by a cross-correlation: with one set of weights, exp(i φ) depends on the image alone, so the residual is turned back by φ of each set and correlated with V where this set counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
_BLOCK = 64 * 128**2  # pixels of the grids of the templates whose phases are kept together
_AT_ONCE = 16  # templates that are correlated at once: fewer make the matrix products thin, more leave the cache


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
    correlator = _Correlator(parts, size)
    best, number = max((found for block in blocks(numbers, size) for found in correlator.best(secret, block)), key=lambda found: found[0].strength)
    fine = [whitened_and_turned(image, secret, size, share, shape) for share in (best.share * _STEP**part for part in _FINE) if share < 1]
    finer = _Correlator(fine, size).best(secret, (number,)) if fine else []
    return max([(best, number), *finer], key=lambda found: found[0].strength)


def blocks(numbers: Sequence[int], size: int) -> list[range | tuple[int, ...]]:
    """The numbers in parts, whose phases `carrier_phases` computes and keeps together: 64 on a grid of 128 pixels."""
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


class _Correlator:
    """Correlates parts of one image with templates at all possible offsets.

    At every frequency, this is a product of two matrices: of the parts' spectra, and of those of V where each set of weights counts, 0 elsewhere.

    Args:
        parts: each turned back by φ.
        size: side of the reference grid.
    """

    def __init__(self, parts: Sequence[TurnedBack], size: int) -> None:
        from scipy.fft import next_fast_len  # late: takes a while to import

        self.size, self.whole = size, parts[0].whole
        self.area = [next_fast_len(min(side, 2 * size) + 2 * _SLACK, real=True) for side in self.whole]
        spectra = [torch.fft.rfft2(part.residual[..., : self.area[0], : self.area[1]], s=self.area).conj().flatten(0, 1) for part in parts]
        self.spectra = torch.stack(spectra).permute(2, 3, 0, 1).flatten(0, 1).contiguous()  # (frequencies, parts, 6)
        self.parts = [_Offsets.of(part, self.area) for part in parts]

    def best(self, secret: bytes, numbers: range | tuple[int, ...]) -> list[tuple[Alignment, int]]:
        """The best offset for each part, of every `_AT_ONCE` templates, and the number of its template."""
        turns = carrier_phases(secret, numbers, self.size)[:, : self.whole[0] + _SLACK, : self.whole[1] + _SLACK]
        return [found for start in range(0, len(numbers), _AT_ONCE) for found in self._best(turns[start : start + _AT_ONCE], numbers[start : start + _AT_ONCE])]

    def _best(self, turns: np.ndarray, numbers: Sequence[int]) -> list[tuple[Alignment, int]]:
        own_set = which_set(turns.shape[1:])
        pattern = torch.cat([torch.fft.rfft2(on_circle(turns) * (own_set == k), s=self.area) for k in range(SETS)], 1)  # (N, 6, H, W // 2 + 1)
        products = torch.bmm(self.spectra, pattern.permute(2, 3, 1, 0).flatten(0, 1).contiguous().to(self.spectra.device))
        products = products.unflatten(0, pattern.shape[2:])  # (H, W // 2 + 1, parts, N)
        return [part.best(products[:, :, place], numbers) for place, part in enumerate(self.parts)]


@dataclass(frozen=True)
class _Offsets:
    """The offsets that are possible for a part, and the inverse Fourier transform at these alone.

    Attributes:
        rows, columns: the offsets, and one more before and after them, for the parabola through a maximum.
        down, right: the transform as two matrices: complex (rows, H), and (columns, 2 (W // 2 + 1)) for real and imaginary parts one after the other.
        deviation: standard deviation of the correlation at any offset.
    """

    share: float
    rows: range
    columns: range
    down: Tensor
    right: Tensor
    deviation: float

    @classmethod
    def of(cls, part: TurnedBack, area: Sequence[int]) -> _Offsets:
        sides = [min(side, most) for side, most in zip(part.residual.shape[2:], area)]
        rows, columns = (range(-_SLACK - 1, max(whole - side, 0) + _SLACK + 2) for whole, side in zip(part.whole, sides))
        down, right = _angles(rows, area[0], area[0]), _angles(columns, area[1] // 2 + 1, area[1])
        twice = torch.full((right.shape[1],), 2.0)  # for the half of the spectrum that is the conjugate of this one
        twice[0] = 1
        if area[1] % 2 == 0:
            twice[-1] = 1
        right = torch.cat([twice * right.cos(), -twice * right.sin()], 1) / (area[0] * area[1])
        energy = part.residual[0, :, : area[0], : area[1]].square().sum()  # |V| = 1, and its phases are independent
        device = part.residual.device
        return cls(part.share, rows, columns, torch.polar(torch.ones_like(down), down).to(device), right.to(device), max(math.sqrt(energy.item() / 2), 1e-12))

    def best(self, products: Tensor, numbers: Sequence[int]) -> tuple[Alignment, int]:
        """The best offset among templates, of the spectra of their correlations, (H, W // 2 + 1, N), and the number of its template."""
        height, half, count = products.shape
        partly = (self.down @ products.reshape(height, -1)).view(-1, half, count)
        correlation = self.right @ torch.cat([partly.real, partly.imag], 1)  # (rows, columns, N)
        place, which = divmod(int(correlation[1:-1, 1:-1].argmax()), count)
        row, column = divmod(place, len(self.columns) - 2)
        near = correlation[row : row + 3, column : column + 3, which].tolist()
        offset = self.rows[row + 1] + _peak(near[0][1], near[1][1], near[2][1]), self.columns[column + 1] + _peak(*near[1])
        return Alignment(self.share, offset, near[1][1] / self.deviation), int(numbers[which])


def _angles(offsets: range, frequencies: int, length: int) -> Tensor:
    """The phase that a shift by each offset gives each frequency of a transform of this length, (offsets, frequencies)."""
    turns = torch.arange(offsets.start, offsets.stop)[:, None] * torch.arange(frequencies) % length
    return turns * (2 * math.pi / length)


def _peak(before: float, at: float, after: float) -> float:
    """Place of the maximum of the parabola through three neighbours, relative to the middle one."""
    curvature = before - 2 * at + after
    return 0.0 if curvature >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / curvature))
