"""Training curves as JSON lines, and the progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from malp_disc.serialization.files import write_text
from malp_disc.training.train_options import TrainOptions


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file, without an incomplete last line of a killed run; none if the file doesn't exist."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


class Curves:
    """``curves.jsonl``, one line per logged step. A resumed run first deletes the lines after its checkpoint.

    Args:
        start: the step of the checkpoint, 0 for a new run.
        run: prefix of the names in a tracker ("control/seed0"), which keeps the curves of several arms apart; None for no prefix.
    """

    def __init__(self, path: Path, accelerator: Accelerator, *, start: int, run: str | None = None) -> None:
        self._path, self._accelerator, self._run = path, accelerator, run
        self._declared = False
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = read_lines(path) if start else []
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= start))

    def log(self, step: int, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Append a line with these scalars to the file and log to the trackers, in the main process; returns them as numbers."""
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist()))
        self._track(step, numbers)
        if self._accelerator.is_main_process:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
        return numbers

    def _track(self, step: int, numbers: dict[str, float]) -> None:
        prefix = f"{self._run}/" if self._run else ""
        tagged = {f"{prefix}{key}": value for key, value in numbers.items()}
        for tracker in self._accelerator.trackers if self._accelerator.is_main_process else ():
            if tracker.name == "wandb":  # accepts only increasing steps, and every arm counts from 1, so each arm gets its own axis
                axis = f"{prefix}step"
                if not self._declared:
                    tracker.tracker.define_metric(f"{prefix}*", step_metric=axis)
                    self._declared = True
                tracker.log({**tagged, axis: step})
            else:
                tracker.log(tagged, step=step)


def progress(options: TrainOptions, accelerator: Accelerator, *, start: int, label: str) -> tqdm:
    """A progress bar over the steps, shown by the main process only."""
    return tqdm(
        total=options.max_train_steps,
        initial=start,
        desc=label,
        unit="step",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
        mininterval=1.0,
    )
