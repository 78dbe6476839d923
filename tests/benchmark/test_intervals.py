"""Intervals: the bootstrap of a mean against its normal approximation, pairing, undefined scores, and Student's t over seeds."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from malp_disc.benchmark.intervals import Estimate, detection_over_images, mean_over_images, over_seeds, paired_difference
from malp_disc.benchmark.resampled_detection import resampled_detection
from malp_disc.metrics.detection import detection_scores

DRAW = np.random.default_rng(0)
VALUES = DRAW.normal(0.5, 0.1, 200)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    found = mean_over_images(VALUES)
    error = VALUES.std() / np.sqrt(len(VALUES))
    assert found.value == pytest.approx(VALUES.mean())
    assert found.low == pytest.approx(VALUES.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(VALUES.mean() + 1.96 * error, abs=0.15 * error)


def test_images_without_a_score_are_left_out():
    assert mean_over_images([*VALUES, np.nan, np.nan]) == mean_over_images(VALUES)
    assert mean_over_images([np.nan]) is None
    assert mean_over_images([0.25]) == Estimate(0.25)


def test_a_paired_difference_cancels_what_the_images_share():
    shared = DRAW.normal(0, 1, 200)
    found = paired_difference(shared + 0.1 + 0.01 * DRAW.normal(size=200), shared)
    assert 0.09 < found.low < found.value < found.high < 0.11
    assert paired_difference(shared, shared) == Estimate(0, 0, 0)


def test_a_paired_difference_needs_the_same_images():
    with pytest.raises(ValueError, match="the same images"):
        paired_difference([1, 2], [1, 2, 3])


def test_detection_is_that_of_the_untouched_against_the_manipulated_images():
    untouched, manipulated = DRAW.normal(0, 1, 50), DRAW.normal(1, 1, 50)
    found = detection_over_images(untouched, manipulated, threshold=0.5)
    auc = roc_auc_score(np.repeat([0, 1], 50), np.concatenate([untouched, manipulated]))
    assert found["auc"].value == pytest.approx(auc)
    assert found["auc"].low < auc < found["auc"].high
    assert found["false_images"].value == (untouched >= 0.5).mean()
    assert found["accuracy"].value == pytest.approx(((untouched < 0.5).mean() + (manipulated >= 0.5).mean()) / 2)


@pytest.mark.parametrize("levels", [None, 4])
def test_detection_on_resamples_is_that_of_repeated_images(levels):
    """With ties, too; `malp_disc.metrics.detection` computes it by scikit-learn, one resample at a time."""
    untouched, manipulated = DRAW.normal(0, 1, 12), DRAW.normal(1, 1, 12)
    if levels:
        untouched, manipulated = (np.round(levels * scores) / levels for scores in (untouched, manipulated))
    counts = np.concatenate([np.ones((1, 12), dtype=int), DRAW.multinomial(12, np.full(12, 1 / 12), size=20)])
    found = resampled_detection(untouched, manipulated, counts, threshold=0.5)
    for i, count in enumerate(counts):
        rows = np.repeat(np.arange(12), count)
        literal = detection_scores(np.repeat([0, 1], 12), np.concatenate([untouched[rows], manipulated[rows]]), threshold=0.5)
        for name in ("accuracy", "eer", "auc", "average_precision"):
            assert found[name][i] == pytest.approx(getattr(literal, name), abs=1e-12), (name, i)


def test_detection_needs_both_versions_of_every_image():
    with pytest.raises(ValueError, match="both versions of every image"):
        detection_over_images([0.1], [0.1, 0.2], threshold=0.5)
    with pytest.raises(ValueError, match="finite"):
        detection_over_images([0.1], [np.nan], threshold=0.5)


def test_several_seeds_have_students_interval_and_one_keeps_its_own():
    one = Estimate(0.5, 0.4, 0.6)
    assert over_seeds([one]) is one
    found = over_seeds([Estimate(value, 0, 1) for value in (0.4, 0.5, 0.6)])
    assert found.value == pytest.approx(0.5)
    assert found.high - found.value == pytest.approx(4.3027 * 0.1 / np.sqrt(3), abs=1e-4)
    assert over_seeds([one, None]) is None and over_seeds([]) is None
