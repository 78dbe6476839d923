"""Differences between the arms of a run, seed by seed, with intervals: ``bootstrap.jsonl``.

Computed from the features where they exist, otherwise read from the file, so that a run's folder can be passed on without its features. Lines
that were computed from the same features with the same settings are reused.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from malp_disc.metrics.leverage import leverage
from malp_disc.metrics.paired_bootstrap import Resampled, bootstrap_delta, half_delta, halved_kernel, paired_mean_delta, resampled_frechet
from malp_disc.report.seeds import CONFIDENCE
from malp_disc.run_folder.arms import BASELINES, LEVERAGE, OF_IMAGES, SCORES, UNEDITED
from malp_disc.run_folder.measurement import Difference, Measurement
from malp_disc.run_folder.schema import read_features, read_typed

logger = logging.getLogger("malp_disc")
_FEWEST = 4  # images, for halves of at least two
Runs = Mapping[int, Mapping[str, Measurement]]


def compare_arms(folder: Path, runs: Runs, *, resamples: int = 200, seed: int = 0) -> list[Difference]:
    """One line per seed, score, arm and arm that it is compared with; a line with ``against`` None has the arm's own distance, computed
    from its features.

    Args:
        runs: as `read_measurements` gives them.
        resamples, seed: of the bootstrap. Lines that are read because features are missing keep their own.

    Raises:
        ValueError: a damaged file, or features that don't fit together; the message names the files.
    """
    stored = _stored(folder)
    lines = []
    for run in runs:
        for score in SCORES:
            lines += _compare(folder, runs, run, score, stored, {"resamples": resamples, "bootstrap_seed": seed})
        lines += _leverages(folder, runs, run, stored, {"resamples": resamples, "bootstrap_seed": seed})
        for score in OF_IMAGES:
            lines += _means_of_images(folder, runs, run, score, stored, {"resamples": resamples, "bootstrap_seed": seed})
    return lines


def arm_of(runs: Runs, seed: int, arm: str) -> int | None:
    """The seed whose measurement of `arm` is used for `seed`: its own, or for "before", which doesn't depend on the seed, the first one; None
    if there is none."""
    if arm in runs[seed]:
        return seed
    return next((other for other, arms in runs.items() if arm in arms), None) if arm == "before" else None


def _compare(
    folder: Path, runs: Runs, run: int, score: str, stored: Mapping[tuple, Difference], how: Mapping[str, int]
) -> list[Difference]:
    """All lines of one seed and score. Only the arms that a new line compares are resampled: another arm doesn't change the resamples.

    Only the verdict on a generator without attributes reads the unedited inputs, in the first score; resampling them takes as long as an arm.
    """
    view = "frechet" if score == "kid" else score
    owners = {arm: arm_of(runs, run, arm) for arm in dict.fromkeys((*runs[run], "before"))}
    references = (UNEDITED,) if score == "frechet" and any(arm.attributes == 0 for arm in runs[run].values()) else ()
    owners |= dict.fromkeys(references)
    features = {arm: read_features(folder, arm, seed=owner, view=view) for arm, owner in owners.items() if owner is not None or arm in references}
    features = {arm: found for arm, found in features.items() if found is not None}
    reference = read_features(folder, "reference", view=view)
    if score == "kid" and reference is not None and min(map(len, (reference, *features.values()))) < _FEWEST:
        return []
    digests = {arm: _digest(found) for arm, found in features.items()}
    real = "" if reference is None else _digest(reference)
    lines: list[Difference | None] = []  # None: to be made
    missing: dict[int, tuple[str, str | None, str]] = {}  # by the line's place
    for arm in runs[run]:
        for other in (None, *(name for name in BASELINES if name != arm and name in owners), *(references if arm == "before" else ())):
            sides = [side for side in (arm, other) if side is not None]
            old = stored.get((run, score, arm, other))
            if reference is None or any(side not in features for side in sides):
                lines += [old] if old is not None else []
                continue
            token = "-".join([real, *(digests[side] for side in sides)])
            if old is None or old.features != token or any(getattr(old, name) != value for name, value in how.items()):
                missing[len(lines)], old = (arm, other, token), None
            lines.append(old)
    needed = {side for arm, other, _ in missing.values() for side in (arm, other)}
    made = _resample(reference, {arm: found for arm, found in features.items() if arm in needed}, score, run, how) if missing else {}
    for place, (arm, other, token) in missing.items():
        lines[place] = Difference(run, score, arm, other, *_value(made, arm, other, score), features=token, **how, confidence=CONFIDENCE)
    return lines


def _leverages(folder: Path, runs: Runs, run: int, stored: Mapping[tuple, Difference], how: Mapping[str, int]) -> list[Difference]:
    """How much each arm's changes favour the extractor over the second one (`malp_disc.metrics.leverage`), against the control of the same seed."""
    lines = []
    for arm in runs[run]:
        if arm in ("before", "control"):
            continue
        old = stored.get((run, LEVERAGE, arm, "control"))
        owners = {name: arm_of(runs, run, name) for name in (arm, "control", "before") if name in (*runs[run], "before")}
        first, second = (
            [None if seed is None else read_features(folder, name, seed=seed, view=view) for name, seed in owners.items()] for view in ("frechet", "second")
        )
        if len(owners) < 3 or any(features is None for features in (*first, *second)):
            lines += [old] if old is not None else []
            continue
        token = "-".join(map(_digest, (*first, *second)))
        if old is not None and old.features == token and all(getattr(old, name) == value for name, value in how.items()):
            lines.append(old)
            continue
        found = leverage(first, second, resamples=how["resamples"], seed=how["bootstrap_seed"], confidence=CONFIDENCE)
        if found is not None:
            lines.append(Difference(run, LEVERAGE, arm, "control", found.value, found.low, found.high, features=token, **how, confidence=CONFIDENCE))
    return lines


