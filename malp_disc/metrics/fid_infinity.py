"""FID∞: the Fréchet distance extrapolated to infinitely many images, by a linear fit in 1/n.

    FD(n) ≈ FD(∞) + c / n        Chong and Forsyth, CVPR 2020, arXiv:1911.07023
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width, frechet_distance

SMALLEST_SHARE = 4  # the smallest subset has a quarter of the images


def extrapolate(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Intercept of the least-squares line of `values` over 1/`sizes`; exact if the values are a + c/n.

    Raises:
        ValueError: the numbers of sizes and values differ, or there are fewer than two different sizes above 0.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2 or min(sizes) <= 0:
        raise ValueError(
            f"expected a value for each of at least two different sizes above 0, got sizes {list(sizes)} and {len(values)} values"
        )
    slope, intercept = np.polyfit(1 / np.asarray(sizes, dtype=float), np.asarray(values, dtype=float), 1)
    return float(intercept)


def extrapolated_frechet(reference: ArrayLike, features: ArrayLike, *, points: int = 6, seed: int = 0) -> float | None:
    """The Fréchet distance of features (N, D) to a reference (M, D), extrapolated to infinitely many images in both sets.

    Both sets are reduced to the same share, from a quarter to all at equal steps of 1/share, so that both biases decay alike; for smaller
    shares, the distances of all disjoint subsets are averaged.

    Args:
        points: number of shares.
        seed: seed of the random subsets.

    Returns:
        The intercept at 1/n = 0. None if a quarter of the smaller set has at most D rows: then the covariance is singular and
        the linear law doesn't hold.

    Raises:
        ValueError: different widths, or fewer than 2 points.

    Note:
        Not unbiased: the linear law is the first term of a series. A negative result means a distance too small to be resolved.
    """
    reference, features = check_features(reference, "reference"), check_features(features, "features")
    check_same_width(reference, features)
    if points < 2:
        raise ValueError(f"expected at least 2 points, got {points}")
    smaller = min(len(reference), len(features))
    if smaller // SMALLEST_SHARE <= features.shape[1]:
        return None
    rng = np.random.default_rng(seed)
    order, real_order = rng.permutation(len(features)), rng.permutation(len(reference))
    sizes, values = [], []
    for cut in np.linspace(1, SMALLEST_SHARE, points):
        n, m = int(len(features) / cut), int(len(reference) / cut)
        parts = [(real_order[k * m : (k + 1) * m], order[k * n : (k + 1) * n]) for k in range(int(cut))]
        sizes.append(n)
        values.append(float(np.mean([frechet_distance(reference[real], features[own]) for real, own in parts])))
    return extrapolate(sizes, values)
