"""Training curves, and the progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from malp_disc.serialization.files import write_text
from malp_disc.training.train_options import TrainOptions


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON lines file; none if it isn't there. A last line that a killed run left unfinished is left out."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


class Curves:
    """``curves.jsonl``: one line per logged step. A resumed run first drops the lines after its checkpoint.

    Args:
        run: names the curve in a tracker, where all curves of a run stand side by side ("control/seed0"); None where there is only one.
    """

    def __init__(self, path: Path, accelerator: Accelerator, *, start: int, run: str | None = None) -> None:
        self._path, self._accelerator, self._run = path, accelerator, run
        self._declared = False
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = read_lines(path) if start else []
            write_text(path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= start))

    def log(self, step: int, values: dict[str, float | Tensor]) -> dict[str, float]:
        numbers = {key: float(value) for key, value in values.items()}
        self._track(step, numbers)
        if self._accelerator.is_main_process:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
        return numbers

    def _track(self, step: int, numbers: dict[str, float]) -> None:
        prefix = f"{self._run}/" if self._run else ""
        tagged = {f"{prefix}{key}": value for key, value in numbers.items()}
        for tracker in self._accelerator.trackers if self._accelerator.is_main_process else ():
            if tracker.name == "wandb":  # takes steps that only grow, and every arm counts from 1: each gets an axis of its own
                axis = f"{prefix}step"
                if not self._declared:
                    tracker.tracker.define_metric(f"{prefix}*", step_metric=axis)
                    self._declared = True
                tracker.log({**tagged, axis: step})
            else:
                tracker.log(tagged, step=step)


def progress(options: TrainOptions, accelerator: Accelerator, *, start: int, label: str) -> tqdm:
    """Steps done, time left; only the main process shows it."""
    return tqdm(
        total=options.max_train_steps,
        initial=start,
        desc=label,
        unit="step",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
        mininterval=1.0,
    )
