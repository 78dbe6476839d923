"""Ratio of the power spectra of generated and real images: shows blur, noise and checkerboard artefacts.

Frequencies are in units of the Nyquist frequency (half a cycle per pixel): 1 is a pattern that alternates from pixel to pixel along rows or
columns, √2 one that alternates along both. Both are typical artefacts of upsampling by strided convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from malp_disc.levels import quantize

_MOST_RINGS = 48
FINE = 0.75
"""Lower limit of the "fine" frequencies, in units of Nyquist; the upper limit is 1."""


@dataclass(frozen=True)
class SpectrumRatio:
    """Power of generated divided by that of real images, 1 for equal spectra. None where the real images have no power."""

    frequency: list[float]  # centre of each ring, in units of Nyquist
    ratio: list[float | None]
    fine: float | None  # rings from FINE to 1
    nyquist: float | None  # at (1, 0), (0, 1) and (1, 1): checkerboards


def power_spectrum(batches: Iterable[Tensor]) -> np.ndarray:
    """Mean power (H, W) over images and channels, with frequencies in the order of `torch.fft.fftfreq`.

    Images are rounded to 8 bits, their mean is subtracted, and a Hann window suppresses the discontinuity at the borders.

    Args:
        batches: images (B, 3, H, W) in [-1, 1], all of one size.

    Raises:
        ValueError: no images, or different sizes.
    """
    total, count, window = None, 0, None
    for images in batches:
        levels = quantize(images).cpu().float()
        if window is None:
            window = torch.hann_window(levels.shape[2])[:, None] * torch.hann_window(levels.shape[3])[None]
        if levels.shape[2:] != window.shape:
            raise ValueError(f"expected images of one size, got {tuple(window.shape)} and {tuple(levels.shape[2:])}")
        levels = (levels - (levels * window).sum(dim=(2, 3), keepdim=True) / window.sum()) * window
        power = torch.fft.fft2(levels).abs().square().double().mean(dim=1).sum(dim=0)
        total, count = power if total is None else total + power, count + len(levels)
    if total is None or count == 0:
        raise ValueError("no images to compute a spectrum of")
    return (total / count).numpy()


def radial_power(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power without frequency 0: (centres of the rings in units of Nyquist up to √2, means)."""
    radius = _radius(power.shape)
    rings = min(_MOST_RINGS, math.ceil(math.sqrt(2) * min(power.shape) / 2))
    number = np.minimum((radius / math.sqrt(2) * rings).astype(int), rings - 1).ravel()
    counted = (radius > 0).ravel()
    weights = np.bincount(number, counted, minlength=rings)
    sums = np.bincount(number, counted * power.ravel(), minlength=rings)
    kept = weights > 0
    return ((np.arange(rings) + 0.5) * math.sqrt(2) / rings)[kept], (sums[kept] / weights[kept])


def spectrum_ratio(generated: np.ndarray, real: np.ndarray) -> SpectrumRatio:
    """Compare two spectra of `power_spectrum`, (H, W) both.

    Raises:
        ValueError: different shapes.
    """
    if generated.shape != real.shape:
        raise ValueError(f"expected spectra of images of one size, got {generated.shape} and {real.shape}")
    (frequency, ours), (_, theirs) = radial_power(generated), radial_power(real)
    radius = _radius(real.shape)
    fine = (radius >= FINE) & (radius <= 1)
    ratio = [_share(a, b) for a, b in zip(ours, theirs)]
    return SpectrumRatio(
        frequency.tolist(), ratio, *(_share(generated[mask].mean(), real[mask].mean()) for mask in (fine, _nyquist(real.shape)))
    )


def _radius(shape: tuple[int, ...]) -> np.ndarray:
    """Magnitude of every frequency, in units of Nyquist."""
    return 2 * np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])


def _nyquist(shape: tuple[int, ...]) -> np.ndarray:
    """The three Nyquist frequencies and their neighbours, over which the window spreads a pattern."""
    reach = [1.5 / size for size in shape]  # in cycles per pixel: one neighbour to either side
    low, high = zip(*((np.abs(f) < r, np.abs(f) > 0.5 - r) for f, r in zip((np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])), reach)))
    return (high[0][:, None] & (low[1] | high[1])[None]) | (low[0][:, None] & high[1][None])


def _share(ours: float, theirs: float) -> float | None:
    return float(ours / theirs) if theirs > 0 else None
