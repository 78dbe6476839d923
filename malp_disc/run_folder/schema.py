"""A run's folder as the recipe leaves it: measurements, reference points, features and curves, read with errors that name file and line.

    measurements.jsonl          one line per arm and seed
    reference_points.json       reference points, the same for all seeds
    features/reference.npy      of the real images; <name>.<view>.npy for the views other than the first
    features/unedited.npy       of the inputs, row by row those of the edited images
    features/<seed>/<arm>.npy   of the edited images, row by row the same inputs in every file
    bootstrap.jsonl             differences between arms with their intervals, computed from the features, which may be deleted then
    curves/<seed>/<arm>.jsonl   training curves; curves/<name>.jsonl for what all seeds share
    quality.jsonl               the distance during training
    gallery.jsonl, gallery/     the images that the report shows

A line without a seed, and a file without a seed's folder, are of seed 0: so were runs written before there were several.
NaN and infinity are read as None: JSON can't represent them, and what could not be computed counts as not measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from malp_disc.metrics.frechet import check_features
from malp_disc.run_folder.arms import ARMS
from malp_disc.serialization.file_kinds import file_kind

FRECHET = {
    **{"label": str, "value": float, "n": float, "extractor": str, "resize": str, "reference": str},
    **{"dims": float, "reference_n": float, "infinity": float, "backbone": str, "fingerprint": str},
}
LOCALIZATION = dict.fromkeys(
    ("cs", "cs_constant", "cs_official", "cs_official_constant", "pearson", "pearson_mean_map", "psnr", "ssim"), float
)
DETECTION = dict.fromkeys(("accuracy", "eer", "auc", "average_precision"), float)
NETWORK = {"backbone": str, "fingerprint": str}
"""A pretrained network: its architecture, and the fingerprint of its weights' values."""
MEASUREMENT = {
    "frechet": FRECHET,
    "second": FRECHET,
    "frechet_2x": FRECHET,
    "frechet_4x": FRECHET,
    "kid": {"value": float, "std": float},
    "spectrum": {"frequency": list, "ratio": list, "fine": float, "nyquist": float},
    "edit_accuracy": float,
    "edit_accuracy_per_attribute": {},
    "kept_accuracy": float,
    "leakage": float,
    "leakage_per_attribute": {},
    "attributes": float,
    "identity_l1": float,
    "content": {"value": float, "std": float},
    "ssim_to_input": float,
    "psnr_to_input": float,
    "identity": {"name": str, "value": float},
    "localization": LOCALIZATION,
    "detection": DETECTION,
    "localization_fresh": LOCALIZATION,
    "detection_fresh": DETECTION,
    "weights": {"file": str, "sha256": str},
    "teachers": [NETWORK],
    "steps": float,
    "seconds": float,
}
_POINTS = {"unedited": FRECHET, "real_split": FRECHET}
REFERENCE_POINTS = {
    **_POINTS,
    **{"second": _POINTS, "frechet_2x": _POINTS, "frechet_4x": _POINTS, "kid": dict.fromkeys(_POINTS, MEASUREMENT["kid"])},
    **{"spectrum": MEASUREMENT["spectrum"], "edit_accuracy": float, "kept_accuracy": float, "encrypted_psnr": float},
    **{"inputs_sha256": str, "reference_sha256": str, "key_fingerprint": str},
}


def read_measurements(folder: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """The last line of every arm and seed in ``measurements.jsonl``: by seed in ascending order, then by arm in the order of `ARMS`.

    Every key of `MEASUREMENT` is present (None: not measured).

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: an empty file, a damaged line, an unknown arm or seed, or a value of another type; names the line.
    """
    path = folder / "measurements.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; a report is made from the folder of a finished run, give its path")
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for where, line in read_lines(path):
        arm, seed = line.pop("arm", None), line.pop("seed", 0)
        if arm not in ARMS:
            raise ValueError(f"{where}: expected an arm out of {', '.join(ARMS)}, got {arm!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"{where}: expected a seed, a whole number of 0 or more, got {seed!r}")
        measured = complete(line, MEASUREMENT, where)
        for key in ("edit_accuracy_per_attribute", "leakage_per_attribute"):
            complete(measured[key], dict.fromkeys(measured[key], float), f"{where}, {key}")
        found.setdefault(seed, {})[arm] = measured
    if not found:
        raise ValueError(f"{path} is empty: no generator was measured; let the run get to its measurements first")
    return {seed: {arm: found[seed][arm] for arm in ARMS if arm in found[seed]} for seed in sorted(found)}


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
    places = [features_path(folder, name, seed=seed, view=view)]
    if seed == 0:
        places.append(features_path(folder, name, view=view))
    path = next((path for path in places if path.is_file()), None)
    if path is None:
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
    if (folder / "quality.jsonl").is_file():
        for where, line in read_lines(folder / "quality.jsonl"):
            if not {"arm", "step", "frechet"} <= line.keys():
                raise ValueError(f"{where}: expected arm, step and frechet, got {list(line)}")
            value = line["frechet"]["value"] if isinstance(line["frechet"], dict) else line["frechet"]
            curves.setdefault(str(line["arm"]), []).append({"step": line["step"], distance: value, "seed": line.get("seed", 0)})
    return {name: curves[name] for name in (*ARMS, *(name for name in curves if name not in ARMS)) if name in curves}


def complete(given: Any, template: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given` with every key of `template`, None where it is missing (a list of objects: empty), further keys kept.

    Raises:
        ValueError: an entry of another type than the template's.
    """
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ValueError(f"{where}: expected an object, got {given!r}")
    result: dict[str, Any] = {}
    for key, kind in template.items():
        value = given.get(key)
        if isinstance(kind, Mapping):
            value = complete(value, kind, f"{where}, {key}")
        elif isinstance(kind, list):
            if not isinstance(value, (list, type(None))):
                raise ValueError(f"{where}, {key}: expected a list of objects or null, got {value!r}")
            value = [complete(entry, kind[0], f"{where}, {key}") for entry in value or ()]
        elif value is not None and not _fits(value, kind):
            raise ValueError(f"{where}, {key}: expected {_KINDS[kind]} or null, got {value!r}")
        result[key] = value
    return result | {key: value for key, value in given.items() if key not in template}


_KINDS = {float: "a number", str: "text", list: "a list of numbers"}


def _fits(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(entry is None or _fits(entry, float) for entry in value)
    return isinstance(value, str) if kind is str else isinstance(value, (int, float)) and not isinstance(value, bool)


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
