"""Pixel metrics of manipulation localization, per image: F1, IoU and AUC of predicted maps against the pixels that were changed.

The truth is binary here: a pixel counts as changed where M_GT (Eq. 5) is at least `CHANGED`. F1 and IoU need a threshold for the predicted map too, and the
literature uses three, which differ much. All are computed:

    fixed       the localizer's own threshold, chosen before the test: what a user gets
    best        one threshold for all images of a set, chosen on that set: what a user could get after choosing well
    per image   the best threshold for every image by itself: an upper bound that nobody can reach, but many papers print

None of them is defined for an image in which nothing changed; untouched images have the share of pixels that are falsely marked instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHANGED = 0.1
"""Least M_GT of a changed pixel: the threshold with which Dang et al. (CVPR 2020, [11] in the paper) made their binary masks."""
LEVELS = 256
"""Thresholds 0, 1/256 … 255/256, of which the best for a set is chosen. A power of two, so that comparing a map with a threshold is exact."""
_CHUNK = 64  # images at a time; sorting needs memory for about ten maps per image


@dataclass(frozen=True)
class PixelScores:
    """Scores of each image, (B,) float64 each; NaN where an image has none.

    Attributes:
        f1, iou: at the fixed threshold; NaN if no pixel was changed.
        f1_best_per_image, iou_best_per_image: at the best threshold for this image; NaN if no pixel was changed.
        auc: area under the ROC curve of this image's pixels; NaN if all pixels or none were changed.
        marked: share of all pixels at or above the fixed threshold. On an untouched image these are false positives.
        changed: share of pixels that were changed.
        f1_by_threshold, iou_by_threshold: (B, `LEVELS`), at each of `thresholds()`, for `best_threshold`.
    """

    f1: Tensor
    iou: Tensor
    f1_best_per_image: Tensor
    iou_best_per_image: Tensor
    auc: Tensor
    marked: Tensor
    changed: Tensor
    f1_by_threshold: Tensor
    iou_by_threshold: Tensor


def thresholds() -> Tensor:
    """(`LEVELS`,) float64: 0, 1/256 … 255/256."""
    return torch.arange(LEVELS, dtype=torch.float64) / LEVELS


def pixel_scores(predicted: Tensor, truth: Tensor, *, threshold: float = 0.5, changed: float = CHANGED) -> PixelScores:
    """Pixel metrics of predicted maps, image by image.

    Shapes: predicted and truth (M_GT, `malp_disc.fakeness.fakeness_map`) (B, 1, H, W) in [0, 1].

    Args:
        threshold: fixed threshold of the predicted map; a pixel with exactly this value is marked.
        changed: least M_GT of a changed pixel.

    Raises:
        ValueError: shapes that differ, no images, values outside [0, 1], or thresholds outside it.
    """
    _check(predicted, truth, threshold, changed)
    parts = []
    for start in range(0, len(predicted), _CHUNK):
        map_, gt = (maps[start : start + _CHUNK].detach().cpu().flatten(1).float() for maps in (predicted, truth))
        parts.append(_of_chunk(map_, gt >= changed, threshold))
    return PixelScores(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def best_threshold(by_threshold: Tensor) -> tuple[float, Tensor]:
    """The threshold that is best for a set of images on average, and each image's score at it.

    Args:
        by_threshold: (B, `LEVELS`), `PixelScores.f1_by_threshold` or ``iou_by_threshold``; images without a score are ignored.

    Returns:
        The lowest of the best thresholds, and (B,) scores at it, NaN where an image has none. The threshold is NaN if no image has a score.
    """
    defined = ~by_threshold[:, 0].isnan()
    if not defined.any():
        return float("nan"), by_threshold[:, 0]
    best = int(by_threshold[defined].mean(dim=0).argmax())
    return float(thresholds()[best]), by_threshold[:, best]


def _of_chunk(map_: Tensor, changed: Tensor, threshold: float) -> dict[str, Tensor]:
    """Scores of maps (B, N) against changed pixels (B, N) bool."""
    positives = changed.sum(dim=1).double()
    hits, marked = _counts_at_levels(map_, changed)
    above = map_ >= threshold
    per_image = _best_of_each(map_, changed, positives)
    return {
        "f1": _f1((above & changed).sum(1).double(), above.sum(1).double(), positives),
        "iou": _iou((above & changed).sum(1).double(), above.sum(1).double(), positives),
        **per_image,
        "marked": above.double().mean(dim=1),
        "changed": changed.double().mean(dim=1),
        "f1_by_threshold": _f1(hits, marked, positives[:, None]),
        "iou_by_threshold": _iou(hits, marked, positives[:, None]),
    }


def _counts_at_levels(map_: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
    """Changed pixels that are marked and all marked pixels, (B, `LEVELS`) float64, at each of `thresholds()`."""
    level = (map_ * LEVELS).long().clamp(max=LEVELS - 1)  # the highest threshold that the pixel reaches
    marked = torch.zeros(len(map_), LEVELS, dtype=torch.float64)
    hits = marked.clone()
    marked.scatter_add_(1, level, torch.ones_like(map_, dtype=torch.float64))
    hits.scatter_add_(1, level, changed.double())
    return hits.flip(1).cumsum(1).flip(1), marked.flip(1).cumsum(1).flip(1)


def _best_of_each(map_: Tensor, changed: Tensor, positives: Tensor) -> dict[str, Tensor]:
    """F1 and IoU at each image's best threshold, and its AUC, from one sort of its pixels."""
    values, order = map_.sort(dim=1, descending=True)
    hits = changed.gather(1, order).double().cumsum(1)  # (B, N): changed ones among the k brightest pixels
    marked = torch.arange(1, map_.shape[1] + 1, dtype=torch.float64).expand_as(hits)
    last = torch.ones_like(changed)  # of equal values; a threshold can't separate them
    last[:, :-1] = values[:, :-1] > values[:, 1:]
    worst = torch.full_like(hits, -1.0)
    best = {
        "f1_best_per_image": torch.where(last, _f1(hits, marked, positives[:, None]), worst).amax(1),
        "iou_best_per_image": torch.where(last, _iou(hits, marked, positives[:, None]), worst).amax(1),
    }
    best = {name: torch.where(positives > 0, score, torch.nan) for name, score in best.items()}
    return {**best, "auc": _auc(hits, marked, last, positives)}


