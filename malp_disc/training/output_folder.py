"""A run's folder: the experiment that its results belong to, the checkpoint to resume from, and moving old results away for a new start."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from malp_disc.keyed.issued import ISSUED_FILE
from malp_disc.keyed.secret import SECRET_FILE
from malp_disc.run_folder.experiment import differences
from malp_disc.serialization.files import atomic_path, write_json
from malp_disc.training.checkpoints import list_training

logger = logging.getLogger("malp_disc")
EXPERIMENT_FILE, PREVIOUS = "experiment.json", "previous"
_CONTENTS = "contents"  # entry of the experiment's file: hashes of the code and weights that its options only name
_START = "start"  # entry of the experiment's file: a fingerprint of the generator before fine-tuning
# A folder with any of these holds results.
_SIGNS = ("measurements.jsonl", "quality.jsonl", "curves.jsonl", "curves/**/*.jsonl", "checkpoint-*/state.json", "arms/**/state.json", "malp-training/*/state.json",
          "G-*.safetensors", "metrics.json", "probe.jsonl", "runs/*-[0-9]*.json")  # fmt: skip
# All results of a run, without the files that describe the experiment.
_RESULTS = (
    *("measurements.jsonl", "quality.jsonl", "gallery.jsonl", "bootstrap.jsonl", "reference_points.json", "metrics.json", "report.*", "curves.jsonl", "hashes-*.json"),
    *("checkpoint-*", ".checkpoint-*", "arms", "curves", "features", "gallery", "samples", "fresh", "cotrained", "malp", "malp-training", "malp-passive", "malp-passive-training", "localizer", "localizer-training", "change"),
    *("G-*.safetensors", "G.safetensors", "D.safetensors", "tracker"),
    *(f"{name}.png" for name in ("samples", "fakeness", "comparison", "spectrum", "curves")),
)


def check_folder(folder: Path, experiment: dict[str, Any], options: type, *, resumes: bool, accumulates: bool = False) -> bool:
    """Check that a run of this experiment may use `folder`, without writing anything.

    Args:
        resumes: the run continues from a checkpoint there.
        accumulates: the recipe adds to existing results (other rows, seeds or generators of the same experiment).

    Returns:
        Whether there are results that this run replaces.

    Raises:
        ValueError: the folder holds another experiment's results.
    """
    if not has_results(folder):
        return False
    record = folder / EXPERIMENT_FILE
    if not record.is_file():
        if resumes:
            return False  # from an earlier version, or copied in part: the checkpoints have a resume fingerprint of their own
        raise ValueError(f"{folder} holds results of a run without {EXPERIMENT_FILE}, so their experiment isn't known; choose another --output-dir")
    try:
        was = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}); choose another --output-dir") from error
    found = differences(was, experiment, options=options, arms=_arms_in(folder) if resumes else None)
    if found and (resumes or accumulates):
        raise ValueError(
            f"{folder} belongs to a run with other settings: {'; '.join(found)}. An experiment continues with the options that it began with: use these, "
            "or choose another --output-dir"
        )
    if found:
        raise ValueError(f"{folder} holds results of a run with other settings: {'; '.join(found)}; choose another --output-dir, or remove that folder first")
    return not (resumes or accumulates)


def write_experiment(folder: Path, experiment: dict[str, Any], contents: Mapping[str, str] | None = None, *, goes_on: bool = False) -> None:
    """Record the experiment for the next `check_folder`, with what `check_start` has added to it.

    Args:
        contents: `malp_disc.run_folder.experiment.contents_of` the options.
        goes_on: the run continues or adds to results, of which the recorded contents stay; where they are others now, a warning is logged. It isn't refused, since
            a comment changes a file too.
    """
    was = _recorded(folder)
    recorded, contents = was.get(_CONTENTS) if goes_on and has_results(folder) else None, dict(contents or {})
    recorded = recorded if isinstance(recorded, dict) else {}
    for name in [name for name in contents if recorded.get(name, contents[name]) != contents[name]]:
        logger.warning(
            f"--{name.replace('_', '-')} {experiment['options'].get(name)} has changed since the results in {folder} were begun with it; what is added now isn't comparable "
            "with them if the change is more than a comment: then choose another --output-dir"
        )
    started = {key: value for key, value in was.items() if key == _START}
    write_json(folder / EXPERIMENT_FILE, started | experiment | ({_CONTENTS: contents | recorded} if contents or recorded else {}))


def check_start(folder: Path, generator: str, *, write: bool) -> None:
    """Check that a run goes on with the generator that it began with: the options don't tell, where that is made by a function.

    Args:
        generator: `malp_disc.serialization.state_dicts.fingerprint` of the generator before fine-tuning.
        write: record it, where the folder has no such record.

    Raises:
        ValueError: the results in the folder started from another one.
    """
    was = _recorded(folder).get(_START)
    if was not in (None, generator) and has_results(folder):
        raise ValueError(
            f"{folder} has results that started from a generator with other weights ({was}, now {generator}), and all arms have to start from the same one; take that "
            "generator, or choose another --output-dir"
        )
    if write and was != generator:
        write_json(folder / EXPERIMENT_FILE, _recorded(folder) | {_START: generator})


def _recorded(folder: Path) -> dict[str, Any]:
    """What ``experiment.json`` has; nothing where it is missing or damaged (`check_folder` says so where it matters)."""
    try:
        found = json.loads((folder / EXPERIMENT_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def set_aside(folder: Path, inputs: Iterable[Path] = ()) -> None:
    """Move all results of an earlier run into ``folder/previous``, or previous-2 and so on where there is one, so that none of them gets into the new report.

    The secret key of the preset survive, and the list of its templates, are copied there and stay.

    Args:
        inputs: files and folders that the new run reads; they aren't moved.
    """
    kept = {path.expanduser().resolve() for path in inputs}
    moved = sorted({path for pattern in _RESULTS for path in folder.glob(pattern)})
    moved = [path for path in moved if not any(path.resolve() == own or path.resolve() in own.parents for own in kept)]
    aside = next(path for path in itertools.chain([folder / PREVIOUS], (folder / f"{PREVIOUS}-{number}" for number in itertools.count(2))) if not path.exists())
    aside.mkdir()
    for path in moved:
        path.rename(aside / path.name)
    for name in (SECRET_FILE, ISSUED_FILE):  # a key that images were protected with goes on being used, with the list of its templates
        if (kept_file := aside / "malp" / name).is_file():
            with atomic_path(folder / "malp" / name, mode=stat.S_IMODE(kept_file.stat().st_mode)) as temporary:
                shutil.copyfile(kept_file, temporary)
    logger.warning(
        f"{folder} holds an earlier run of this experiment: starting over, its results are in {aside} now (--resume-from-checkpoint latest continues it instead)"
    )


def find_resume(folder: Path, wanted: str | None) -> str | None:
    """Resolve ``--resume-from-checkpoint`` to None, ``latest``, a name ``checkpoint-<step>``, or a checkpoint's absolute path.

    Args:
        wanted: ``latest``, a name in the run's folder as in diffusers, or a path relative to the current folder or to the run's.

    Raises:
        ValueError: there is no such checkpoint in this run; the message lists those that exist.
    """
    if wanted in (None, "latest"):
        return wanted
    found = [path for place in sorted({state.parent.parent for state in folder.rglob("checkpoint-*/state.json")}) for path in list_training(place)]
    found = [path for path in found if not path.relative_to(folder).parts[0].startswith(PREVIOUS)]
    names = [path.relative_to(folder).as_posix() for path in found]
    asked = Path(wanted).expanduser()
    if (asked.parent == Path() or asked.parent.resolve() == folder.resolve()) and asked.name in {path.name for path in found}:
        return asked.name
    for place in (asked, folder / asked):
        if place.resolve() in {path.resolve() for path in found}:
            return str(place.resolve())
    listed = f"there are {', '.join(names)}" if names else "there are none"
    if asked.is_dir() and folder.resolve() not in asked.resolve().parents:
        raise ValueError(
            f"--resume-from-checkpoint {wanted} is not in this run's folder {folder} ({listed}); give the --output-dir of the run that it belongs to"
        )
    raise ValueError(f"no complete checkpoint {wanted} in {folder}; {listed}" + ("; or give latest" if names else ", leave --resume-from-checkpoint out"))


def has_results(folder: Path) -> bool:
    """Whether a run has left checkpoints or results in `folder`."""
    return any(True for pattern in _SIGNS for _ in folder.glob(pattern))


def _arms_in(folder: Path) -> set[str]:
    """The arms of a fine-tuning that have checkpoints or results."""
    found = {state.parent.parent.name for state in folder.glob("arms/**/state.json")}
    return found | {path.stem.removeprefix("G-").split("-seed")[0] for path in folder.glob("G-*.safetensors")}
