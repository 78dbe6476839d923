"""A run's folder as a recipe leaves it, with made-up numbers."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from malp_disc.metrics.frechet import frechet_distance
from malp_disc.report import write_report
from malp_disc.run_folder.schema import features_path
from malp_disc.run_folder.strips import write_strips

FRECHET = {
    "label": "FD-faces",
    "n": 120,
    "extractor": "AttributeNet faces (96 features)",
    "resize": "bilinear to 64",
    "reference": "drawn faces, n = 150",
}


def measurement(frechet: float, *, edit_accuracy: float | None = 0.95, identity_l1: float | None = 0.12, n: int = 120) -> dict[str, Any]:
    return {
        "frechet": {**FRECHET, "value": frechet, "n": n},
        "kid": {"value": frechet / 1000, "std": 0.002},
        "edit_accuracy": edit_accuracy,
        "edit_accuracy_per_attribute": {"Smiling": 0.9625, "Pale|Skin": None},
        "kept_accuracy": 0.9711,
        "identity_l1": identity_l1,
        "localization": {
            "cs": 0.858,
            "cs_constant": 0.804,
            "cs_official": 0.666,
            "cs_official_constant": 0.976,
            "pearson": 0.493,
            "psnr": 21.5,
            "ssim": 0.61,
        },
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


EVERY_ARM = {"before": 2.2, "control": 2.0, "control_2xD": 1.9, "random": 2.0, "frozen": 2.0, "cotrain": 1.0, "no_template": 1.1}
"""How far an arm's features are shifted from the reference's in the run of `make_full_run`."""
VIEWS = {"frechet": 1.0, "second": 0.9, "frechet_2x": 0.1, "frechet_4x": 0.0}
"""The share of that shift which is still there in each view: the gain sits in fine texture."""


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[int, ...]], Path]:
    """The folder of a run of these seeds by `write_full_run`, made once. Nobody may write to it."""
    return functools.cache(lambda seeds: write_full_run(tmp_path_factory.mktemp("full"), seeds=seeds))


@pytest.fixture
def make_full_run(tmp_path: Path, full_run: Callable[..., Path]) -> Callable[..., Path]:
    """A run by `write_full_run`, copied into a folder of this test."""

    def make(*, name: str = "full", seeds: tuple[int, ...] = (0, 1, 2), change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """change: may alter every line of measurements."""
        folder = shutil.copytree(full_run(seeds), tmp_path / name)
        if change is not None:
            lines = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
            for line in lines:
                change(line)
            _write_lines(folder / "measurements.jsonl", lines)
        return folder

    return make


@pytest.fixture(scope="session")
def full_report(tmp_path_factory: pytest.TempPathFactory, full_run: Callable[..., Path]) -> tuple[Path, dict[str, Any]]:
    """Such a run with its report, for tests that only look: its folder and its record."""
    folder = shutil.copytree(full_run((0, 1, 2)), tmp_path_factory.mktemp("report") / "full")
    return folder, write_report(folder, resamples=20)


def write_full_run(folder: Path, *, seeds: tuple[int, ...]) -> Path:
    """Write a run with everything: seven arms, several seeds, every view, a gallery, curves, reference_points. Features as in `make_run`, luck per seed."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(120, 6))
    reference = rng.normal(size=(150, 6)).astype(np.float32)
    for view in VIEWS:
        _save(features_path(folder, "reference", view=view), reference)
    lines = []
    for seed in seeds:
        for number, (arm, shift) in enumerate(EVERY_ARM.items()):
            if arm == "before" and seed != seeds[0]:
                continue
            own = np.random.default_rng(100 * seed + number)
            luck = 0.02 * own.normal()
            line = {"seed": seed, "arm": arm, **full_measurement(arm)}
            for view, share in VIEWS.items():
                features = (shared + 0.1 * own.normal(size=shared.shape) + share * (shift - 1 + luck) + 1).astype(np.float32)
                _save(features_path(folder, arm, seed=seed, view=view), features)
                line[view] = {**line[view], "value": frechet_distance(reference, features)}
            lines.append(line)
            if arm != "before":
                path = folder / "curves" / str(seed) / f"{arm}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_lines(path, [{"step": s, "G/adversarial": float(own.normal()), "MaLP/map": 1 / s} for s in range(10, 260, 10)])
            draw_images(folder, arm, seed)
    _write_lines(folder / "measurements.jsonl", lines)
    frames = {view: {name: {**DISTANCE, "label": LABELS[view], "value": value} for name, value in FRAME.items()} for view in VIEWS}
    reference_points = {**frames.pop("frechet"), **frames, "kid": {name: {"value": 0.01, "std": 0.002} for name in FRAME}, "spectrum": spectrum(1.0, 1.0),
               "edit_accuracy": 0.02, "kept_accuracy": 0.995, "encrypted_psnr": 38.4, "inputs_sha256": "1234abcd", "reference_sha256": "5678ef00",
               "key_fingerprint": "16e914e1319aa301"}  # fmt: skip
    (folder / "reference_points.json").write_text(json.dumps(reference_points))
    (folder / "config.json").write_text(json.dumps({"command": "recipes/finetune.py --seeds 0 1 2 --note <b>&amp;", "seeds": list(seeds)}))
    (folder / "environment.json").write_text(json.dumps({"malp_disc": "0.1.0", "python": "3.10.0"}))
    return folder


