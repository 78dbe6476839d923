"""The record: all that a run found, as one JSON object, from which every rendering is made."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from malp_disc.metrics.frechet import frechet_distance, paired_frechet_delta
from malp_disc.report.environment import collect_environment
from malp_disc.report.folder import ANCHORS, complete, read_features, read_json, read_measurements
from malp_disc.report.numbers import number
from malp_disc.report.verdict import RULE, judge_run

logger = logging.getLogger("malp_disc")
CONFIDENCE = 0.95


def build_record(folder: str | Path, *, resamples: int = 200, seed: int = 0) -> dict[str, Any]:
    """Read a run's folder and compare its arms. The same folder gives the same record.

    Returns:
        JSON-ready, None where something was not measured:

        * ``verdict`` one sentence, ``verdict_rule``, and ``verdicts.<arm>.{outcome, reason}``;
        * ``arms.<before|control|frozen|cotrain>``: ``frechet.{label, value, n, extractor, resize, reference}``, ``kid.{value, std}``,
          ``edit_accuracy``, ``edit_accuracy_per_attribute``, ``kept_accuracy``, ``identity_l1``, ``localization``, ``detection``, ``steps``, ``seconds``;
        * ``anchors.{unedited, halves, encrypted_psnr}``;
        * ``comparison.<arm>.{delta_vs_control, delta_vs_before}``, each ``{value, low, high}`` or None: the arm's Frechet distance minus the other's;
        * ``bootstrap``, ``notes``, ``config``, ``environment``.

    Args:
        resamples, seed: of the paired bootstrap, see `paired_frechet_delta`.

    Raises:
        FileNotFoundError: no such folder, or no measurements in it.
        ValueError: a damaged file; the message names it and the line.
    """
    folder = Path(folder)
    arms = read_measurements(folder)
    anchors = complete(read_json(folder / "anchors.json"), ANCHORS, str(folder / "anchors.json"))
    features = {name: read_features(folder, name) for name in ("reference", *arms)}
    comparison = compare(features, arms, resamples=resamples, seed=seed)
    verdict, verdicts = judge_run(arms, comparison)
    return {
        "verdict": verdict,
        "verdict_rule": RULE,
        "verdicts": {arm: dataclasses.asdict(judged) for arm, judged in verdicts.items()},
        "arms": arms,
        "anchors": anchors,
        "comparison": comparison,
        "bootstrap": {"resamples": resamples, "seed": seed, "confidence": CONFIDENCE},
        "notes": [*_stale_features(features, arms), *_second_opinion(arms, comparison)],
        "config": _without_folders(read_json(folder / "config.json")),
        "environment": read_json(folder / "environment.json") or collect_environment(),
    }


def compare(features: dict[str, np.ndarray | None], arms: dict[str, Any], *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each arm but the control against the control, and against before; None where a side has no features."""

    def delta(arm: str, other: str) -> dict[str, float] | None:
        sides = [features.get(name) for name in ("reference", arm, other)]
        if arm == other or any(side is None for side in sides):
            return None
        logger.info("%s against %s: %d resamples", arm, other, resamples)
        try:
            return dataclasses.asdict(paired_frechet_delta(*sides, resamples=resamples, seed=seed, confidence=CONFIDENCE))
        except ValueError as error:
            raise ValueError(f"features/{arm}.npy, features/{other}.npy and features/reference.npy don't fit together: {error}") from error

    return {arm: {f"delta_vs_{other}": delta(arm, other) for other in ("control", "before")} for arm in arms if arm != "control"}


def _stale_features(features: dict[str, np.ndarray | None], arms: dict[str, Any]) -> list[str]:
    """Features that are not those of the measurement, as in a folder that two runs wrote to."""
    notes = []
    for arm, measured in arms.items():
        value, own = measured["frechet"]["value"], features[arm]
        if value is None or own is None or features["reference"] is None or own.shape[1] != features["reference"].shape[1]:
            continue
        again = frechet_distance(features["reference"], own)
        if abs(again - value) > 0.01 * max(abs(again), abs(value)) + 1e-3:
            notes.append(f"{arm}: the saved features give {number(again)}, the measurement says {number(value)}; they are not of the same pictures")
    return notes


def _second_opinion(arms: dict[str, Any], comparison: dict[str, dict[str, Any]]) -> list[str]:
    """Arms that the kernel distance ranks the other way round than a Frechet interval that excludes zero."""
    notes = []
    for arm, deltas in comparison.items():
        delta, kids = deltas["delta_vs_control"], [arms[side]["kid"]["value"] for side in (arm, "control") if side in arms]
        if delta is None or None in kids or delta["low"] <= 0 <= delta["high"]:
            continue
        if (kids[0] - kids[1]) * delta["value"] < 0:
            ours, control = map(number, kids)
            notes.append(f"{arm}: KID says the opposite of the Frechet distance, {ours} against the control's {control}; look at the pictures")
    return notes


def _without_folders(value: Any) -> Any:
    """Absolute paths cut to their last part, also within a command: a report is passed on, and where things lay is nobody's business."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    if isinstance(value, str):
        return " ".join(_last_part(word) for word in value.split(" "))
    return value


def _last_part(word: str) -> str:
    flag, equals, path = word.partition("=") if word.startswith("-") else ("", "", word)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(path).is_absolute():
            return flag + equals + kind(path).name
    return word
