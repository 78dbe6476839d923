"""A run's folder as a recipe leaves it, with made-up numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FRECHET = {"label": "FD-faces", "n": 120, "extractor": "AttributeNet faces (96 features)", "resize": "bilinear to 64", "reference": "drawn faces, n = 150"}


def measurement(frechet: float, *, edit_accuracy: float | None = 0.95, identity_l1: float | None = 0.12, n: int = 120) -> dict[str, Any]:
    return {
        "frechet": {**FRECHET, "value": frechet, "n": n},
        "kid": {"value": frechet / 1000, "std": 0.002},
        "edit_accuracy": edit_accuracy,
        "edit_accuracy_per_attribute": {"Smiling": 0.9625, "Pale|Skin": None},
        "kept_accuracy": 0.9711,
        "identity_l1": identity_l1,
        "localization": {"cs": 0.858, "cs_constant": 0.804, "cs_official": 0.666, "cs_official_constant": 0.976, "pearson": 0.493, "psnr": 21.5, "ssim": 0.61},
        "detection": {"accuracy": 0.991, "eer": 0.0125, "auc": 0.9987, "average_precision": 0.9989},
        "steps": 250,
        "seconds": 61.25,
    }


@pytest.fixture
def arms() -> dict[str, dict[str, Any]]:
    """Measurements by arm; tests change what they are about."""
    values = {"before": 132.4, "control": 122.7, "frozen": 120.5, "cotrain": 76.25}
    return {arm: measurement(value) for arm, value in values.items()}


@pytest.fixture
def comparison() -> dict[str, dict[str, Any]]:
    """cotrain clearly lower than the control and than before, frozen no different."""
    lower, none, higher = ({"value": v, "low": v - 6, "high": v + 6} for v in (-46.5, -2.2, 9.7))
    return copy.deepcopy(
        {
            "before": {"delta_vs_control": higher, "delta_vs_before": None},
            "frozen": {"delta_vs_control": none, "delta_vs_before": lower},
            "cotrain": {"delta_vs_control": lower, "delta_vs_before": lower},
        }
    )


@pytest.fixture
def make_run(tmp_path: Path, arms: dict[str, Any]) -> Callable[..., Path]:
    """Write a run. Features are Gaussian; an arm's mean is off by `shifts`, the rest of every row is the same in all arms."""

    def make(*, shifts: dict[str, float] | None = None, without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "run"
        for part in ("features", "curves"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        shared, own = rng.normal(size=(120, 6)), np.random.default_rng(1)
        np.save(folder / "features" / "reference.npy", rng.normal(size=(150, 6)).astype(np.float32))
        lines = []
        for arm, shift in (shifts or {"before": 2.2, "control": 2.0, "frozen": 2.0, "cotrain": 1.0}).items():
            if arm in without:
                continue
            lines.append({"arm": arm, **arms[arm]})
            features = shared + 0.1 * own.normal(size=shared.shape) + shift
            np.save(folder / "features" / f"{arm}.npy", features.astype(np.float32))
            if arm != "before":
                _write_lines(folder / "curves" / f"{arm}.jsonl", [{"step": s, "G/adversarial": np.sin(s), "MaLP/map": 1 / s} for s in range(10, 260, 10)])
        _write_lines(folder / "measurements.jsonl", lines)
        _write_lines(folder / "curves" / "malp.jsonl", [{"step": s, "MaLP/total": 3 / s} for s in range(10, 110, 10)])
        anchors = {"unedited": {**FRECHET, "value": 41.31}, "halves": {**FRECHET, "value": 2.84, "n": 75}, "encrypted_psnr": 30.1}
        (folder / "anchors.json").write_text(json.dumps(anchors))
        (folder / "config.json").write_text(json.dumps({"seed": 3, "image_size": 64, "output_dir": "/somewhere/private/run"}))
        return folder

    return make


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
