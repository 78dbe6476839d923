"""The rows of the search: how each differs from the defaults of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from malp_disc.backbones import RANDOM
from malp_disc.experiment.arms import Arm


@dataclass(frozen=True)
class Row:
    """One row: an arm, and the flags that differ from the defaults."""

    group: str
    arm: Arm
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The row's arm and flags as text."""
        flags = ", ".join(
            f"{name.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in self.flags.items()
        )
        return f"{self.arm}{': ' if flags else ''}{flags}"


_CLASSIFIER = {"map_weight": 0.0, "classifier_weight": 1.0}
_BOTH = {"map_weight": 1.0, "classifier_weight": 1.0}
_PRETRAINING_LOSSES = {"cotrain_losses": "pretraining"}  # MaLP keeps its pretraining losses

ROWS: dict[str, Row] = {
    "control": Row("Without MaLP", "control"),
    "control-slow": Row("Without MaLP", "control", {"learning_rate": 3e-5, "discriminator_learning_rate": 1.2e-4}),
    "control-linear": Row("Without MaLP", "control", {"lr_scheduler": "linear"}),
    "control-average": Row("Without MaLP", "control", {"ema_decay": 0.999}),
    "frozen": Row("Frozen MaLP", "frozen"),
    "frozen-1": Row("Frozen MaLP", "frozen", {"frozen_weight": 1.0}),
    "frozen-share": Row("Frozen MaLP", "frozen", {"gradient_share": 0.3}),
    "frozen-classifier": Row("Frozen MaLP", "frozen", {**_CLASSIFIER, "gradient_share": 0.3}),
    "cotrain": Row("Co-trained MaLP", "cotrain"),
    "classifier": Row("Co-trained MaLP", "cotrain", _CLASSIFIER),
    "classifier-share": Row("Co-trained MaLP", "cotrain", {**_CLASSIFIER, "gradient_share": 0.3}),
    "pretraining": Row("Co-trained MaLP with pretraining losses", "cotrain", _PRETRAINING_LOSSES),
    "pretraining-realness": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, **_CLASSIFIER}),
    "pretraining-share": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, "gradient_share": 0.3}),
    "pretraining-share-1": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, "gradient_share": 1.0}),
    "pretraining-classifier": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, **_CLASSIFIER, "gradient_share": 0.3}),
    "pretraining-classifier-1": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, **_CLASSIFIER, "gradient_share": 1.0}),
    "pretraining-both": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, **_BOTH, "gradient_share": 0.3}),
    "pretraining-r1": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, "gradient_share": 0.3, "r1_weight": 1.0}),
    "pretraining-slow": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, "gradient_share": 0.3, "cotrain_learning_rate": 3e-4}),
    "pretraining-faint": Row("Co-trained MaLP with pretraining losses", "cotrain", {**_PRETRAINING_LOSSES, "gradient_share": 0.1}),
    "vision-aided": Row("Pretrained second branch: realness", "vision_aided"),
    "vision-aided-1": Row("Pretrained second branch: realness", "vision_aided", {"realness_weight": 1.0}),
    "vision-aided-2": Row("Pretrained second branch: realness", "vision_aided", {"realness_weight": 2.0}),
    "vision-aided-3": Row("Pretrained second branch: realness", "vision_aided", {"realness_weight": 3.0}),
    "vision-aided-4": Row("Pretrained second branch: realness", "vision_aided", {"realness_weight": 4.0}),
    "unconditional-0.5": Row("Pretrained second branch: realness, without attributes", "vision_aided", {"conditional_realness": False, "realness_weight": 0.5}),
    "unconditional-0.7": Row("Pretrained second branch: realness, without attributes", "vision_aided", {"conditional_realness": False, "realness_weight": 0.7}),
    "unconditional-1": Row("Pretrained second branch: realness, without attributes", "vision_aided", {"conditional_realness": False, "realness_weight": 1.0}),
    "unconditional-3": Row("Pretrained second branch: realness, without attributes", "vision_aided", {"conditional_realness": False, "realness_weight": 3.0}),
    "vision-aided-random": Row("Pretrained second branch: realness", "vision_aided", {"backbone_weights": Path(RANDOM)}),
    "vision-aided-96": Row("Pretrained second branch: realness", "vision_aided", {"backbone_side": 96}),
    "vision-aided-64": Row("Pretrained second branch: realness", "vision_aided", {"backbone_side": 64}),
    "vision-aided-augmented": Row("Pretrained second branch: realness", "vision_aided", {"augmentation": ("color", "translation")}),
    "feature-map": Row("Pretrained second branch: fakeness map", "feature_map"),
    "feature-map-10": Row("Pretrained second branch: fakeness map", "feature_map", {"branch_map_weight": 10.0}),
    "joint": Row("Both branches", "joint"),
    "joint-3": Row("Both branches", "joint", {"realness_weight": 3.0}),
    "joint-template": Row("Both branches", "joint", {"template_dropout": 0.0}),
    "joint-map": Row("Both branches", "joint", {"map_weight": 1.0, "classifier_weight": 0.0}),
}
