"""Differences between generators that edited the same inputs, with intervals: the paired bootstrap for many arms at once, and KID's own.

`malp_disc.metrics.frechet.paired_frechet_delta` is the same bootstrap for two arms, written out; here every resample of the reference is
shared by all arms, and nothing of the size of the features is computed twice, so seven arms cost little more than two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import Interval, check_features, check_same_width


@dataclass(frozen=True)
class Resampled:
    """A distance to the reference, and what it is on resamples (R,) that are the same for all arms."""

    value: float
    draws: np.ndarray


def resampled_frechet(reference: ArrayLike, arms: Mapping[str, ArrayLike], *, resamples: int = 200, seed: int = 0) -> dict[str, Resampled]:
    """Fréchet distance of every arm to the reference, and on `resamples` draws with replacement of rows and of the reference.

    Args:
        reference: features (M, D) of real images.
        arms: features (N, D) by arm; row i of each comes from the same input.

    Raises:
        ValueError: widths or numbers of rows that differ, or fewer than 2 resamples.
    """
    reference = check_features(reference, "reference")
    arms = _checked(reference, arms)
    if resamples < 2:
        raise ValueError(f"expected at least 2 resamples, got {resamples}")
    if not arms:
        return {}
    rows, width = next(iter(arms.values())).shape
    centre = reference.mean(axis=0)  # a shift that changes no distance and keeps the products below accurate
    reference = reference - centre
    kind = _Wide if min(rows, len(reference)) <= width else _Tall
    sides = {name: kind(reference, features - centre) for name, features in arms.items()}
    rng = np.random.default_rng(seed)
    counts = [(np.ones(len(reference)), np.ones(rows))]
    counts += [(_draw(rng, len(reference)), _draw(rng, rows)) for _ in range(resamples)]
    values: dict[str, list[float]] = {name: [] for name in sides}
    for real, generated in counts:
        shared = kind.of_reference(reference, real)
        for name, side in sides.items():
            values[name].append(side.distance(shared, real, generated))
    return {name: Resampled(found[0], np.array(found[1:])) for name, found in values.items()}


def bootstrap_delta(a: Resampled, b: Resampled, *, confidence: float = 0.95) -> Interval:
    """Distance of a minus that of b, with the interval of `paired_frechet_delta`: ±z·s around the value, and less its bias.

    Raises:
        ValueError: confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}")
    value, draws = a.value - b.value, a.draws - b.draws
    unbiased = 2 * value - float(draws.mean())
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * float(draws.std(ddof=1))
    return Interval(value, min(value, unbiased) - margin, max(value, unbiased) + margin)


