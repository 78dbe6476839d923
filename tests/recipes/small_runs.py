"""Options of small runs for tests that end before any training."""

from __future__ import annotations

from pathlib import Path

from malp_disc.experiment.arms import ArmOptions

SMALL = ["--train-size", 40, "--test-size", 12, "--eval-size", 12, "--reference-size", 12, "--second-extractor", "none", "--smaller-views"]
"""Flags of a recipe that evaluates."""


def options(**changed) -> ArmOptions:
    return ArmOptions(**{"output_dir": Path("x"), **changed})
