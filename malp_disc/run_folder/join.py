"""Merge runs of the same experiment that were made separately, for example one seed per GPU."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from malp_disc.run_folder.measurement import Measurement
from malp_disc.run_folder.same_experiment import check_one_experiment
from malp_disc.run_folder.schema import read_lines, read_measurements, read_reference_points
from malp_disc.run_folder.strips import OF_INPUTS
from malp_disc.serialization.files import atomic_path, write_text

_SAME = ("inputs_sha256", "reference_sha256", "key_fingerprint")  # of reference_points.json: images, reference, and the MaLP of the evaluation
Places = set[tuple[str, int]]
Runs = Mapping[int, Mapping[str, Measurement]]


def join_runs(folder: str | Path, others: Sequence[str | Path]) -> None:
    """Copy the arms and seeds of `others` into the run in `folder`: measurements, features, curves and images. `others` aren't changed.

    "before" is the same in all and kept once. The generators' weights aren't copied. An arm and seed that is there already with the same
    measurement is left alone, so that a join can be made again: after an interruption, or with further runs.

    Raises:
        FileNotFoundError: one of them isn't a run's folder.
        ValueError: other images, another MaLP, or two measurements of one arm and seed; nothing has been written then.
    """
    folder = Path(folder)
    joined = read_measurements(folder)
    sources = {(arm, seed): folder for seed, arms in joined.items() for arm in arms}
    taken: list[tuple[Path, Places]] = []
    for path in map(Path, others):
        theirs = read_measurements(path)
        _check_comparable(folder, path, joined, theirs)
        places = _lacking(joined, theirs, path, sources)
        sources |= dict.fromkeys(places, path)
        joined = {seed: {**theirs.get(seed, {}), **joined.get(seed, {})} for seed in {*joined, *theirs}}
        taken.append((path, places))
    for path, places in taken:
        for arm, seed in sorted(places):
            _copy_arm(path, folder, arm, seed)
        for name in ("gallery.jsonl", "quality.jsonl", "measurements.jsonl"):  # measurements last: they complete the copy
            _append(path, folder, name, places)


def _check_comparable(folder: Path, other: Path, ours: Runs, theirs: Runs) -> None:
    """Raise ValueError unless both are of one experiment."""
    reference_points, others = (read_reference_points(path) for path in (folder, other))
    for key in _SAME:
        if getattr(reference_points, key) != getattr(others, key):
            raise ValueError(f"{other} and {folder} can't be joined: {key} differs ({getattr(others, key)} and {getattr(reference_points, key)}); their numbers don't compare")
    both = {seed: {**ours.get(seed, {}), **theirs.get(seed, {})} for seed in {*ours, *theirs}}
    check_one_experiment(both, f"{folder} and {other} can't be joined")


def _lacking(ours: Runs, theirs: Runs, other: Path, sources: Mapping[tuple[str, int], Path]) -> Places:
    """The arms and seeds of `other` that the run lacks.

    Args:
        ours: the run, with what it gets from the runs before `other`.
        sources: the folder that each of its arms and seeds comes from, for messages.
    """
    lacking: Places = set()
    before = next(((arms["before"], sources["before", seed]) for seed, arms in ours.items() if "before" in arms), None)
    for seed, arms in theirs.items():
        for arm, line in arms.items():
            if arm == "before":
                known, source = before or (line, other)
                if not _same_distance(line, known):
                    found = " and ".join("not measured" if value is None else f"{value:.4f}" for value in (line.frechet.value, known.frechet.value))
                    raise ValueError(f"{other} and {source} can't be joined: their generators before fine-tuning differ ({line.frechet.label} {found})")
                if before is None:
                    lacking.add((arm, seed))
            elif arm not in ours.get(seed, {}):
                lacking.add((arm, seed))
            elif line != ours[seed][arm]:
                raise ValueError(f"{arm}, seed {seed} is in {sources[arm, seed]} and in {other}, with different measurements; leave one out")
    return lacking


def _same_distance(one: Measurement, other: Measurement) -> bool:
    values = one.frechet.value, other.frechet.value
    return values == (None, None) or None not in values and math.isclose(*values, rel_tol=1e-4)


def _copy_arm(source: Path, target: Path, arm: str, seed: int) -> None:
    """Copy features, images and curve of one arm and seed, and the images that all arms of the seed share."""
    files = [*(source / "features" / str(seed)).glob(f"{arm}.*"), *(source / "curves" / str(seed)).glob(f"{arm}.jsonl")]
    files += (source / "curves").glob(f"{arm}.jsonl") if seed == 0 else []
    images = (source / "gallery" / str(seed)).glob("*.png")
    files += [path for path in images if path.stem.startswith(f"{arm}-") or path.stem in OF_INPUTS]
    for path in files:
        with atomic_path(target / path.relative_to(source)) as temporary:
            shutil.copyfile(path, temporary)


def _append(source: Path, target: Path, name: str, places: Places) -> None:
    """Append the lines of these arms and seeds, and of images that all arms of a seed share, unless they are present."""
    present, offered = ([line for _, line in read_lines(path)] if path.is_file() else [] for path in (target / name, source / name))
    seeds, files = {seed for _, seed in places}, {line["file"] for line in present if "file" in line}
    for line in offered:
        arm, seed = line.get("arm"), line["seed"]
        if ((arm, seed) in places or (arm is None and seed in seeds)) and line not in present and line.get("file", "") not in files:
            present.append(line)
    if offered and places:
        write_text(target / name, "".join(json.dumps(line) + "\n" for line in present))