def _auc(hits: Tensor, marked: Tensor, last: Tensor, positives: Tensor) -> Tensor:
    """Area under the ROC curve by trapezoids between the last pixels of each value."""
    negatives = hits.shape[1] - positives
    false_alarms = marked - hits
    # Counts at the previous distinct value. They never fall, so a running maximum carries them over equal values.
    before = [torch.zeros_like(hits), torch.zeros_like(hits)]
    for earlier, counts in zip(before, (hits, false_alarms)):
        earlier[:, 1:] = torch.where(last, counts, 0.0).cummax(1).values[:, :-1]
    area = torch.where(last, (false_alarms - before[1]) * (hits + before[0]) / 2, 0.0).sum(1)
    return area / (positives * negatives)  # 0 / 0 is NaN: one class only


def _f1(hits: Tensor, marked: Tensor, positives: Tensor) -> Tensor:
    return torch.where(positives > 0, 2 * hits / (marked + positives), torch.nan)


def _iou(hits: Tensor, marked: Tensor, positives: Tensor) -> Tensor:
    return torch.where(positives > 0, hits / (marked + positives - hits), torch.nan)


def _check(predicted: Tensor, truth: Tensor, threshold: float, changed: float) -> None:
    if predicted.ndim != 4 or predicted.shape[1] != 1 or predicted.shape != truth.shape or predicted.numel() == 0:
        raise ValueError(
            f"expected at least one predicted map and M_GT of one shape (B, 1, H, W), got {tuple(predicted.shape)} and {tuple(truth.shape)}"
        )
    for name, maps in (("predicted maps", predicted), ("M_GT", truth)):
        low, high = (bound.item() for bound in torch.aminmax(maps.detach().float()))
        if not (low >= 0 and high <= 1):  # written so that NaN fails
            raise ValueError(f"expected {name} in [0, 1], got min {low:.4g} max {high:.4g}; clamp them, or divide by 255")
    for name, value in (("threshold of the map", threshold), ("M_GT of a changed pixel", changed)):
        if not 0 < value <= 1:
            raise ValueError(f"expected a {name} in (0, 1], got {value}")