def halved_kernel(reference: ArrayLike, arms: Mapping[str, ArrayLike], *, subsets: int = 100, seed: int = 0) -> dict[str, Resampled]:
    """Kernel distance (KID) of every arm on random halves of the rows, the same rows in every arm.

    Halves are drawn without replacement, because a repeated row would count the kernel of an image with itself. The spread over halves is
    that of the whole (the delete-half jackknife), so `half_delta` gives an interval. Halves have at most 1000 rows; beyond, the interval
    is too wide. Measured coverage of 95 % intervals, D = 16, N = 300 to 1000: 0.98 to 1.00; heavy tails, D = 1, N = 200: 0.90.

    Raises:
        ValueError: widths or numbers of rows that differ, fewer than 4 rows, or fewer than 2 subsets.
    """
    reference = check_features(reference, "reference")
    arms = _checked(reference, arms)
    if subsets < 2:
        raise ValueError(f"expected at least 2 subsets, got {subsets}")
    if not arms:
        return {}
    rows = len(next(iter(arms.values())))
    sizes = [min(1000, n // 2) for n in (len(reference), rows)]
    if min(sizes) < 2:
        raise ValueError(f"expected at least 4 rows on either side, got {len(reference)} and {rows}")
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(subsets):
        real, taken = (rng.permutation(n)[:size] for n, size in zip((len(reference), rows), sizes))
        x = reference[real]
        within = _within(x)
        for name, features in arms.items():
            y = features[taken]
            values[name].append(within + _within(y) - 2 * float(_kernel(x, y).mean()))
    return {name: Resampled(float(np.mean(found)), np.array(found)) for name, found in values.items()}


def half_delta(a: Resampled, b: Resampled, *, confidence: float = 0.95) -> Interval:
    """Kernel distance of a minus that of b, ±z·s over the halves: unbiased, so nothing is corrected."""
    value, draws = a.value - b.value, a.draws - b.draws
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * float(draws.std(ddof=1))
    return Interval(value, value - margin, value + margin)


def _within(rows: np.ndarray) -> float:
    """Mean kernel of different rows."""
    table, n = _kernel(rows, rows), len(rows)
    return float((table.sum() - np.trace(table)) / (n * (n - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(uᵀv / D + 1)³, as in `malp_disc.metrics.kid`."""
    table = x @ y.T / x.shape[1] + 1
    return table * table * table


def _checked(reference: np.ndarray, arms: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    checked = {name: check_features(features, name) for name, features in arms.items()}
    for features in checked.values():
        check_same_width(reference, features)
    shapes = {name: features.shape for name, features in checked.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"arms must be paired row by row (one input through every generator), got {shapes}")
    return checked


def _draw(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each of n rows comes up in n draws with replacement."""
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)


class _Tall:
    """More rows than columns: everything from means and covariances (D, D)."""

    def __init__(self, reference: np.ndarray, features: np.ndarray) -> None:
        self.features = features

    @staticmethod
    def of_reference(reference: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Mean, trace of the covariance, and a root of it."""
        mean, covariance = _moments(reference, counts)
        values, vectors = np.linalg.eigh(covariance)
        return mean, float(np.trace(covariance)), vectors * np.sqrt(values.clip(min=0))

    def distance(self, shared: tuple[np.ndarray, float, np.ndarray], real: np.ndarray, counts: np.ndarray) -> float:
        (mean, trace, root), (own_mean, covariance) = shared, _moments(self.features, counts)
        product = root.T @ covariance @ root
        nuclear = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
        return max(0.0, float(((mean - own_mean) ** 2).sum() + trace + np.trace(covariance) - 2 * nuclear))


class _Wide:
    """Rows up to as many as columns: everything from products of rows, (N, M), which are taken once."""

    def __init__(self, reference: np.ndarray, features: np.ndarray) -> None:
        self.cross = features @ reference.T  # (N, M)
        self.own = features @ features.T

    @staticmethod
    def of_reference(reference: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
        """Squared length of the mean, and trace of the covariance."""
        mean = counts @ reference / counts.sum()
        squares = counts @ (reference**2).sum(axis=1)
        return float(mean @ mean), float((squares - counts.sum() * (mean @ mean)) / (counts.sum() - 1))

    def distance(self, shared: tuple[float, float], real: np.ndarray, counts: np.ndarray) -> float:
        (real_length, real_trace), n, m = shared, counts.sum(), real.sum()
        length = float(counts @ self.own @ counts) / n**2
        trace = (float(counts @ np.diag(self.own)) - n * length) / (n - 1)
        rows, columns = self.cross @ real / m, counts @ self.cross / n  # each row with the reference's mean, the arm's mean with each row
        both = float(counts @ rows) / n
        i, j = counts > 0, real > 0
        centred = self.cross[np.ix_(i, j)] - rows[i, None] - columns[None, j] + both
        centred *= np.sqrt(counts[i] / (n - 1))[:, None] * np.sqrt(real[j] / (m - 1))[None]
        square = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
        nuclear = np.sqrt(np.linalg.eigvalsh(square).clip(min=0)).sum()
        return max(0.0, float(length + real_length - 2 * both + trace + real_trace - 2 * nuclear))


def _moments(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of rows of which the i-th was drawn `counts[i]` times."""
    n = counts.sum()
    mean = counts @ rows / n
    centred = (rows - mean) * np.sqrt(counts)[:, None]
    return mean, centred.T @ centred / (n - 1)
