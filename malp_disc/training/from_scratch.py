"""What the trainings of generators share: sample grids, the optimizer, resuming, the loop, and saving the networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from malp_disc.plotting.attribute_grid import attribute_grid
from malp_disc.run_folder.experiment import training_settings
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.loop import SampleGrids, TrainStep, run_steps
from malp_disc.training.train_options import TrainOptions

BETAS = (0.5, 0.999)
"""Adam's, in all four papers."""

SHOWN = 8
"""Images of a sample grid."""


def adam(parameters: Iterable[Any], lr: float = 1e-3) -> torch.optim.Adam:
    """The optimizer of all these trainings; `parameters` may be groups with learning rates of their own."""
    return torch.optim.Adam(parameters, lr=lr, betas=BETAS, foreach=True)


def shown_images(held_out: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first images and labels of a data set, for the sample grids."""
    items = [held_out[i][:2] for i in range(min(SHOWN, len(held_out)))]
    images, labels = (torch.stack(values).to(device) for values in zip(*items))
    return images, labels


def evaluated(network: nn.Module, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``call(network, …)`` in evaluation mode and without gradients; the training goes on in the mode in which it was."""

    @torch.no_grad()
    def run(*arguments: Tensor) -> Tensor:
        training = network.training
        try:
            return call(network.eval(), *arguments)
        finally:
            network.train(training)

    return run


def attribute_samples(
    average: AveragedModel, edit: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor], held_out: Dataset, names: Sequence[str], folder: Path, accelerator: Accelerator
) -> Callable[[str], None]:
    """`draw` of `train_networks` for attribute editors: the moving average's edits of the first images of `held_out`.

    Args:
        edit: (network, images, desired labels, current labels) -> images.
        names: of the attributes.
    """
    images, labels = shown_images(held_out, accelerator.device)

    def draw(name: str) -> None:
        if accelerator.is_main_process:
            edited = evaluated(average.module, lambda network, x, target: edit(network, x, target, labels))
            attribute_grid(edited, images, labels, names, folder / name)

    return draw


def train_networks(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    make_step: Callable[[], TrainStep],
    dataset: Dataset,
    config: TrainOptions,
    accelerator: Accelerator,
    *,
    label: str,
    draw: Callable[[str], None],
    results: Mapping[str, nn.Module],
) -> None:
    """Resume the networks and optimizers from a checkpoint if there is one, train, and write ``<name>.safetensors`` for each of `results` and ``samples.png``.

    Args:
        networks, optimizers: what a checkpoint holds, by the names of its files; unwrapped.
        make_step: prepares them with Accelerate and returns the step; called after they are resumed.
        label: before the progress bar.
        draw: (file name below the run's folder), writes a sample grid.

    Raises:
        ValueError: a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    settings = {"attribute_names": list(dataset.attribute_names), **training_settings(config)}
    training = CheckpointManager(config.output_dir, networks=networks, optimizers=optimizers, settings=settings)
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    hooks = SampleGrids(draw, config.sample_steps)
    run_steps(make_step(), dataset, config, accelerator, training, hooks, first=first, curve=config.output_dir / "curves.jsonl", label=label)
    if accelerator.is_main_process:
        metadata = {"attributes": " ".join(dataset.attribute_names), "image_size": str(config.image_size), "data": dataset.description}
        for name, network in results.items():
            save_tensors(config.output_dir / f"{name}.safetensors", converted(network, config.save_precision), metadata)
    draw("samples.png")


def converted(network: nn.Module, precision: str) -> dict[str, torch.Tensor]:
    """A network's state dict with its floating-point tensors in `precision`, "float32" or "float16"."""
    return {key: value.to(getattr(torch, precision)) if value.is_floating_point() else value for key, value in network.state_dict().items()}