def _means_of_images(
    folder: Path, runs: Runs, run: int, score: str, stored: Mapping[tuple, Difference], how: Mapping[str, int]
) -> list[Difference]:
    """The mean difference of a score of single images between each arm and its baselines, such as how much nearer to the perfect edits it is (below zero)."""
    owners = {arm: owner for arm in dict.fromkeys((*runs[run], "before")) if (owner := arm_of(runs, run, arm)) is not None}
    values = {arm: read_features(folder, arm, seed=owner, view=score) for arm, owner in owners.items()}
    lines = []
    for arm in runs[run]:
        for other in (name for name in BASELINES if name != arm and name in owners):
            if values[arm] is None or values[other] is None:
                old = stored.get((run, score, arm, other))
                lines += [old] if old is not None else []
                continue
            found = paired_mean_delta(
                values[arm][:, 0], values[other][:, 0], resamples=how["resamples"], seed=how["bootstrap_seed"], confidence=CONFIDENCE
            )
            token = "-".join(_digest(values[side]) for side in (arm, other))
            lines.append(Difference(run, score, arm, other, found.value, found.low, found.high, features=token, **how, confidence=CONFIDENCE))
    return lines


def _resample(
    reference: np.ndarray, features: Mapping[str, np.ndarray], score: str, run: int, how: Mapping[str, int]
) -> dict[str, Resampled]:
    logger.info("seed %d, %s: resampling %s", run, score, ", ".join(features))
    try:
        if score == "kid":
            return halved_kernel(reference, features, seed=how["bootstrap_seed"])
        return resampled_frechet(reference, features, resamples=how["resamples"], seed=how["bootstrap_seed"])
    except ValueError as error:
        files = ", ".join(f"features/{run}/{arm}.npy" for arm in features)
        raise ValueError(f"{files} and features/reference.npy don't fit together: {error}") from error


def _value(made: Mapping[str, Resampled], arm: str, other: str | None, score: str) -> tuple[float, float | None, float | None]:
    """The score or difference, and the ends of its interval."""
    if other is None:
        return made[arm].value, None, None
    delta = (half_delta if score == "kid" else bootstrap_delta)(made[arm], made[other], confidence=CONFIDENCE)
    return delta.value, delta.low, delta.high


def _stored(folder: Path) -> dict[tuple, Difference]:
    return {(line.seed, line.score, line.arm, line.against): line for line in read_typed(folder / "bootstrap.jsonl", Difference)}


def _digest(features: np.ndarray) -> str:
    """First digits of the sha256 of the features in float32, as saved."""
    return hashlib.sha256(np.ascontiguousarray(features, dtype=np.float32).tobytes()).hexdigest()[:12]
