"""The kernel distance between two sets of features ("KID" on Inception's 2048): unlike Fréchet's it is unbiased, so it may be negative.

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
        subsets: how many; each draws its rows without replacement, from x and from y apart.
        subset_size: rows of each; None takes half of the smaller set, at most 1000. Taking all rows makes every subset the same and
            the deviation 0.
        seed: of the draws.

    Raises:
        ValueError: features of different width, or a subset that is larger than a set or has less than 2 rows.
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
    """Unbiased MMD² of float64 rows: mean of k over pairs i ≠ j within x, within y, minus twice the mean over all pairs across."""
    n, m = len(x), len(y)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
