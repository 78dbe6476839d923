"""What the numbers in a report are: distances between sets of images, and how well a map, a score or an edit did.

Feature extractors are in `malp_disc.metrics.features`, which is left out here: it brings in torchvision, pytorch-fid and clean-fid.
"""

from .attribute_net import AttributeNet, shipped_weights
from .detection import DetectionScores, detection_scores
from .editing import EditScores, edit_accuracy, identity_l1, single_attribute_targets
from .frechet import (
    Interval,
    feature_statistics,
    frechet_distance,
    frechet_distance_from_statistics,
    frechet_distance_low_rank,
    paired_frechet_delta,
)
from .kid import kernel_distance
from .localization import LocalizationScores, localization_scores

__all__ = [
    "AttributeNet",
    "DetectionScores",
    "EditScores",
    "Interval",
    "LocalizationScores",
    "detection_scores",
    "edit_accuracy",
    "feature_statistics",
    "frechet_distance",
    "frechet_distance_from_statistics",
    "frechet_distance_low_rank",
    "identity_l1",
    "kernel_distance",
    "localization_scores",
    "paired_frechet_delta",
    "shipped_weights",
    "single_attribute_targets",
]
