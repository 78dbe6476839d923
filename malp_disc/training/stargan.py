"""The loop of training a StarGAN from scratch, or from a trained pair: `train_stargan`, which recipes/train_stargan.py calls."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.plotting.attribute_grid import attribute_grid
from malp_disc.training.from_scratch import BETAS, moving_average, train_networks
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
    discriminator = critic.discriminator
    average = moving_average(generator, config.ema_decay, accelerator.device)
    optimizers = {
        "G": torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=BETAS, foreach=True),
        "D": discriminator_optimizer(critic, config),
    }
    shown = [held_out[i] for i in range(min(SHOWN, len(held_out)))]
    images, labels = (torch.stack(values).to(accelerator.device) for values in zip(*shown))

    def draw(name: str) -> None:
        if accelerator.is_main_process:
            attribute_grid(average, images, labels, dataset.attribute_names, config.output_dir / name)

    train_networks(
        {"G_raw": generator, "D": discriminator, "G_average": average} | ({"branch": critic.branch} if critic.branch is not None else {}),
        optimizers,
        lambda: StarGANStep(generator, critic, average, optimizers, config, accelerator),
        dataset,
        config,
        accelerator,
        label="train StarGAN",
        draw=draw,
        results={"G": average.module, "D": discriminator},
    )
    return average.module
