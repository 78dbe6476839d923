"""Training checkpoints: ``checkpoint-<step>`` folders that are complete or absent, read back without unpickling anything.

A folder holds ``<name>.safetensors`` for every network with tensors in its state dict, ``optimizers.pt`` (plain tensors and numbers) and ``state.json``.
Random states aren't stored: all random numbers are a function of the seed and the step (`malp_disc.data.sampling`).
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from malp_disc.run_folder.experiment import check_settings
from malp_disc.serialization.files import atomic_path, sync_folder, write_json
from malp_disc.serialization.reading import read_json, read_weights
from malp_disc.serialization.state_dicts import load_state, load_tensors, save_tensors
from malp_disc.training.interrupt import logger
from malp_disc.training.train_options import TrainOptions

_NAME = re.compile(r"checkpoint-(\d+)")
_INITIAL_SCALE = {"scale": 2.0**16, "_growth_tracker": 0}
"""Of torch's GradScaler."""


def save_training(
    folder: str | Path,
    step: int,
    *,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
    total_limit: int | None = None,
) -> Path:
    """Write ``folder/checkpoint-<step>``. With a `total_limit`, 1 or more, then delete those of later steps, and the oldest beyond the limit. Call it from one process.

    The write is atomic: a process that is killed leaves either the whole checkpoint or none of that name, and older ones are untouched.

    Raises:
        OSError: the disk is full or not writable; existing checkpoints are unchanged.
    """
    folder = Path(folder)
    final, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.partial"
    for left in folder.glob(".checkpoint-*"):
        shutil.rmtree(left)  # left behind by a killed run
    try:
        temporary.mkdir(parents=True)
        for name, state_dict in _with_tensors(networks).items():
            save_tensors(temporary / f"{name}.safetensors", state_dict)
        with atomic_path(temporary / "optimizers.pt") as path, open(path, "wb") as file:  # given a path, torch would write its name into the file
            torch.save({name: optimizer.state_dict() for name, optimizer in optimizers.items()}, file)
        write_json(temporary / "state.json", {"step": step, **state})
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(final.parent).free / 2**20
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"can't write {final}: {reason} ({free:.0f} MiB are free on its disk); existing checkpoints are unchanged") from error
    if final.exists():
        _drop(final)
    temporary.rename(final)
    sync_folder(folder)
    if total_limit is not None:
        found = list_training(folder)
        until = found.index(final) + 1  # later ones are of the run before it went on from an older checkpoint, and may be damaged
        for old in (*found[until:], *found[: max(0, until - total_limit)]):
            _drop(old)
    return final


