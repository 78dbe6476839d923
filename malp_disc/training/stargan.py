"""The loop of training a StarGAN from scratch, or from a trained pair: `train_stargan`, which recipes/train_stargan.py calls."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.training.from_scratch import adam, attribute_samples, train_networks
from malp_disc.training.moving_average import moving_average
from malp_disc.training.stargan_options import StarGANOptions
from malp_disc.training.stargan_step import StarGANStep, discriminator_optimizer


def train_stargan(
    generator: nn.Module, critic: nn.Module, dataset: Dataset, held_out: Dataset, config: StarGANOptions, accelerator: Accelerator
) -> nn.Module:
    """Train a StarGAN and return the moving average of its generator, in evaluation mode.

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
    average = moving_average(generator, config.ema_decay, warmup=True).to(accelerator.device)
    optimizers = {
        "G": adam(generator.parameters(), config.learning_rate),
        "D": discriminator_optimizer(critic, config),
    }
    train_networks(
        {"G_raw": generator, "D": discriminator, "G_average": average} | ({"branch": critic.branch} if critic.branch is not None else {}),
        optimizers,
        lambda: StarGANStep(generator, critic, average, optimizers, config, accelerator),
        dataset,
        config,
        accelerator,
        label="train StarGAN",
        draw=attribute_samples(average, lambda network, x, target, current: network(x, target), held_out, dataset.attribute_names, config.output_dir, accelerator),
        results={"G": average.module, "D": discriminator},
    )
    return average.module.eval()
