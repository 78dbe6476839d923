"""Merge runs of the same experiment that were made separately, for example one seed per GPU."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from malp_disc.run_folder.arms import UNEDITED
from malp_disc.run_folder.measurement import Difference, Measurement, TrainingDistance
from malp_disc.run_folder.same_experiment import check_one_experiment
from malp_disc.run_folder.schema import read_lines, read_measurements, read_reference_points, read_typed
from malp_disc.run_folder.strips import OF_INPUTS, StripFile
from malp_disc.serialization.files import atomic_path, write_text
from malp_disc.serialization.typed_json import to_json

_SAME = ("inputs_sha256", "reference_sha256", "key_fingerprint")  # of reference_points.json: images, reference, and the MaLP of the evaluation
Places = set[tuple[str, int]]
Runs = Mapping[int, Mapping[str, Measurement]]


def join_runs(folder: str | Path, others: Sequence[str | Path]) -> None:
    """Copy the arms and seeds of `others` into the run in `folder`: measurements, features, intervals, curves and images. `others` aren't changed.

    Each of the runs may lack its features, if it has a report. "before" is the same in all and kept once. The generators' weights aren't copied. An arm and seed that is there already with the same
    measurement is left alone, so that a join can be made again: after an interruption, or with further runs.

    Raises:
        FileNotFoundError: one of them isn't a run's folder.
        ValueError: other images, another MaLP, two measurements of one arm and seed, or a damaged line; nothing has been written then.
    """
    folder = Path(folder)
    joined = read_measurements(folder)
    sources = {(arm, seed): folder for seed, arms in joined.items() for arm in arms}
    _check_lines(folder)
    taken: list[tuple[Path, Runs, Places]] = []
    for path in map(Path, others):
        theirs = read_measurements(path)
        _check_lines(path)
        _check_comparable(folder, path, joined, theirs)
        places = _lacking(joined, theirs, path, sources)
        sources |= dict.fromkeys(places, path)
        joined = {seed: {**theirs.get(seed, {}), **joined.get(seed, {})} for seed in {*joined, *theirs}}
        taken.append((path, theirs, places))
    for path, theirs, places in taken:
        for arm, seed in sorted(places):
            _copy_arm(path, folder, arm, seed)
        _copy_shared_features(path, folder, theirs, joined)
        _add_differences(path, folder, theirs, places)
        for name in ("gallery.jsonl", "quality.jsonl", "measurements.jsonl"):  # measurements last: they complete the copy
            _append(path, folder, name, places)


def _check_lines(folder: Path) -> None:
    """Read the files whose lines are copied, for the error that a damaged one gives."""
    for name, kind in {"gallery.jsonl": StripFile, "quality.jsonl": TrainingDistance, "bootstrap.jsonl": Difference}.items():
        read_typed(folder / name, kind)


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


def _copy_shared_features(source: Path, target: Path, theirs: Runs, joined: Runs) -> None:
    """Copy the features that all arms are compared with (the reference, the unedited inputs, "before") where the target's were deleted."""
    copies = {path: target / "features" / path.name for path in (source / "features").glob("*.npy")}
    ours, other = (next((seed for seed, arms in runs.items() if "before" in arms), None) for runs in (joined, theirs))
    if ours is not None and other is not None:
        copies |= {path: target / "features" / str(ours) / path.name for path in (source / "features" / str(other)).glob("before.*")}
    for path, copy in copies.items():
        if not copy.exists():
            with atomic_path(copy) as temporary:
                shutil.copyfile(path, temporary)


def _add_differences(source: Path, target: Path, theirs: Runs, places: Places) -> None:
    """Add the intervals of the source's report to the target's, which keeps its own: they are all there is once features were deleted."""
    shared = {(arm, seed) for seed, arms in theirs.items() for arm in arms if arm != "before"}
    found, offered = ({(line.seed, line.score, line.arm, line.against): line for line in read_typed(run / "bootstrap.jsonl", Difference)} for run in (target, source))
    for key, line in offered.items():
        place = line.arm, line.seed
        compared = line.against in (None, "before", UNEDITED) or line.against in theirs.get(line.seed, {})
        if compared and (place in places or place in shared and key not in found):
            found[key] = line
    if offered:
        write_text(target / "bootstrap.jsonl", "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in found.values()))


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
