"""Merge runs of the same experiment that were made separately, for example one seed per GPU."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from malp_disc.run_folder.same_experiment import check_one_experiment
from malp_disc.run_folder.schema import read_lines, read_measurements, read_reference_points
from malp_disc.run_folder.strips import OF_INPUTS
from malp_disc.serialization.files import atomic_path, write_text

_SAME = ("inputs_sha256", "reference_sha256", "key_fingerprint")  # of reference_points.json: images, reference, and the MaLP of the evaluation


def join_runs(folder: str | Path, others: Sequence[str | Path]) -> None:
    """Copy the arms and seeds of `others` into the run in `folder`: measurements, features, curves and images. `others` aren't changed.

    "before" is the same in all and kept once. The generators' weights aren't copied. If interrupted, it can be called again.

    Raises:
        FileNotFoundError: one of them isn't a run's folder.
        ValueError: other images, another MaLP, or the same arm and seed twice; nothing has been written then.
    """
    folder = Path(folder)
    lines = {path: _taken(folder, path) for path in map(Path, others)}
    taken = [(line["arm"], line["seed"]) for own in lines.values() for line in own]
    if twice := {place for place in taken if taken.count(place) > 1}:
        arm, seed = sorted(twice)[0]
        raise ValueError(f"{arm}, seed {seed} is in two of the runs to join; leave one out")
    for path, own in lines.items():
        for line in own:
            _copy_arm(path, folder, line["arm"], line["seed"])
        places = {(line["arm"], line["seed"]) for line in own}
        for name in ("gallery.jsonl", "quality.jsonl", "measurements.jsonl"):  # measurements last: they complete the copy
            _append(path, folder, name, places)


def _taken(folder: Path, other: Path) -> list[dict[str, Any]]:
    """The lines of `other` that `folder` lacks, after checking that both are of one experiment."""
    ours, theirs = read_measurements(folder), read_measurements(other)
    reference_points, others = (read_reference_points(path) for path in (folder, other))
    for key in _SAME:
        if getattr(reference_points, key) != getattr(others, key):
            raise ValueError(f"{other} and {folder} can't be joined: {key} differs ({getattr(others, key)} and {getattr(reference_points, key)}); their numbers don't compare")
    both = {seed: {**ours.get(seed, {}), **theirs.get(seed, {})} for seed in {*ours, *theirs}}
    check_one_experiment(both, f"{folder} and {other} can't be joined")
    for seed, arms in theirs.items():
        for arm, line in arms.items():
            if arm == "before":
                (known,) = [measured["before"] for measured in ours.values() if "before" in measured][:1] or [line]
                if not math.isclose(line.frechet.value, known.frechet.value, rel_tol=1e-4):
                    raise ValueError(
                        f"{other} and {folder} can't be joined: their generators before fine-tuning differ ({line.frechet.label} "
                        f"{line.frechet.value:.4f} and {known.frechet.value:.4f})"
                    )
            elif arm in ours.get(seed, {}):
                raise ValueError(f"{arm}, seed {seed} is in {folder} and in {other}; leave one out")
    has_before = any("before" in arms for arms in ours.values())
    return [line for _, line in read_lines(other / "measurements.jsonl") if not (has_before and line["arm"] == "before")]


def _copy_arm(source: Path, target: Path, arm: str, seed: int) -> None:
    """Copy features, images and curve of one arm and seed, and the images that all arms of the seed share."""
    files = [*(source / "features" / str(seed)).glob(f"{arm}.*"), *(source / "curves" / str(seed)).glob(f"{arm}.jsonl")]
    files += (source / "curves").glob(f"{arm}.jsonl") if seed == 0 else []
    images = (source / "gallery" / str(seed)).glob("*.png")
    files += [path for path in images if path.stem.startswith(f"{arm}-") or path.stem in OF_INPUTS]
    for path in files:
        with atomic_path(target / path.relative_to(source)) as temporary:
            shutil.copyfile(path, temporary)


def _append(source: Path, target: Path, name: str, places: set[tuple[str, int]]) -> None:
    """Append the lines of these arms and seeds, and of images that all arms of a seed share, unless they are present."""
    present, offered = ([line for _, line in read_lines(path)] if path.is_file() else [] for path in (target / name, source / name))
    seeds, files = {seed for _, seed in places}, {line["file"] for line in present if "file" in line}
    for line in offered:
        arm, seed = line.get("arm"), line["seed"]
        if ((arm, seed) in places or (arm is None and seed in seeds)) and line not in present and line.get("file", "") not in files:
            present.append(line)
    if offered:
        write_text(target / name, "".join(json.dumps(line) + "\n" for line in present))
