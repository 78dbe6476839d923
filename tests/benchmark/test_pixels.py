"""Pixel metrics against scikit-learn, image by image, and their special cases."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, precision_recall_curve, roc_auc_score

from malp_disc.metrics.pixels import LEVELS, best_threshold, pixel_scores, thresholds


def some_maps(seed: int = 0, *, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions that follow the truth with noise; with `levels`, many pixels share a value."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.rand(5, 1, 12, 14, generator=draw) * 0.3
    predicted = (truth + 0.2 * torch.rand(truth.shape, generator=draw)).clamp(0, 1)
    return (predicted * levels).round() / levels if levels else predicted, truth


@pytest.mark.parametrize("levels", [None, 7])
def test_fixed_threshold_and_auc_agree_with_scikit_learn(levels):
    predicted, truth = some_maps(levels=levels)
    scores = pixel_scores(predicted, truth, threshold=0.25, changed=0.15)
    for i in range(len(predicted)):
        changed, values = (truth[i] >= 0.15).flatten().numpy(), predicted[i].flatten().numpy()
        assert scores.f1[i].item() == pytest.approx(f1_score(changed, values >= np.float32(0.25)), abs=1e-12)
        assert scores.iou[i].item() == pytest.approx(jaccard_score(changed, values >= np.float32(0.25)), abs=1e-12)
        assert scores.auc[i].item() == pytest.approx(roc_auc_score(changed, values), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 7])
def test_best_threshold_per_image_agrees_with_the_precision_recall_curve(levels):
    predicted, truth = some_maps(1, levels=levels)
    scores = pixel_scores(predicted, truth, changed=0.15)
    for i in range(len(predicted)):
        changed, values = (truth[i] >= 0.15).flatten().numpy(), predicted[i].flatten().numpy()
        precision, recall, _ = precision_recall_curve(changed, values)
        assert scores.f1_best_per_image[i].item() == pytest.approx((2 * precision * recall / (precision + recall)).max(), abs=1e-12)
        ious = [jaccard_score(changed, values >= value) for value in np.unique(values)]
        assert scores.iou_best_per_image[i].item() == pytest.approx(max(ious), abs=1e-12)


def test_scores_at_every_threshold_are_those_of_the_fixed_threshold():
    predicted, truth = some_maps(2)
    scores = pixel_scores(predicted, truth, changed=0.15)
    for level in (1, 40, 77, LEVELS - 1):
        fixed = pixel_scores(predicted, truth, threshold=thresholds()[level].item(), changed=0.15)
        assert torch.equal(scores.f1_by_threshold[:, level], fixed.f1) and torch.equal(scores.iou_by_threshold[:, level], fixed.iou)


def test_one_threshold_for_the_set_lies_between_the_fixed_and_the_best_per_image():
    predicted, truth = some_maps(3)
    scores = pixel_scores(predicted, truth, threshold=0.5, changed=0.15)
    threshold, at_best = best_threshold(scores.f1_by_threshold)
    assert scores.f1.mean() < at_best.mean() <= scores.f1_best_per_image.mean()
    assert all(at_best.mean() >= scores.f1_by_threshold[:, level].mean() for level in range(LEVELS))
    assert torch.equal(at_best, pixel_scores(predicted, truth, threshold=threshold, changed=0.15).f1)


def test_a_perfect_map_scores_one_and_an_inverted_one_has_auc_zero():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :3] = 1
    perfect, inverted = pixel_scores(truth, truth), pixel_scores(1 - truth, truth)
    assert [getattr(perfect, name).item() for name in ("f1", "iou", "f1_best_per_image", "iou_best_per_image", "auc")] == [1] * 5
    assert inverted.auc.item() == inverted.f1.item() == 0
    assert inverted.iou_best_per_image.item() == 24 / 64  # all pixels marked


def test_an_untouched_image_has_a_share_of_false_marks_and_no_f1():
    predicted = torch.zeros(2, 1, 8, 8)
    predicted[0, :, :2] = 0.5
    scores = pixel_scores(predicted, torch.zeros_like(predicted))
    assert scores.marked.tolist() == [0.25, 0] and scores.changed.tolist() == [0, 0]
    undefined = torch.stack([scores.f1, scores.iou, scores.f1_best_per_image, scores.iou_best_per_image, scores.auc])
    assert undefined.isnan().all()
    threshold, at_best = best_threshold(scores.f1_by_threshold)
    assert np.isnan(threshold) and at_best.isnan().all()


def test_an_image_changed_everywhere_has_f1_but_no_auc():
    scores = pixel_scores(torch.full((1, 1, 8, 8), 0.7), torch.ones(1, 1, 8, 8))
    assert scores.f1.item() == 1 and scores.auc.isnan().all()


def test_images_without_a_score_do_not_move_the_best_threshold():
    predicted, truth = some_maps(4)
    with_untouched = pixel_scores(torch.cat([predicted, predicted]), torch.cat([truth, torch.zeros_like(truth)]), changed=0.15)
    alone = pixel_scores(predicted, truth, changed=0.15)
    assert best_threshold(with_untouched.f1_by_threshold)[0] == best_threshold(alone.f1_by_threshold)[0]


@pytest.mark.parametrize(
    "predicted, options, said",
    [
        (torch.zeros(1, 1, 8, 9), {}, "of one shape"),
        (torch.full((1, 1, 8, 8), 2.0), {}, "divide by 255"),
        (torch.full((1, 1, 8, 8), torch.nan), {}, "in \\[0, 1\\]"),
        (torch.zeros(1, 1, 8, 8), {"threshold": 0.0}, "threshold of the map"),
        (torch.zeros(1, 1, 8, 8), {"changed": 1.5}, "M_GT of a changed pixel"),
    ],
)
def test_unusable_input_is_refused(predicted, options, said):
    with pytest.raises(ValueError, match=said):
        pixel_scores(predicted, torch.zeros(1, 1, 8, 8), **options)
