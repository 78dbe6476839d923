"""What the trainings of generators share: the moving average, resuming, the loop, and saving the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from malp_disc.run_folder.experiment import training_settings
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.loop import TrainStep, run_steps
from malp_disc.training.train_options import TrainOptions

BETAS = (0.5, 0.999)
"""Adam's, in all four papers."""


def moving_average(generator: nn.Module, decay: float, device: torch.device) -> AveragedModel:
    """The exponential moving average of a generator's weights; buffers are copied.

    The decay rises to `decay` as (1 + n) / (10 + n), n being the number of updates so far, so that a training of some hundred updates doesn't end with an average that
    is mostly the weights it started from.
    """

    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, count)

    return AveragedModel(generator, multi_avg_fn=update).to(device)


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
    run_steps(
        make_step(), dataset, config, accelerator, training, first=first, curve=config.output_dir / "curves.jsonl", label=label, draw=draw
    )
    if accelerator.is_main_process:
        metadata = {"attributes": " ".join(dataset.attribute_names), "image_size": str(config.image_size), "data": dataset.description}
        for name, network in results.items():
            save_tensors(config.output_dir / f"{name}.safetensors", converted(network, config.save_precision), metadata)
    draw("samples.png")


def converted(network: nn.Module, precision: str) -> dict[str, torch.Tensor]:
    """A network's state dict with its floating-point tensors in `precision`, "float32" or "float16"."""
    return {key: value.to(getattr(torch, precision)) if value.is_floating_point() else value for key, value in network.state_dict().items()}
