"""Detection scores by hand."""

from __future__ import annotations

import numpy as np
import pytest

from malp_disc.metrics.detection import detection_scores


def test_a_perfect_and_an_inverted_detector():
    labels = [0, 0, 1, 1]
    perfect, inverted = detection_scores(labels, [0.1, 0.2, 0.8, 0.9]), detection_scores(labels, [0.9, 0.8, 0.2, 0.1])
    assert (perfect.accuracy, perfect.eer, perfect.auc, perfect.average_precision) == (1, 0, 1, 1)
    assert (inverted.accuracy, inverted.eer, inverted.auc) == (0, 1, 0)


def test_one_swap_by_hand():
    """Scores 0.9(1) 0.7(0) 0.6(1) 0.2(0), descending.

    AUC: of 4 pairs (manipulated, untouched) one is wrong: 3/4. Accuracy at 0.5: 0.7 is a false alarm: 3/4. Average precision:
    ½·1 + ½·2/3 = 5/6. ROC (0, 0) (0, ½) (½, ½) (½, 1) (1, 1): false alarms = misses at (½, ½).
    """
    result = detection_scores([1, 0, 1, 0], [0.9, 0.7, 0.6, 0.2])
    assert (result.accuracy, result.auc, result.eer) == (0.75, 0.75, 0.5)
    assert result.average_precision == pytest.approx(5 / 6)
    assert result.images == 4


def test_equal_error_rate_between_two_points_of_the_curve():
    """2 manipulated, 3 untouched; scores 0.9(1) 0.8(0) 0.7(1) 0.6(0) 0.5(0). ROC: (0, ½) (⅓, ½) (⅓, 1): on the vertical piece at ⅓
    misses fall from ½ to 0 and are ⅓ at one point: EER ⅓."""
    assert detection_scores([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.5]).eer == pytest.approx(1 / 3)


def test_a_detector_that_says_the_same_of_everything_is_chance():
    result = detection_scores([0, 1, 0, 1], [0.5] * 4)
    assert (result.auc, result.eer, result.average_precision) == (0.5, 0.5, 0.5)


def test_only_accuracy_depends_on_the_scale_of_scores():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 50), rng.random(50)
    one, other = detection_scores(labels, scores), detection_scores(labels, 10 * scores - 20, threshold=-15)
    assert one == other
    assert detection_scores(labels, 10 * scores - 20).accuracy != one.accuracy


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "both classes, got 2 manipulated and 0 untouched"),
        ([], [], "both classes"),
        ([0, 2], [0.1, 0.2], r"labels 0 \(untouched\) and 1 \(manipulated\), got \[0, 2\]"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], [0.1], r"got \(2,\) and \(1,\)"),
    ],
)
def test_degenerate_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        detection_scores(labels, scores)
