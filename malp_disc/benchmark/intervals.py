"""Means over images with bootstrap intervals, differences between localizers on the same images, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.benchmark.resampled_detection import resampled_detection
from malp_disc.report.seeds import CONFIDENCE, mean_and_half_width

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, whose ends are None where there is too little for one."""

    value: float
    low: float | None = None
    high: float | None = None


def mean_over_images(values: ArrayLike) -> Estimate | None:
    """Mean of an image's scores with a percentile bootstrap interval over images; NaNs are left out. None if there are only NaNs."""
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    if len(defined) == 0:
        return None
    mean = float(defined.mean())
    if len(defined) < 2:
        return Estimate(mean)
    draws = _weights(len(defined)) @ defined
    return Estimate(mean, *map(float, np.quantile(draws, _tails())))


def paired_difference(a: ArrayLike, b: ArrayLike) -> Estimate | None:
    """Mean of a - b over the images that have both, with a bootstrap interval: every resample draws the same images for both.

    Raises:
        ValueError: different numbers of images.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"expected the scores of the same images, got {a.shape} and {b.shape}")
    return mean_over_images(a - b)


def detection_over_images(untouched: ArrayLike, manipulated: ArrayLike, *, threshold: float) -> dict[str, Estimate]:
    """``accuracy``, ``eer``, ``auc`` and ``average_precision`` of the scores, and ``false_images``, the share of untouched images at or above the threshold.

    Intervals are from a bootstrap over images, which draws an image's untouched and its manipulated version together. For a score that separates all
    images they have no width, which doesn't mean certainty.

    Raises:
        ValueError: different numbers of images, or none.
    """
    untouched, manipulated = (np.asarray(scores, dtype=np.float64) for scores in (untouched, manipulated))
    if untouched.ndim != 1 or untouched.shape != manipulated.shape or not len(untouched):
        raise ValueError(f"expected the scores of both versions of every image, got {untouched.shape} and {manipulated.shape}")
    if not (np.isfinite(untouched).all() and np.isfinite(manipulated).all()):
        raise ValueError("expected finite scores")
    count = len(untouched)
    whole = resampled_detection(untouched, manipulated, np.ones((1, count)), threshold=threshold)
    if count < 2:
        return {name: Estimate(float(value[0])) for name, value in whole.items()}
    draws = resampled_detection(untouched, manipulated, _weights(count), threshold=threshold)
    return {name: Estimate(float(value[0]), *map(float, np.quantile(draws[name], _tails()))) for name, value in whole.items()}


def over_seeds(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """The mean over seeds with Student's t interval; the only seed's own interval over images; None if a seed has none."""
    if not estimates or any(estimate is None for estimate in estimates):
        return None
    if len(estimates) == 1:
        return estimates[0]
    mean, half = mean_and_half_width([estimate.value for estimate in estimates])
    return Estimate(mean, mean - half, mean + half)


@lru_cache(maxsize=4)
def _weights(count: int) -> np.ndarray:
    """(RESAMPLES, count): each image's share of a resample, the same ones for every score of as many images."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count


def _tails() -> list[float]:
    return [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
