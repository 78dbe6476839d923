"""A run's folder as the recipe leaves it: measurements, anchors, features and curves, read with errors that name file and line.

NaN and infinity become None on the way in: what could not be computed counts as not measured, and JSON has no word for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from malp_disc.metrics.frechet import check_features

ARMS = {
    "before": "the pretrained generator, as it came",
    "control": "fine-tuned for the same steps on the same pictures, without MaLP",
    "frozen": "fine-tuned against a MaLP that stays as it is",
    "cotrain": "fine-tuned against a MaLP that goes on learning",
}
"""The generators a run compares, in the order of every table, and what each is."""

FRECHET = {"label": str, "value": float, "n": float, "extractor": str, "resize": str, "reference": str}
MEASUREMENT = {
    "frechet": FRECHET,
    "kid": {"value": float, "std": float},
    "edit_accuracy": float,
    "edit_accuracy_per_attribute": {},
    "kept_accuracy": float,
    "identity_l1": float,
    "localization": dict.fromkeys(("cs", "cs_constant", "cs_official", "cs_official_constant", "pearson", "psnr", "ssim"), float),
    "detection": dict.fromkeys(("accuracy", "eer", "auc", "average_precision"), float),
    "steps": float,
    "seconds": float,
}
ANCHORS = {"unedited": FRECHET, "halves": FRECHET, "encrypted_psnr": float}


def read_measurements(folder: Path) -> dict[str, dict[str, Any]]:
    """Each arm's last line of ``measurements.jsonl``, in the order of `ARMS`, every key of `MEASUREMENT` present (None: not measured).

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: an empty file, a damaged line, an unknown arm, or a value of another type; names the line.
    """
    path = folder / "measurements.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; a report is made from the folder of a finished run, give its path")
    found: dict[str, dict[str, Any]] = {}
    for where, line in read_lines(path):
        arm = line.pop("arm", None)
        if arm not in ARMS:
            raise ValueError(f"{where}: expected an arm out of {', '.join(ARMS)}, got {arm!r}")
        found[arm] = complete(line, MEASUREMENT, where)
        scores = found[arm]["edit_accuracy_per_attribute"]
        complete(scores, dict.fromkeys(scores, float), f"{where}, edit_accuracy_per_attribute")
    if not found:
        raise ValueError(f"{path} is empty: no generator was measured; let the run go on to its measurements, then make the report")
    return {arm: found[arm] for arm in ARMS if arm in found}


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with "<file>, line <n>" for messages. Blank lines are skipped.

    Raises:
        ValueError: a line that isn't a JSON object.
    """
    lines = []
    for count, line in enumerate(path.read_bytes().splitlines(), start=1):
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


def read_features(folder: Path, name: str) -> np.ndarray | None:
    """``features/<name>.npy`` (N, D), or None if there is no such file.

    Raises:
        ValueError: not a plain array, not (N, D) with N >= 2, or values that are not finite.
    """
    path = folder / "features" / f"{name}.npy"
    if not path.is_file():
        return None
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} can't be read as an array ({error}); measure {name} again") from error
    return check_features(features, str(path))


def read_curves(folder: Path, *, distance: str = "Frechet distance") -> dict[str, list[dict[str, Any]]]:
    """``curves/<name>.jsonl`` by name, the arms first; ``quality.jsonl`` joins its arm's lines as `distance`.

    Raises:
        ValueError: a damaged line; the message names it.
    """
    names = [path.stem for path in sorted((folder / "curves").glob("*.jsonl"))]
    ordered = [arm for arm in ARMS if arm in names] + [name for name in names if name not in ARMS]
    curves = {name: [line for _, line in read_lines(folder / "curves" / f"{name}.jsonl")] for name in ordered}
    if (folder / "quality.jsonl").is_file():
        for where, line in read_lines(folder / "quality.jsonl"):
            if not {"arm", "step", "frechet"} <= line.keys():
                raise ValueError(f"{where}: expected arm, step and frechet, got {list(line)}")
            value = line["frechet"]["value"] if isinstance(line["frechet"], dict) else line["frechet"]
            curves.setdefault(str(line["arm"]), []).append({"step": line["step"], distance: value})
    return curves


def complete(given: Any, template: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given` with every key of `template`, None where it is missing, further keys kept.

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
        elif value is not None and not _fits(value, kind):
            raise ValueError(f"{where}, {key}: expected {'a number' if kind is float else 'text'} or null, got {value!r}")
        result[key] = value
    return result | {key: value for key, value in given.items() if key not in template}


def _fits(value: Any, kind: type) -> bool:
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