LABELS = {"frechet": "FD-faces", "second": "FD-random", "frechet_2x": "FD-faces at 1/2 size", "frechet_4x": "FD-faces at 1/4 size"}
DISTANCE = {**FRECHET, "dims": 6, "reference_n": 150, "infinity": 1.25}
FRAME = {"unedited": 0.5, "real_split": 0.3}


def full_measurement(arm: str) -> dict[str, Any]:
    """What `measure_arm` gives, and what the recipe adds."""
    pearson = {"cotrain": 0.41, "frozen": 0.30}.get(arm, 0.49)
    line = measurement(0.0)
    line |= {view: {**DISTANCE, "label": label} for view, label in LABELS.items()}
    line |= {"spectrum": spectrum(0.7, 0.9), "leakage": 0.012, "leakage_per_attribute": {"Smiling": 0.0125, "Pale|Skin": None}, "ssim_to_input": 0.65, "psnr_to_input": 24.5,
             "identity": {"name": "MobileFaceNet, weights sha256 0", "value": 0.81}, "weights": {"file": f"G-{arm}.safetensors", "sha256": "ab" * 32}}  # fmt: skip
    line["localization"] |= {"pearson": pearson, "pearson_mean_map": 0.21}
    if arm in ("control", "cotrain", "frozen"):
        line["localization_fresh"] = {**line["localization"], "pearson": 0.42 if arm == "cotrain" else 0.5}
        line["detection_fresh"] = dict(line["detection"])
    return line


def spectrum(fine: float, nyquist: float) -> dict[str, Any]:
    return {"frequency": [0.1, 0.5, 1.0, 1.3], "ratio": [1.0, 0.9, fine, nyquist], "fine": fine, "nyquist": nyquist}


def draw_images(folder: Path, arm: str, seed: int) -> None:
    """Strips of three images of 16×12, another grey for every arm."""
    grey = {name: i / 4 - 1 for i, name in enumerate(EVERY_ARM)}[arm]
    images, maps = torch.full((3, 3, 16, 12), grey), torch.full((3, 1, 16, 12), (grey + 1) / 2)
    captions = ["+ Smiling", "- <b>", "+ Pale|Skin"]
    strips = {kind: (images, captions) for kind in ("real", "encrypted", "edited", "manipulated")} | {
        kind: (maps, captions) for kind in ("map_encrypted", "truth", "map")
    }
    strips |= {kind: (images[:2], [f"+ Smiling: {p}" for p in (0.999, 0.101)]) for kind in ("worst", "best")}
    write_strips(folder, arm, strips, seed=seed)


def _save(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features)


@pytest.fixture
def make_run(tmp_path: Path, arms: dict[str, Any]) -> Callable[..., Path]:
    """Write a run of one seed and one view. Features are Gaussian; an arm's mean is off by `shifts`, the rest of every
    row is the same in all arms."""

    def make(*, shifts: dict[str, float] | None = None, without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "run"
        for part in ("features/0", "curves/0"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        shared, own = rng.normal(size=(120, 6)), np.random.default_rng(1)
        np.save(folder / "features" / "reference.npy", rng.normal(size=(150, 6)).astype(np.float32))
        lines = []
        for arm, shift in (shifts or {"before": 2.2, "control": 2.0, "frozen": 2.0, "cotrain": 1.0}).items():
            if arm in without:
                continue
            lines.append({"seed": 0, "arm": arm, **arms[arm]})
            features = shared + 0.1 * own.normal(size=shared.shape) + shift
            np.save(folder / "features" / "0" / f"{arm}.npy", features.astype(np.float32))
            if arm != "before":
                _write_lines(
                    folder / "curves" / "0" / f"{arm}.jsonl",
                    [{"step": s, "G/adversarial": np.sin(s), "MaLP/map": 1 / s} for s in range(10, 260, 10)],
                )
        _write_lines(folder / "measurements.jsonl", lines)
        _write_lines(folder / "curves" / "malp.jsonl", [{"step": s, "MaLP/total": 3 / s} for s in range(10, 110, 10)])
        reference_points = {"unedited": {**FRECHET, "value": 41.31}, "real_split": {**FRECHET, "value": 2.84, "n": 75}, "encrypted_psnr": 30.1}
        (folder / "reference_points.json").write_text(json.dumps(reference_points))
        (folder / "config.json").write_text(json.dumps({"seed": 3, "image_size": 64, "output_dir": "/somewhere/private/run"}))
        return folder

    return make


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
