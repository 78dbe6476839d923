"""Training checkpoints: ``checkpoint-<step>`` folders that are complete or absent, read back without unpickling anything.

A folder holds ``<name>.safetensors`` for every network, ``optimizers.pt`` (plain tensors and numbers) and ``state.json``.
Randomness isn't stored: it is a function of the seed and the step (`malp_disc.data.sampling`).
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from malp_disc.checkpoint import atomic_path, load_state, load_tensors, save_tensors, sync_folder, write_json
from malp_disc.reading import read_json, read_weights

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
    with _damage_named(folder):
        state = read_json(folder / "state.json", what="the state.json of a training checkpoint")
    differing = [f"{key} was {state.get(key)!r} and is {value!r} now" for key, value in expected.items() if state.get(key) != value]
    if differing:
        raise ValueError(f"{folder} belongs to a run with other settings: " + "; ".join(differing))
    with _damage_named(folder):
        weights = {name: load_tensors(folder / f"{name}.safetensors") for name in networks}
        states = _optimizer_states(folder / "optimizers.pt")
    if missing := sorted(set(optimizers) - set(states)):
        raise ValueError(f"{folder} has no optimizer state for {missing}; it holds {sorted(states)}")
    for name, network in networks.items():
        load_state(network, weights[name], source=str(folder / f"{name}.safetensors"))
    for name, optimizer in optimizers.items():
        try:
            optimizer.load_state_dict(states[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / 'optimizers.pt'} has another optimizer's state for {name} ({error}). {_instead(folder)}") from error
    return state


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Errors of reading say which checkpoint is concerned, and what to go on from."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
        raise kind(f"{folder} is damaged or incomplete: {error}. {_instead(folder)}") from error


def _optimizer_states(path: Path) -> dict[str, Any]:
    states = read_weights(path)
    if not isinstance(states, dict) or not all(isinstance(state, dict) and "param_groups" in state for state in states.values()):
        raise ValueError(f"{path} holds no optimizer states by name")
    return states


def _instead(folder: Path) -> str:
    """What to go on from when a checkpoint can't be used."""
    others = [path for path in list_training(folder.parent) if path.name != folder.name]
    number = int(match[1]) if (match := _NAME.fullmatch(folder.name)) else None
    older = [path for path in others if number is None or int(_NAME.fullmatch(path.name)[1]) < number]
    if older:
        return f"Go on from the one before, --resume-from-checkpoint {older[-1]}, or move {folder.name} away and say latest"
    return "There is no older one: start again without --resume-from-checkpoint, in another --output-dir"


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
