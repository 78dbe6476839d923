"""A run's folder: whose results it holds, which checkpoint a resumed run goes on from, and a clean start."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from malp_disc.run_folder.experiment import differences
from malp_disc.serialization.files import write_json
from malp_disc.training.checkpoints import list_training

logger = logging.getLogger("malp_disc")
EXPERIMENT_FILE, PREVIOUS = "experiment.json", "previous"
# With any of these, a folder holds results …
_SIGNS = ("measurements.jsonl", "quality.jsonl", "curves.jsonl", "curves/**/*.jsonl", "checkpoint-*/state.json", "arms/**/state.json", "malp-training/*/state.json",
          "G-*.safetensors", "metrics.json", "probe.jsonl", "runs/*-[0-9]*.json")  # fmt: skip
# … and this is all that a run leaves, but for what describes it.
_RESULTS = (
    *("measurements.jsonl", "quality.jsonl", "gallery.jsonl", "bootstrap.jsonl", "anchors.json", "metrics.json", "report.*", "curves.jsonl", "hashes-*.json"),
    *("checkpoint-*", ".checkpoint-*", "arms", "curves", "features", "gallery", "samples", "fresh", "cotrained", "malp", "malp-training", "malp-passive", "malp-passive-training"),
    *("G-*.safetensors", "G.safetensors", "D.safetensors", "tracker"),
    *(f"{name}.png" for name in ("samples", "fakeness", "comparison", "spectrum", "curves")),
)


def check_folder(folder: Path, experiment: dict[str, Any], options: type, *, resumes: bool, accumulates: bool = False) -> bool:
    """Whether a run of this experiment may work in `folder`; nothing is written.

    Args:
        resumes: it goes on from what is there.
        accumulates: the recipe adds to what is there (other rows, seeds or generators of the same experiment).

    Returns:
        Whether results are there that this run starts anew.

    Raises:
        ValueError: the folder holds another experiment's results.
    """
    if not _has_results(folder):
        return False
    record = folder / EXPERIMENT_FILE
    if not record.is_file():
        if resumes:
            return False  # begun by an earlier version, or copied in part: the checkpoints say what they were made with
        raise ValueError(f"{folder} holds results of a run that left no {EXPERIMENT_FILE}, so what they belong to isn't known; choose another --output-dir")
    try:
        was = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}); choose another --output-dir") from error
    found = differences(was, experiment, options=options, arms=_arms_in(folder) if resumes else None)
    if found and (resumes or accumulates):
        raise ValueError(
            f"{folder} belongs to a run with other settings: {'; '.join(found)}. An experiment goes on with the options that it began with: give these, "
            "or choose another --output-dir"
        )
    if found:
        raise ValueError(f"{folder} holds results of a run with other settings: {'; '.join(found)}; choose another --output-dir, or remove that folder first")
    return not (resumes or accumulates)


def write_experiment(folder: Path, experiment: dict[str, Any]) -> None:
    """What `check_folder` reads next time."""
    write_json(folder / EXPERIMENT_FILE, experiment)


def set_aside(folder: Path, inputs: Iterable[Path] = ()) -> None:
    """Move all results of an earlier run into ``folder/previous``, in place of what is there, so that nothing of them gets into the new report.

    Args:
        inputs: what the new run reads; stays where it is.
    """
    kept = {path.expanduser().resolve() for path in inputs}
    moved = sorted({path for pattern in _RESULTS for path in folder.glob(pattern)})
    moved = [path for path in moved if not any(path.resolve() == own or path.resolve() in own.parents for own in kept)]
    shutil.rmtree(folder / PREVIOUS, ignore_errors=True)
    (folder / PREVIOUS).mkdir()
    for path in moved:
        path.rename(folder / PREVIOUS / path.name)
    logger.warning(
        f"{folder} holds an earlier run of this experiment: starting over, its results are in {folder / PREVIOUS} now (--resume-from-checkpoint latest goes on instead)"
    )


def find_resume(folder: Path, wanted: str | None) -> str | None:
    """What ``--resume-from-checkpoint`` asks for, made definite: None, ``latest``, the name ``checkpoint-<step>``, or a checkpoint's absolute path.

    Args:
        wanted: ``latest``, a name within the run's folder as diffusers takes it, or a path (from the current folder, or from the run's).

    Raises:
        ValueError: there is no such checkpoint, or it is another run's; lists those that there are.
    """
    if wanted in (None, "latest"):
        return wanted
    there = [path for place in sorted({state.parent.parent for state in folder.rglob("checkpoint-*/state.json")}) for path in list_training(place)]
    there = [path for path in there if PREVIOUS not in path.relative_to(folder).parts]
    names = [path.relative_to(folder).as_posix() for path in there]
    asked = Path(wanted).expanduser()
    if (asked.parent == Path() or asked.parent.resolve() == folder.resolve()) and asked.name in {path.name for path in there}:
        return asked.name
    for place in (asked, folder / asked):
        if place.resolve() in {path.resolve() for path in there}:
            return str(place.resolve())
    listed = f"there are {', '.join(names)}" if names else "there are none"
    if asked.is_dir() and folder.resolve() not in asked.resolve().parents:
        raise ValueError(
            f"--resume-from-checkpoint {wanted} is not in this run's folder {folder} ({listed}); give --output-dir of the run that it belongs to"
        )
    raise ValueError(f"no complete checkpoint {wanted} in {folder}; {listed}" + ("; or give latest" if names else ", leave --resume-from-checkpoint out"))


def _has_results(folder: Path) -> bool:
    return any(True for pattern in _SIGNS for _ in folder.glob(pattern))


def _arms_in(folder: Path) -> set[str]:
    """The arms of a fine-tuning that have checkpoints or results."""
    found = {state.parent.parent.name for state in folder.glob("arms/**/state.json")}
    return found | {path.stem.removeprefix("G-").split("-seed")[0] for path in folder.glob("G-*.safetensors")}
