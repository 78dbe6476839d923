"""The loop that all trainings share: steps, progress bar, curves, checkpoints, and a clean stop on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from malp_disc.distributed import mean_values_over_processes
from malp_disc.training.batches import Batch, steps
from malp_disc.training.checkpoints import CheckpointManager
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.train_options import TrainOptions

TrainStep = Callable[[int, list[Batch]], Mapping[str, Tensor]]
"""(number from 1, micro-batches) -> the loss terms by name; none if the step was skipped."""


class Hooks:
    """What a training does around its steps: nothing but showing the loss terms. A subclass overrides what it needs.

    All processes call these, but for `saved`.
    """

    def before_first_step(self) -> None:
        """Called once, and not again when the training is resumed."""

    def logged(self, number: int, terms: Mapping[str, float], bar: tqdm) -> str:
        """Called with every line of the curves; returns what the progress bar shows."""
        return in_words(terms)

    def after_step(self, number: int) -> None:
        """Called before the step's checkpoint is written."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides networks and optimizers, JSON-ready; `CheckpointManager.resume` returns it."""
        return {}

    def saved(self, number: int) -> None:
        """Called in the main process when the checkpoint of a step is complete."""


class ShownTerm(Hooks):
    """Shows a single loss term.

    Args:
        key: its name in the curves.
        name: that in the progress bar.
    """

    def __init__(self, key: str, name: str) -> None:
        self.key, self.name = key, name

    def logged(self, number: int, terms: Mapping[str, float], bar: tqdm) -> str:
        return in_words({self.name: terms[self.key]})


class SampleGrids(Hooks):
    """Draws a sample grid before the first step and every `every` steps.

    Args:
        draw: writes it with the given file name.
    """

    def __init__(self, draw: Callable[[str], None], every: int) -> None:
        self.draw, self.every = draw, every

    def before_first_step(self) -> None:
        self.draw("samples/000000.png")

    def after_step(self, number: int) -> None:
        if number % self.every == 0:
            self.draw(f"samples/{number:06d}.png")


def in_words(terms: Mapping[str, float]) -> str:
    """The terms for a progress bar: ``"J=0.12 G/total=3"``."""
    return " ".join(f"{name}={value:.3g}" for name, value in terms.items())


def run_steps(
    train_step: TrainStep,
    dataset: Dataset,
    config: TrainOptions,
    accelerator: Accelerator,
    checkpoints: CheckpointManager,
    hooks: Hooks,
    *,
    first: int,
    curve: Path,
    label: str,
    run: str | None = None,
) -> None:
    """Train after step `first`, 0 or that of a checkpoint, to the end.

    Args:
        curve: file of the loss terms, which are averaged over the processes.
        label: before the progress bar.
        run: prefix of the names in a tracker.

    Raises:
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    if first == 0:
        hooks.before_first_step()
    curves = Curves(curve, accelerator, start=first, run=run)
    bar = progress(config, accelerator, start=first, label=label)
    with GracefulInterrupt() as interrupt:
        for number, batches in steps(dataset, config, accelerator, start=first):
            terms = train_step(number, batches)
            bar.update()
            if number % config.log_steps == 0 and terms:
                shown = hooks.logged(number, curves.log(number, mean_values_over_processes(dict(terms))), bar)
                bar.set_postfix_str(shown, refresh=False)
            hooks.after_step(number)
            stop = interrupt.requested()
            if checkpoints.due(number, config) or stop:
                checkpoints.save(number, config, accelerator, **hooks.state())
                if accelerator.is_main_process:
                    hooks.saved(number)
            if stop:
                raise KeyboardInterrupt
    bar.close()