def _with_tensors(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    """The state dicts that hold tensors, by name: losses without parameters and buffers have none to save."""
    return {name: tensors for name, network in networks.items() if (tensors := network.state_dict())}


def _drop(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that an incomplete deletion leaves nothing that looks like a checkpoint."""
    hidden = checkpoint.with_name(f".{checkpoint.name}.dropped")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def load_training(
    folder: str | Path, *, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], expected: Mapping[str, Any]
) -> dict[str, Any]:
    """Load a folder of `save_training` into the given objects and return its state, including ``step``.

    Args:
        expected: the resume fingerprint: entries that must have the values now that they have in `state`.

    Raises:
        FileNotFoundError, ValueError: there is no checkpoint, it has other networks, or it belongs to a run with other settings.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise FileNotFoundError(f"no training checkpoint in {folder}: expected a checkpoint-<step> folder with state.json")
    with _with_advice(folder):
        state = read_json(folder / "state.json", what="the state.json of a training checkpoint")
    check_settings(folder, state, expected)
    with _with_advice(folder):
        weights = {name: load_tensors(folder / f"{name}.safetensors") for name in _with_tensors(networks)}
        states = _optimizer_states(folder / "optimizers.pt")
    if missing := sorted(set(optimizers) - set(states)):
        raise ValueError(f"{folder} has no optimizer state for {missing}; it holds {sorted(states)}")
    for name, tensors in weights.items():
        load_state(networks[name], tensors, source=str(folder / f"{name}.safetensors"))
    for name, optimizer in optimizers.items():
        try:
            optimizer.load_state_dict(states[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / 'optimizers.pt'} has another optimizer's state for {name} ({error}). {_instead(folder)}") from error
    return state


@contextlib.contextmanager
def _with_advice(folder: Path) -> Iterator[None]:
    """Add to errors of reading which checkpoint is damaged, and from which one to resume instead."""
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
    """Advice for a checkpoint that can't be used: the latest older one, or a new start."""
    others = [path for path in list_training(folder.parent) if path.name != folder.name]
    number = int(match[1]) if (match := _NAME.fullmatch(folder.name)) else None
    older = [path for path in others if number is None or int(_NAME.fullmatch(path.name)[1]) < number]
    if older:
        return f"Resume from the one before, --resume-from-checkpoint {older[-1]}, or move {folder.name} away and give latest"
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
    """The checkpoint that ``--resume-from-checkpoint`` names: a path or ``latest``; None for None, or if there is no latest yet."""
    if resume is None:
        return None
    if resume == "latest":
        found = list_training(folder)
        return found[-1] if found else None
    return Path(resume)


class CheckpointManager:
    """Saves and restores a training (networks, optimizers, settings, counters) in ``folder/checkpoint-<step>``.

    Args:
        networks, optimizers: unwrapped, by the names of their files.
        settings: the resume fingerprint; a checkpoint of a run with other settings is refused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        settings: Mapping[str, Any],
    ) -> None:
        self.folder, self.networks, self.optimizers, self.settings = folder, networks, optimizers, settings

    def resume(self, options: TrainOptions, accelerator: Accelerator) -> dict[str, Any]:
        """Move the networks to their device, and load the checkpoint that --resume-from-checkpoint names; call it before anything is wrapped. ``{"step": 0}`` if there
        is none yet.

        A checkpoint in another folder belongs to another arm or seed of the run; then the latest of this folder is loaded.
        """
        for network in self.networks.values():
            network.to(accelerator.device)  # first: an optimizer's state is loaded to where its parameters are
        wanted = options.resume_from_checkpoint
        if wanted not in (None, "latest"):
            named = self.folder / wanted  # a path stays as it is
            own = named.resolve().parent == self.folder.resolve() and (named / "state.json").is_file()
            wanted = str(named) if own else "latest"
        found = find_training(self.folder, wanted)
        if found is None:
            if accelerator.scaler is not None:  # each training starts with the same scale, whatever another has made of it
                accelerator.scaler.load_state_dict({**accelerator.scaler.state_dict(), **_INITIAL_SCALE})
            return {"step": 0}
        state = load_training(found, networks=self.networks, optimizers=self.optimizers, expected=self.settings)
        if accelerator.scaler is not None and "scaler" in state:
            accelerator.scaler.load_state_dict(state["scaler"])
        was, now = state.get("batch_sizes"), _batch_sizes(options, accelerator)
        if was is not None and was != now:
            logger.warning(
                f"{found} was made with {_batch_sizes_in_words(was)}, this run has {_batch_sizes_in_words(now)}: it continues, but not bit for bit as the "
                "interrupted run would have, and with another number of images per step unless the products are equal"
            )
        return state

    def save(self, step: int, options: TrainOptions, accelerator: Accelerator, **more: Any) -> None:
        """Write ``checkpoint-<step>``; the main process writes, the others wait."""
        if accelerator.is_main_process:
            state = {**self.settings, "batch_sizes": _batch_sizes(options, accelerator), **more}
            if accelerator.scaler is not None:
                state["scaler"] = accelerator.scaler.state_dict()
            limit = options.checkpoints_total_limit
            save_training(self.folder, step, networks=self.networks, optimizers=self.optimizers, state=state, total_limit=limit)
        accelerator.wait_for_everyone()

    def due(self, step: int, options: TrainOptions) -> bool:
        """Whether a checkpoint is due after `step` (--checkpointing-steps); the last step always has one."""
        return step % options.checkpointing_steps == 0 or step == options.max_train_steps

    def bytes(self) -> int:
        """Size of one checkpoint in bytes: the networks, and Adam's two moments of every trained parameter."""
        networks = sum(
            value.numel() * value.element_size() for network in self.networks.values() for value in network.state_dict().values()
        )
        moments = sum(
            2 * p.numel() * p.element_size()
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for p in group["params"]
        )
        return networks + moments

    def space(self, options: TrainOptions) -> int:
        """Additional bytes on the disk that the checkpoints of this training take at most. A resumed one has some of them already."""
        if options.resume_from_checkpoint is None:
            return self.bytes() * most_checkpoints(options)
        found = list_training(self.folder)
        if any(path.name == f"checkpoint-{options.max_train_steps}" for path in found):
            return 0
        return max(0, self.bytes() * most_checkpoints(options) - sum(file.stat().st_size for path in found for file in path.iterdir()))


def checkpoints_written(options: TrainOptions) -> int:
    """Number of checkpoints that a training writes."""
    return -(-options.max_train_steps // options.checkpointing_steps)


def most_checkpoints(options: TrainOptions) -> int:
    """Largest number of checkpoints of a training at one time: one more than --checkpoints-total-limit, since a new one is complete before the oldest is deleted."""
    written = checkpoints_written(options)
    return min(written, (options.checkpoints_total_limit or written) + 1)


def prepare_optimizer(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """`Accelerator.prepare` for an optimizer, which may have been resumed, of parameters that are on their device.

    Accelerate would move the whole state there. Adam keeps its number of steps on the CPU, and reading it from a GPU stops the program twice per parameter and step.
    """
    return accelerator.prepare_optimizer(optimizer, device_placement=False)


def check_space(folder: Path, needed: int) -> None:
    """Raise ValueError unless `needed` bytes and a reserve of 200 MiB are free on the disk of `folder`, which need not exist yet."""
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed + 200 * 2**20:
        raise ValueError(
            f"{free / 2**20:.0f} MiB are free in {place}, and this run needs about {needed / 2**20:.0f} MiB and a reserve of 200; free some, choose another "
            "--output-dir, or keep fewer checkpoints (--checkpoints-total-limit)"
        )


def _batch_sizes(options: TrainOptions, accelerator: Accelerator) -> list[int]:
    return [options.train_batch_size, options.gradient_accumulation_steps, accelerator.num_processes]


def _batch_sizes_in_words(sizes: list[int]) -> str:
    batch, accumulation, processes = sizes
    return f"{batch} images x {accumulation} micro-batches x {processes} processes"
