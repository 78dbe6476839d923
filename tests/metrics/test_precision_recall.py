"""Precision, recall, density and coverage: by hand, against the definitions written out, and at equal distributions."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from malp_disc.metrics.precision_recall import precision_recall


def test_by_hand_on_a_line():
    """k = 1. Real 0, 1, 10: radii 1, 1, 9. Generated 0.5, 3, 30: radii 2.5, 2.5, 27.

    0.5 lies in the balls of 0 and 1; 3 in that of 10 only; 30 in none: precision 2/3, density (2 + 1 + 0)/3 = 1. Every real ball holds one:
    coverage 1.
    0 and 1 lie in the ball of 0.5, and 10 in that of 30: recall 1.
    """
    scores = precision_recall([[0.0], [1.0], [10.0]], [[0.5], [3.0], [30.0]], k=1)
    assert astuple(scores) == pytest.approx((2 / 3, 1, 1, 1))


def test_real_and_generated_are_not_interchangeable():
    """Generated images that all sit in one place: real-looking, but they cover nothing else. Turned round it is the opposite."""
    rng = np.random.default_rng(0)
    spread, mode = rng.standard_normal((60, 3)), 0.05 * rng.standard_normal((60, 3))
    collapsed, turned = precision_recall(spread, mode), precision_recall(mode, spread)
    assert collapsed.precision > 0.9 and collapsed.recall < 0.2 and collapsed.coverage < 0.3
    assert (turned.precision, turned.recall) == (collapsed.recall, collapsed.precision)


def literal(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, ...]:
    """The definitions, image by image."""

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - other) for j, other in enumerate(x) if j != i)[k - 1]

    in_real = np.array([[np.linalg.norm(x - y) <= radius(real, i) for y in generated] for i, x in enumerate(real)])
    in_generated = np.array([[np.linalg.norm(x - y) <= radius(generated, j) for j, y in enumerate(generated)] for x in real])
    return in_real.any(axis=0).mean(), in_generated.any(axis=1).mean(), in_real.sum() / (k * len(generated)), in_real.any(axis=1).mean()


def test_equal_to_the_definitions_written_out():
    rng = np.random.default_rng(1)
    real, generated = rng.standard_normal((30, 4)), 0.8 * rng.standard_normal((25, 4)) + 0.5
    scores = precision_recall(real, generated, k=3)
    assert astuple(scores) == pytest.approx(literal(real, generated, 3))
    assert 0 < scores.precision < 1 and 0 < scores.recall < 1


@pytest.mark.filterwarnings("ignore:Could not adhere to working_memory")
def test_in_parts_as_in_one_piece():
    """Distances come in as many parts as memory allows; 0.001 MiB make parts of one row."""
    import sklearn

    rng = np.random.default_rng(2)
    real, generated = rng.standard_normal((90, 4)), rng.standard_normal((150, 4)) + 0.5
    whole = precision_recall(real, generated)
    with sklearn.config_context(working_memory=0.001):
        assert precision_recall(real, generated) == whole


def test_expectation_for_one_distribution():
    """Naeem et al.: E[density] = 1, and E[coverage] = 1 − Π_{i=1..k} (N − i) / (N + M − i) for N real and M generated images.

    Means over 60 pairs of sets; 4 standard errors.
    """
    n, m, k = 40, 50, 3
    rng = np.random.default_rng(3)
    scores = np.array([astuple(precision_recall(rng.standard_normal((n, 5)), rng.standard_normal((m, 5)), k=k)) for _ in range(60)])
    expected = 1 - np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)])
    for value, column in ((1, scores[:, 2]), (expected, scores[:, 3])):
        assert abs(column.mean() - value) < 4 * column.std() / np.sqrt(len(column)), (column.mean(), value)


def test_sets_with_fewer_rows_than_neighbours_are_refused():
    with pytest.raises(ValueError, match="k of 1 to 4, .* got 5"):
        precision_recall(np.zeros((9, 2)), np.zeros((5, 2)))
