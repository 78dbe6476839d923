"""The loop of training a StarGAN from scratch, or from a trained pair: `train_stargan`, which recipes/train_stargan.py calls."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from malp_disc.plotting.attribute_grid import attribute_grid
from malp_disc.run_folder.experiment import training_settings
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training.batches import steps
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.stargan_options import StarGANOptions
from malp_disc.training.stargan_step import StarGANStep, discriminator_optimizer

SHOWN = 8
"""Faces of a sample grid."""


def train_stargan(
    generator: nn.Module, critic: nn.Module, dataset: Dataset, held_out: Dataset, config: StarGANOptions, accelerator: Accelerator
) -> nn.Module:
    """Train a StarGAN and return the moving average of its generator.

    Writes ``checkpoint-<step>`` folders, ``curves.jsonl`` and sample grids into ``config.output_dir``, and at the end ``G.safetensors`` (the average),
    ``D.safetensors`` and ``samples.png``. A resumed run gives the same bytes as an uninterrupted one.

    Args:
        generator: G(images, target) with the authors' state-dict keys, such as `generators.stargan.StarGANGenerator`.
        critic: `generators.stargan_losses.StarGANCritic` of its discriminator.
        held_out: the first images of this data set are shown in the sample grids.
        config: also the data set's options, for the resume fingerprint.

    Raises:
        ValueError: a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    # Networks
    discriminator = critic.discriminator
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)).to(accelerator.device)
    optimizers = {
        "G": torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=(0.5, 0.999)),
        "D": discriminator_optimizer(critic, config),
    }

    # Resume, then prepare
    networks = {"G_raw": generator, "D": discriminator, "G_average": average} | ({"branch": critic.branch} if critic.branch is not None else {})
    settings = {"attribute_names": list(dataset.attribute_names), **training_settings(config)}
    training = CheckpointManager(config.output_dir, networks=networks, optimizers=optimizers, settings=settings)
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    train_step = StarGANStep(generator, critic, average, optimizers, config, accelerator)

    # Loop
    shown = [held_out[i] for i in range(min(SHOWN, len(held_out)))]
    images, labels = (torch.stack(values).to(accelerator.device) for values in zip(*shown))

    def draw(name: str) -> None:
        if accelerator.is_main_process:
            attribute_grid(average, images, labels, dataset.attribute_names, config.output_dir / name)

    curves = Curves(config.output_dir / "curves.jsonl", accelerator, start=first)
    bar = progress(config, accelerator, start=first, label="train StarGAN")
    if first == 0:
        draw("samples/000000.png")
    with GracefulInterrupt() as interrupt:
        for number, batches in steps(dataset, config, accelerator, start=first):
            terms = train_step(number, batches)
            bar.update()
            if number % config.log_steps == 0:
                logged = curves.log(number, terms)
                bar.set_postfix_str(" ".join(f"{key}={value:.3g}" for key, value in logged.items()), refresh=False)
            if number % config.sample_steps == 0:
                draw(f"samples/{number:06d}.png")
            stop = interrupt.requested()
            if training.due(number, config) or stop:
                training.save(number, config, accelerator)
            if stop:
                raise KeyboardInterrupt
    bar.close()

    # Results
    if accelerator.is_main_process:
        metadata = {"attributes": " ".join(dataset.attribute_names), "image_size": str(config.image_size), "data": dataset.description}
        for name, network in (("G", average.module), ("D", discriminator)):
            save_tensors(config.output_dir / f"{name}.safetensors", converted(network, config.save_precision), metadata)
    draw("samples.png")
    return average.module


def converted(network: nn.Module, precision: str) -> dict[str, torch.Tensor]:
    """A network's state dict with its floating-point tensors in `precision`, "float32" or "float16"."""
    return {key: value.to(getattr(torch, precision)) if value.is_floating_point() else value for key, value in network.state_dict().items()}
