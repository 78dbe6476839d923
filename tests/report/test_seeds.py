"""Means over seeds, by hand."""

from __future__ import annotations

import math

import pytest

from malp_disc.report.seeds import Delta, Interval, delta_over_seeds, half_widths, mean_and_half_width, mean_over_seeds


def test_numbers_are_averaged_wherever_they_are_nested_and_text_is_kept():
    seeds = [{"frechet": {"label": "FID", "n": 100, "value": value}, "ratio": [value, None]} for value in (1.0, 2.0, 6.0)]
    assert mean_over_seeds(seeds) == {"frechet": {"label": "FID", "n": 100, "value": 3.0}, "ratio": [3.0, None]}


def test_half_the_interval_is_students():
    """1, 2, 6: deviation √7, over √3; t of 0.975 with 2 degrees of freedom is 4.3027."""
    expected = 4.30265 * math.sqrt(7 / 3)
    assert mean_and_half_width([1.0, 2.0, 6.0]) == (3.0, pytest.approx(expected, rel=1e-5))
    assert half_widths([{"a": 1.0, "b": "x"}, {"a": 2.0, "b": "x"}, {"a": 6.0, "b": "x"}]) == {
        "a": pytest.approx(expected, rel=1e-5),
        "b": None,
    }
    assert mean_and_half_width([0.1] * 3) == (0.1, 0.0)


def test_a_seed_without_a_number_leaves_none_in_the_mean():
    """A generator that diverged must not drop out of its arm's average."""
    assert mean_over_seeds([{"value": 1.0}, {"value": None}]) == {"value": None}
    assert mean_over_seeds([{"localization": {"pearson": 0.5}}, {}]) == {"localization": {"pearson": None}}


def test_another_extractor_in_another_seed_is_refused_and_other_weights_are_not():
    with pytest.raises(ValueError, match=r"cotrain frechet label differs between seeds \(FID, FID-768\)"):
        mean_over_seeds([{"frechet": {"label": label}} for label in ("FID", "FID-768")], "cotrain")
    assert mean_over_seeds([{"weights": {"file": name}} for name in "ab"], "cotrain") == {"weights": {"file": None}}


def test_a_difference_over_seeds_has_both_intervals_and_the_ends_enclose_both():
    deltas = [Delta(value, value - 1, value + 2) for value in (-5.0, -4.0, -6.0)]
    found = delta_over_seeds(deltas)
    half = 4.30265 / math.sqrt(3)
    assert (found.value, found.count) == (-5, 3)
    assert found.images == Interval(-6, -3)
    assert found.seeds == Interval(pytest.approx(-5 - half, rel=1e-5), pytest.approx(-5 + half, rel=1e-5))
    assert (found.low, found.high) == (found.seeds.low, found.seeds.high)
    wide = delta_over_seeds([Delta(-5.0, -9.0, 4.0)] * 2)
    assert (wide.low, wide.high) == (-9, 4)


def test_one_seed_has_the_bootstrap_alone_and_a_missing_one_leaves_nothing():
    assert delta_over_seeds([Delta(1.0, 0.5, 2.0)]) == Delta(1.0, 0.5, 2.0, images=Interval(0.5, 2.0), seeds=None, count=1)
    assert delta_over_seeds([Delta(1.0, 0.5, 2.0), None]) is None
    assert delta_over_seeds([]) is None
