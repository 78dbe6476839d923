"""What a Fréchet distance would be with images without end: its bias falls as 1/n, so a straight line in 1/n is followed to 0.

FD(n) ≈ FD(∞) + c / n        Chong and Forsyth, CVPR 2020, arXiv:1911.07023 ("FID infinity")
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width, frechet_distance

SMALLEST_SHARE = 4  # sizes go from a quarter of the images to all


def extrapolate(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Where the least-squares line of `values` over 1/`sizes` meets 0; exact if the values follow a + c/n.

    Raises:
        ValueError: other than one value per size, or fewer than two different sizes above 0.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2 or min(sizes) <= 0:
        raise ValueError(
            f"expected a value for each of at least two different sizes above 0, got sizes {list(sizes)} and {len(values)} values"
        )
    slope, intercept = np.polyfit(1 / np.asarray(sizes, dtype=float), np.asarray(values, dtype=float), 1)
    return float(intercept)


def extrapolated_frechet(reference: ArrayLike, features: ArrayLike, *, points: int = 6, seed: int = 0) -> float | None:
    """The Fréchet distance of features (N, D) to a reference (M, D), followed to infinitely many images on both sides.

    Both sets are cut to the same share, a quarter to all at equal steps of 1/share, so that both biases follow the same law; a smaller
    cut is measured on as many disjoint parts as there are, and averaged.

    Returns:
        None where a quarter of the smaller set has fewer than D + 1 rows: there the covariance is short of rank and the law doesn't hold.

    Raises:
        ValueError: widths that differ, or fewer than 2 points.

    Note:
        Not an unbiased number: the law is the first term of a series. Below 0 it says "too close to tell".
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
