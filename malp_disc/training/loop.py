"""The loop that all trainings but the fine-tuning share: steps, progress bar, curves, samples, checkpoints, and a clean stop on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from malp_disc.distributed import mean_values_over_processes
from malp_disc.training.batches import Batch, steps
from malp_disc.training.checkpoints import CheckpointManager
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.train_options import TrainOptions

TrainStep = Callable[[int, Sequence[Batch]], Mapping[str, Tensor]]
"""(number from 1, micro-batches) -> the loss terms by name."""


def run_steps(
    train_step: TrainStep,
    dataset: Dataset,
    config: TrainOptions,
    accelerator: Accelerator,
    training: CheckpointManager,
    *,
    first: int,
    curve: Path,
    label: str,
    run: str | None = None,
    summary: Mapping[str, str] | None = None,
    draw: Callable[[str], None] | None = None,
) -> None:
    """Train from step `first` to the end.

    Args:
        training: saves the checkpoints.
        curve: file of the loss terms, which are averaged over the processes.
        label: before the progress bar.
        run: prefix of the names in a tracker.
        summary: terms that the progress bar shows, and their names there. None shows all.
        draw: writes a sample grid with the given file name; called before the first step and every `--sample-steps`.

    Raises:
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    curves = Curves(curve, accelerator, start=first, run=run)
    bar = progress(config, accelerator, start=first, label=label)
    if draw is not None and first == 0:
        draw("samples/000000.png")
    with GracefulInterrupt() as interrupt:
        for number, batches in steps(dataset, config, accelerator, start=first):
            terms = train_step(number, batches)
            bar.update()
            if number % config.log_steps == 0:
                logged = curves.log(number, mean_values_over_processes(dict(terms)))
                shown = logged if summary is None else {name: logged[key] for key, name in summary.items()}
                bar.set_postfix_str(" ".join(f"{name}={value:.3g}" for name, value in shown.items()), refresh=False)
            if draw is not None and number % config.sample_steps == 0:
                draw(f"samples/{number:06d}.png")
            stop = interrupt.requested()
            if training.due(number, config) or stop:
                training.save(number, config, accelerator)
            if stop:
                raise KeyboardInterrupt
    bar.close()
