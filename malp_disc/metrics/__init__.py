"""Metrics: distances between sets of images, and scores of localization, detection and editing.

Feature extractors are in `malp_disc.metrics.features`, which isn't imported here: it imports torchvision, pytorch-fid and clean-fid.
"""

from .attribute_net import AttributeNet, shipped_weights
from .detection import DetectionScores, detection_scores
from .editing import EditScores, edit_accuracy, identity_l1, single_attribute_targets
from .frechet import (
    feature_statistics,
    frechet_distance,
    frechet_distance_from_statistics,
    frechet_distance_low_rank,
)
from .kid import kernel_distance
from .localization import LocalizationScores, localization_scores
from .paired_bootstrap import Interval, paired_frechet_delta

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
