"""Training checkpoints: ``checkpoint-<step>`` folders that are complete or absent, read back without unpickling anything.

A folder holds ``<name>.safetensors`` for every network, ``optimizers.pt`` (plain tensors and numbers) and ``state.json``.
Randomness isn't stored: it is a function of the seed and the step (`malp_disc.data.sampling`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from malp_disc.checkpoint import atomic_path, load_state, load_tensors, save_tensors, sync_folder, write_json

_NAME = re.compile(r"checkpoint-(\d+)")


def save_training(
    folder: str | Path,
    step: int,
    *,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
    total_limit: int | None = None,
) -> Path:
    """Write ``folder/checkpoint-<step>`` and then drop the oldest beyond `total_limit`. Call from one process.

    A process that is killed at any moment leaves either the whole checkpoint or none of that name, and never takes an older one with it.

    Raises:
        OSError: the disk is full or can't be written; what was there is still there.
    """
    folder = Path(folder)
    final, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.partial"
    for left in folder.glob(".checkpoint-*"):
        shutil.rmtree(left)  # left behind by a killed run
    try:
        temporary.mkdir(parents=True)
        for name, network in networks.items():
            save_tensors(temporary / f"{name}.safetensors", network.state_dict())
        with atomic_path(temporary / "optimizers.pt") as path, open(path, "wb") as file:  # given a path, torch would write its name into the file
            torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, file)
        write_json(temporary / "state.json", {"step": step, **state})
    except (OSError, RuntimeError, SafetensorError) as error:  # what torch and safetensors make of a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"can't write {final}: {error}; checkpoints that were there are still there") from error
    if final.exists():
        _drop(final)
    temporary.rename(final)
    sync_folder(folder)
    if total_limit is not None:
        for old in list_training(folder)[: -max(1, total_limit)]:
            _drop(old)
    return final


def _drop(checkpoint: Path) -> None:
    """Remove a checkpoint; killed halfway, what is left no longer looks like one."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.dropped")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def load_training(
    folder: str | Path, *, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Load a folder of `save_training` into the given objects and return its state, ``step`` among it.

    Args:
        expected: entries of `state` that must be the same now as then, or the continued run would be another run.

    Raises:
        FileNotFoundError, ValueError: nothing there, other networks, or a run with other settings.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise FileNotFoundError(f"no training checkpoint in {folder}: expected a checkpoint-<step> folder with state.json")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    differing = [f"{key} was {state.get(key)!r} and is {value!r} now" for key, value in expected.items() if state.get(key) != value]
    if differing:
        raise ValueError(f"{folder} belongs to a run with other settings: " + "; ".join(differing))
    for name, network in networks.items():
        load_state(network, load_tensors(folder / f"{name}.safetensors"), source=str(folder / f"{name}.safetensors"))
    states = torch.load(folder / "optimizers.pt", map_location="cpu", weights_only=True)
    if missing := sorted(set(optimizers) - set(states)):
        raise ValueError(f"{folder} has no optimizer state for {missing}; it holds {sorted(states)}")
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(states[name])
    return state


def list_training(folder: str | Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [
        (int(match[1]), path)
        for path in Path(folder).glob("checkpoint-*")
        if (match := _NAME.fullmatch(path.name)) and (path / "state.json").is_file()
    ]
    return [path for _, path in sorted(found)]


def find_training(folder: str | Path, resume: str | None) -> Path | None:
    """What ``--resume-from-checkpoint`` names: None, ``latest`` (None if there is none yet) or a path."""
    if resume is None:
        return None
    if resume == "latest":
        found = list_training(folder)
        return found[-1] if found else None
    return Path(resume)
