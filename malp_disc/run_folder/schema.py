"""A run's folder as the recipe leaves it, read with errors that name file and line; `malp_disc.run_folder.measurement` has the lines as dataclasses.

    measurements.jsonl          one line per arm and seed
    reference_points.json       reference points, the same for all seeds
    features/reference.npy      of the real images; <name>.<view>.npy for the views other than the first
    features/unedited.npy       of the inputs, row by row those of the edited images
    features/<seed>/<arm>.npy   of the edited images, row by row the same inputs in every file
    bootstrap.jsonl             differences between arms with their intervals, computed from the features, which may be deleted then
    curves/<seed>/<arm>.jsonl   training curves; curves/<name>.jsonl for what all seeds share
    quality.jsonl               the distance during training
    gallery.jsonl, gallery/     the images that the report shows

Training curves alone stay dicts: their keys are the names of the losses, which the user's functions choose.
NaN and infinity are read as None: JSON can't represent them, and what could not be computed counts as not measured.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from malp_disc.metrics.frechet import check_features
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.measurement import Measurement, ReferencePoints, TrainingDistance
from malp_disc.serialization.file_kinds import file_kind
from malp_disc.serialization.typed_json import from_json

T = TypeVar("T")


def read_measurements(folder: Path) -> dict[int, dict[str, Measurement]]:
    """The last line of every arm and seed in ``measurements.jsonl``: by seed in ascending order, then by arm in the order of `ARMS`.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: an empty file, a damaged line, an unknown arm, seed or key, or a value of another type; names the line.
    """
    path = folder / "measurements.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; a report is made from the folder of a finished run, give its path")
    found: dict[int, dict[str, Measurement]] = {}
    for where, line in read_lines(path):
        arm, seed = line.pop("arm", None), line.pop("seed", None)
        if arm not in ARMS:
            raise ValueError(f"{where}: expected an arm out of {', '.join(ARMS)}, got {arm!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"{where}: expected a seed, a whole number of 0 or more, got {seed!r}")
        found.setdefault(seed, {})[arm] = from_json(Measurement, line, where)
    if not found:
        raise ValueError(f"{path} is empty: no generator was measured; let the run get to its measurements first")
    return {seed: {arm: found[seed][arm] for arm in ARMS if arm in found[seed]} for seed in sorted(found)}


def read_reference_points(folder: Path) -> ReferencePoints:
    """``reference_points.json``; nothing is measured in a folder without it.

    Raises:
        ValueError: a damaged file; the message names it.
    """
    path = folder / "reference_points.json"
    return from_json(ReferencePoints, read_json(path) or {}, str(path))


def read_typed(path: Path, kind: type[T]) -> list[T]:
    """The lines of a JSON-lines file as dataclasses, none if there is no such file.

    Raises:
        ValueError: a damaged line; the message names it.
    """
    return [from_json(kind, line, where) for where, line in read_lines(path)] if path.is_file() else []


def read_lines(path: Path, *, growing: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with "<file>, line <n>" for messages. Blank lines are skipped.

    Args:
        growing: a run may be writing the file, so an incomplete last line is ignored.

    Raises:
        ValueError: a line that isn't a JSON object.
    """
    lines = []
    content = path.read_bytes()
    if growing:
        content = content[: content.rfind(b"\n") + 1]
    for count, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {count}"
            lines.append((where, _parse_object(line, where, "delete the line, or measure that part again")))
    return lines


def read_json(path: Path) -> dict[str, Any] | None:
    """One JSON object, or None if there is no such file.

    Raises:
        ValueError: the file isn't a JSON object.
    """
    return _parse_object(path.read_bytes(), str(path), "delete the file, or write it again") if path.is_file() else None


def read_features(folder: Path, name: str, *, seed: int | None = None, view: str = "frechet") -> np.ndarray | None:
    """Features (N, D) of an arm, or of ``"reference"``; None if there is no such file.

    Raises:
        ValueError: not a plain array, not (N, D) with N >= 2, or values that are not finite.
    """
    path = features_path(folder, name, seed=seed, view=view)
    if not path.is_file():
        return None
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        kind = file_kind(path)
        reason = str(error) if "allow_pickle" not in str(error) else "it has objects in place of numbers"
        reason = reason if kind.text.startswith("a single numpy array") else f"it is {kind.text}"  # numpy takes any other file for a pickle
        raise ValueError(f"{path} can't be read as an array ({reason}); measure {name} again") from error
    return check_features(features, str(path))


def features_path(folder: Path, name: str, *, seed: int | None = None, view: str = "frechet") -> Path:
    """The path of an arm's or the reference's features."""
    file = f"{name}.npy" if view == "frechet" else f"{name}.{view}.npy"
    return folder / "features" / file if seed is None else folder / "features" / str(seed) / file


def read_curves(folder: Path, *, distance: str = "Frechet distance") -> dict[str, list[dict[str, Any]]]:
    """The curves by name, the arms first, each line with its ``seed``; ``quality.jsonl`` joins its arm's lines as `distance`.

    Raises:
        ValueError: a damaged line; the message names it.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    paths = [(0, path) for path in sorted((folder / "curves").glob("*.jsonl"))]
    numbered = [place for place in (folder / "curves").glob("*") if place.is_dir() and place.name.isdecimal()]
    paths += [
        (int(place.name), path) for place in sorted(numbered, key=lambda place: int(place.name)) for path in sorted(place.glob("*.jsonl"))
    ]
    for seed, path in paths:
        curves.setdefault(path.stem, []).extend({**line, "seed": seed} for _, line in read_lines(path, growing=True))
    for line in read_typed(folder / "quality.jsonl", TrainingDistance):
        curves.setdefault(line.arm, []).append({"step": line.step, distance: line.frechet, "seed": line.seed})
    return {name: curves[name] for name in (*ARMS, *(name for name in curves if name not in ARMS)) if name in curves}


def _parse_object(text: bytes, where: str, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are
        raise ValueError(f"{where}: not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {value!r}; {remedy}")
    return value


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None
