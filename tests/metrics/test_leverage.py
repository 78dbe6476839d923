"""How far changes move the extractor's features relative to a reference extractor's: values by hand, symmetries, and a generator that was tuned on the extractor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from malp_disc.metrics.leverage import leverage


def features(rng: np.random.Generator, d: int, *steps: float, n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, d) of a fine-tuned generator and of a control, moved by steps of this length from those of the generator before, and the latter."""
    before = rng.standard_normal((n, d)) + 5
    arm, control = (before + step * rng.standard_normal((n, d)) for step in steps)
    return arm, control, before


def test_by_hand():
    """The extractor moved by 6 and the reference extractor by 2, in the control by 4 each: 3 against 1, in every image and so without any spread."""
    extractor, reference = ([np.full((4, 1), moved) for moved in moves] for moves in ((6.0, 4.0, 0.0), (2.0, -4.0, 0.0)))
    found = leverage(extractor, reference)
    assert (found.value, found.low, found.high) == pytest.approx((math.log(3),) * 3)


def test_the_control_itself_has_none_and_the_scale_of_the_features_doesnt_matter():
    rng = np.random.default_rng(0)
    extractor, reference = features(rng, 6, 0.4, 0.2), features(rng, 9, 0.3, 0.2)
    assert leverage([extractor[1], *extractor[1:]], [reference[1], *reference[1:]]).value == 0
    found = leverage(extractor, reference)
    assert leverage([1000 * rows + 7 for rows in extractor], reference).value == pytest.approx(found.value)
    swapped = leverage(reference, extractor)
    assert (swapped.value, swapped.low) == pytest.approx((-found.value, -found.high))


def test_larger_changes_alone_are_no_leverage_and_larger_ones_for_the_extractor_are():
    rng = np.random.default_rng(1)
    honest = leverage(features(rng, 6, 0.8, 0.2), features(rng, 9, 0.8, 0.2))
    assert honest.low < 0 < honest.high
    tuned = leverage(features(rng, 6, 0.4, 0.2), features(rng, 9, 0.2, 0.2))
    assert tuned.low < math.log(2) < tuned.high and tuned.low > 0.5


def test_the_interval_covers_the_ratio_in_about_95_of_100_draws_of_the_images():
    rng, inside = np.random.default_rng(2), 0
    for _ in range(200):
        found = leverage(features(rng, 4, 0.3, 0.2, n=60), features(rng, 4, 0.2, 0.2, n=60), resamples=60)
        inside += found.low < math.log(1.5) < found.high
    assert 0.88 < inside / 200 < 0.99


def test_without_any_change_there_is_no_ratio():
    rng = np.random.default_rng(3)
    extractor, reference = features(rng, 6, 0.4, 0.2), features(rng, 9, 0.3, 0.2)
    assert leverage([extractor[0], extractor[2], extractor[2]], [reference[0], reference[2], reference[2]]) is None
    assert leverage([extractor[2], extractor[1], extractor[2]], reference) is None


def test_features_of_other_images_or_networks_are_refused():
    rng = np.random.default_rng(4)
    extractor, reference = features(rng, 6, 0.4, 0.2), features(rng, 9, 0.3, 0.2)
    with pytest.raises(ValueError, match="same images in both networks, got 80 and 79"):
        leverage(extractor, [rows[1:] for rows in reference])
    with pytest.raises(ValueError, match="same inputs through all three generators, got 80, 79 and 80"):
        leverage([extractor[0], extractor[1][1:], extractor[2]], reference)
    with pytest.raises(ValueError, match="features of one extractor, got 6 and 9 columns"):
        leverage([extractor[0], reference[1], extractor[2]], reference)
