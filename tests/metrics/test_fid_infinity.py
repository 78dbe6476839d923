"""The line in 1/n: exact for its law, nearer to the truth than the value itself, and silent where the law doesn't hold."""

from __future__ import annotations

import numpy as np
import pytest

from malp_disc.metrics.fid_infinity import extrapolate, extrapolated_frechet
from malp_disc.metrics.frechet import frechet_distance


def test_exact_for_a_law_of_one_over_n():
    sizes = [250, 333, 500, 1000]
    assert extrapolate(sizes, [7.5 + 420 / n for n in sizes]) == pytest.approx(7.5, abs=1e-9)
    assert extrapolate([10, 20], [3.0, 3.0]) == pytest.approx(3.0)


def test_nearer_to_the_distance_of_infinite_sets_than_the_value_is():
    """Two sets of one distribution: the distance is 0, its estimate is biased by about D(D + 3) / 4n · 2. Means of 12 draws."""
    values, followed = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((400, 8)), rng.standard_normal((400, 8))
        values.append(frechet_distance(x, y))
        followed.append(extrapolated_frechet(x, y, seed=seed))
    assert np.mean(values) > 0.08
    assert abs(np.mean(followed)) < 0.25 * np.mean(values)


def test_a_true_distance_is_kept():
    """A shift of 1 in one of 8 coordinates: the distance is 1."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 8)), rng.standard_normal((2000, 8))
    y[:, 0] += 1
    assert extrapolated_frechet(x, y) == pytest.approx(1, abs=0.15)


def test_nothing_where_a_quarter_of_the_images_is_short_of_rank():
    rng = np.random.default_rng(0)
    assert extrapolated_frechet(rng.standard_normal((64, 16)), rng.standard_normal((200, 16))) is None
    assert extrapolated_frechet(rng.standard_normal((68, 16)), rng.standard_normal((200, 16))) is not None


@pytest.mark.parametrize(("sizes", "values"), [([5, 5], [1.0, 2.0]), ([5, 6], [1.0]), ([0, 6], [1.0, 2.0])])
def test_sizes_that_make_no_line_are_refused(sizes, values):
    with pytest.raises(ValueError, match="at least two different sizes above 0"):
        extrapolate(sizes, values)
