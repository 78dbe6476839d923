"""The kernel distance between two sets of features (KID for the 2048 features of Inception). It is unbiased and may be negative.

    MMD² with k(u, v) = (uᵀv / D + 1)³        Bińkowski et al., ICLR 2018, arXiv:1801.01401
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.frechet import check_features, check_same_width

_BLOCK = 1024  # rows of a kernel at a time


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
    rows, columns = draw_subsets(rng, (len(x), len(y)), (size, size), subsets)
    values = mean_within_subsets(x, rows) + mean_within_subsets(y, columns) - 2 * mean_over_subsets(x, y, rows, columns)
    return float(np.mean(values)), float(np.std(values))


def draw_subsets(rng: np.random.Generator, counts: Sequence[int], sizes: Sequence[int], subsets: int) -> list[np.ndarray]:
    """Rows (S, size) of `subsets` random subsets of each of several sets, drawn without replacement, one subset of every set after the other."""
    drawn = [[rng.permutation(count)[:size] for count, size in zip(counts, sizes)] for _ in range(subsets)]
    return [np.stack(rows) for rows in zip(*drawn)]


def mean_over_subsets(x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean of k over all pairs of x[rows[s]] and y[columns[s]], for each subset s, (S,)."""
    pairs = rows.shape[1] * columns.shape[1]
    if len(x) * len(y) > len(rows) * pairs:  # large sets: the subsets' own kernels have fewer entries than that of all rows
        return np.array([kernel(x[i], y[j]).mean() for i, j in zip(rows, columns)])
    left, right = (_members(subsets, n) for subsets, n in ((rows, len(x)), (columns, len(y))))
    sums = np.zeros(len(rows))
    for start in range(0, len(x), _BLOCK):
        block = slice(start, start + _BLOCK)
        sums += ((left[:, block] @ kernel(x[block], y)) * right).sum(axis=1)
    return sums / pairs


def mean_within_subsets(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean of k over pairs i ≠ j of x[rows[s]], for each subset s, (S,): that over all pairs, without those of a row with itself."""
    n = rows.shape[1]
    own = ((x * x).sum(axis=1) / x.shape[1] + 1) ** 3
    return (mean_over_subsets(x, x, rows, rows) * n - own[rows].mean(axis=1)) / (n - 1)


def _members(subsets: np.ndarray, n: int) -> np.ndarray:
    """(S, n): 1 for the rows of each subset."""
    members = np.zeros((len(subsets), n))
    np.put_along_axis(members, subsets, 1.0, axis=1)
    return members


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(u, v) = (uᵀv / D + 1)³ of all pairs of rows, (N, M)."""
    k = x @ y.T / x.shape[1] + 1
    return k * k * k
