"""The kernel distance between two sets of features (KID for the 2048 features of Inception). It is unbiased and may be negative.

    MMD² with k(u, v) = (uᵀv / D + 1)³        Bińkowski et al., ICLR 2018, arXiv:1801.01401
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width


def kernel_distance(
    x: ArrayLike, y: ArrayLike, *, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased squared MMD over random subsets of features (N, D) and (M, D).

    Args:
        subsets: number of subsets; the rows of each are drawn without replacement, from x and y independently.
        subset_size: rows per subset; None takes half of the smaller set, at most 1000. With all rows, all subsets are equal and the
            deviation is 0.
        seed: seed of the subsets.

    Raises:
        ValueError: features of different width, or a subset size below 2 or above the size of a set.
    """
    x, y = check_features(x, "x"), check_features(y, "y")
    check_same_width(x, y)
    smaller = min(len(x), len(y))
    size = max(2, min(1000, smaller // 2)) if subset_size is None else subset_size
    if not 2 <= size <= smaller or subsets < 1:
        raise ValueError(f"expected at least one subset of 2 to {smaller} rows (the smaller set), got {subsets} of {size}")
    rng = np.random.default_rng(seed)
    values = [squared_mmd(x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]]) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD² of float64 rows: mean of k over pairs i ≠ j within x, plus that within y, minus twice the mean over all pairs (x, y)."""
    return mean_within(x) + mean_within(y) - 2 * float(kernel(x, y).mean())


def mean_within(x: np.ndarray) -> float:
    """Mean of k over pairs i ≠ j of the rows of x."""
    k, n = kernel(x, x), len(x)
    return float((k.sum() - np.trace(k)) / (n * (n - 1)))


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(u, v) = (uᵀv / D + 1)³ of all pairs of rows, (N, M)."""
    k = x @ y.T / x.shape[1] + 1
    return k * k * k
