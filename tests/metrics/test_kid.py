"""The kernel distance: a value by hand, a literal reference, and unbiasedness."""

from __future__ import annotations

import numpy as np
import pytest

from malp_disc.metrics.kid import kernel_distance


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD², literally: mean of k over pairs i ≠ j within x, plus that within y, minus twice the mean over all pairs (x, y)."""

    def k(u, v):
        return (u @ v / len(u) + 1) ** 3

    within = [np.mean([k(u, v) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]) for rows in (x, y)]
    return float(sum(within) - 2 * np.mean([k(u, v) for u in x for v in y]))


def test_four_numbers_by_hand():
    """D = 1, k(u, v) = (uv + 1)³, x = {0, 1}, y = {1, 2}.

    Within x: k(0, 1) = 1. Within y: k(1, 2) = 27. Across: k(0, 1) = 1, k(0, 2) = 1, k(1, 1) = 8, k(1, 2) = 27, mean 37/4.
    MMD² = 1 + 27 − 2·37/4 = 9.5.
    """
    x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert squared_mmd(x, y) == pytest.approx(9.5)
    assert kernel_distance(x, y, subset_size=2) == pytest.approx((9.5, 0))


def test_equal_to_the_sums_written_out():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)) + 1
    assert kernel_distance(x, y, subset_size=5) == pytest.approx((squared_mmd(x, y), 0))


def test_unbiased_zero_for_one_distribution_and_positive_for_two():
    """The mean over 400 independent pairs of sets is within 3.5 standard errors of 0; with a shift it is not."""
    rng = np.random.default_rng(0)

    def distance(shift: float) -> float:
        return kernel_distance(rng.standard_normal((8, 4)), rng.standard_normal((8, 4)) + shift, subsets=1, subset_size=8)[0]

    same = np.array([distance(0) for _ in range(400)])
    error = same.std() / np.sqrt(len(same))
    assert abs(same.mean()) < 3.5 * error
    assert same.min() < 0 < same.max()
    shifted = np.array([distance(0.7) for _ in range(400)])
    assert shifted.mean() > 3.5 * error


def test_subsets_average_to_the_whole():
    """Each subset's MMD² is unbiased for that of the whole sets, so many subsets come near it."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), rng.standard_normal((50, 4)) + 1
    value, deviation = kernel_distance(x, y, subsets=2000, subset_size=20)
    assert value == pytest.approx(squared_mmd(x, y), abs=4 * deviation / np.sqrt(2000))
    assert deviation > 0


def test_seeded():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 4)), rng.standard_normal((40, 4))
    assert kernel_distance(x, y, subsets=5, seed=1) == kernel_distance(x, y, subsets=5, seed=1)
    assert kernel_distance(x, y, subsets=5, seed=1) != kernel_distance(x, y, subsets=5, seed=2)


def test_subsets_larger_than_a_set_are_refused():
    with pytest.raises(ValueError, match="2 to 7 rows .* got 100 of 8"):
        kernel_distance(np.zeros((9, 2)), np.zeros((7, 2)), subset_size=8)
