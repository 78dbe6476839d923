"""Detection metrics (the paper's Table 3): accuracy, equal error rate, AUC and average precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.metrics.arrays import as_float64


@dataclass(frozen=True)
class DetectionScores:
    """All in [0, 1]. Only accuracy depends on a threshold."""

    images: int
    accuracy: float  # share classified correctly at the threshold
    eer: float  # equal error rate: where the false positive rate equals the false negative rate
    auc: float  # area under the ROC curve: probability that a manipulated image has a higher score than an unchanged one
    average_precision: float


def detection_scores(labels: ArrayLike, scores: ArrayLike, *, threshold: float = 0.5) -> DetectionScores:
    """Accuracy, EER, AUC and average precision.

    Args:
        labels: (N,), 1 for manipulated, 0 for unchanged.
        scores: (N,), higher for manipulated; the default threshold is for probabilities.
        threshold: for accuracy; an image with exactly this score is classified as manipulated.

    Raises:
        ValueError: different lengths, labels other than 0 and 1, only one class, or scores that are not finite.

    Note:
        For few images, no threshold may make the two errors equal; then the ROC curve is interpolated linearly.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve  # late: takes a second to import

    labels, scores = as_float64(labels), as_float64(scores)
    if labels.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"expected labels (N,) and scores (N,), got {labels.shape} and {scores.shape}")
    if not np.isin(labels, (0, 1)).all():
        found = ", ".join(f"{label:g}" for label in np.unique(labels)[:5])
        raise ValueError(f"expected labels 0 (untouched) and 1 (manipulated), got [{found}]")
    manipulated = int(labels.sum())
    if not 0 < manipulated < len(labels):
        raise ValueError(f"expected images of both classes, got {manipulated} manipulated and {len(labels) - manipulated} untouched")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are not finite")
    return DetectionScores(
        images=len(labels),
        accuracy=float(((scores >= threshold) == labels.astype(bool)).mean()),
        eer=_equal_error_rate(*roc_curve(labels, scores)[:2]),
        auc=float(roc_auc_score(labels, scores)),
        average_precision=float(average_precision_score(labels, scores)),
    )


def _equal_error_rate(false_alarms: np.ndarray, hits: np.ndarray) -> float:
    """Where false positive rate = false negative rate on the piecewise linear ROC, along which their difference rises from -1 to 1."""
    difference = false_alarms - (1 - hits)
    after = int(np.argmax(difference >= 0))
    before = after - 1
    share = -difference[before] / (difference[after] - difference[before])
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))
