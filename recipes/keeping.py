"""What a run keeps: checkpoints, a way to stop it, and the way back into it."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from malp_disc.resume import find_training, load_training, save_training
from recipes.shared import TrainOptions
from recipes.stepping import mean_over_processes

logger = logging.getLogger("malp_disc")


class Training:
    """What makes up a training: networks, optimizers, settings, counters. Kept in ``folder/checkpoint-<step>``.

    Args:
        networks, optimizers: unwrapped, by the names of their files.
        settings: of the run; a checkpoint of a run with others is refused.
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
        """Load what --resume-from-checkpoint names, before anything is wrapped; ``{"step": 0}`` if there is nothing yet.

        A checkpoint that isn't in this folder is of another arm or seed of the run, and meant for that one: here the latest counts then.
        """
        wanted = options.resume_from_checkpoint
        if wanted not in (None, "latest"):
            named = self.folder / wanted  # a path stays as it is
            own = named.resolve().parent == self.folder.resolve() and (named / "state.json").is_file()
            wanted = str(named) if own else "latest"
        found = find_training(self.folder, wanted)
        if found is None:
            return {"step": 0}
        state = load_training(found, networks=self.networks, optimizers=self.optimizers, expected=self.settings)
        if accelerator.scaler is not None and "scaler" in state:
            accelerator.scaler.load_state_dict(state["scaler"])
        was, now = state.get("pictures"), _pictures(options, accelerator)
        if was is not None and was != now:
            logger.warning(
                f"{found} was made with {_told(was)}, this run has {_told(now)}: it goes on, but not bit for bit as the stopped run would have, "
                "and not with the same pictures per step unless the products agree"
            )
        return state

    def save(self, step: int, options: TrainOptions, accelerator: Accelerator, **more: Any) -> None:
        """Write ``checkpoint-<step>``; the main process writes, the others wait."""
        if accelerator.is_main_process:
            state = {**self.settings, "pictures": _pictures(options, accelerator), **more}
            if accelerator.scaler is not None:
                state["scaler"] = accelerator.scaler.state_dict()
            limit = options.checkpoints_total_limit
            save_training(self.folder, step, networks=self.networks, optimizers=self.optimizers, state=state, total_limit=limit)
        accelerator.wait_for_everyone()

    def due(self, step: int, options: TrainOptions) -> bool:
        """Whether --checkpointing-steps wants a checkpoint now; the last step always has one."""
        return step % options.checkpointing_steps == 0 or step == options.max_train_steps

    def bytes(self) -> int:
        """Size of one checkpoint: the networks, and Adam's two moments of what learns."""
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
        """Bytes that the checkpoints of this training need at most: a new one is complete before the oldest goes."""
        written = -(-options.max_train_steps // options.checkpointing_steps)
        return self.bytes() * (min(written, options.checkpoints_total_limit or written) + 1)


def check_space(folder: Path, needed: int) -> None:
    """Raise ValueError unless `needed` bytes and a reserve of 200 MiB are free where `folder` lies or will lie."""
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed + 200 * 2**20:
        raise ValueError(
            f"{free / 2**20:.0f} MiB are free in {place}, and this run needs about {needed / 2**20 + 200:.0f} MiB; free some, choose another "
            "--output-dir, or keep fewer checkpoints (--checkpoints-total-limit)"
        )


def _pictures(options: TrainOptions, accelerator: Accelerator) -> list[int]:
    return [options.train_batch_size, options.gradient_accumulation_steps, accelerator.num_processes]


def _told(pictures: list[int]) -> str:
    batch, accumulation, processes = pictures
    return f"{batch} pictures x {accumulation} passes x {processes} processes"


class Stopping:
    """Ctrl-C, a scheduler's SIGTERM, or a closed terminal's SIGHUP (unless nohup ignores it), answered after the step in hand. A second Ctrl-C stops at once.

    with Stopping() as stopping:
        for … in steps(…):
            …
            if stopping.asked():      # all processes get the same answer
                save; raise KeyboardInterrupt
    """

    def __enter__(self) -> Stopping:
        self._asked = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught, and aren't
            wanted = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                wanted.append(signal.SIGHUP)
            self._previous = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was asked to stop. All processes have to call this together."""
        device = "cuda" if torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl" else "cpu"
        return bool(mean_over_processes(torch.tensor(float(self._asked), device=device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        logger.warning("asked to stop: the step in hand is finished and saved first (Ctrl-C again stops at once)")
