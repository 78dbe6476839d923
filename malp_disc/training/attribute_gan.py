"""Training an attribute editor or a CycleGAN from scratch: `train_attribute_gan` and `train_cyclegan`, which recipes/train_attribute_gan.py calls."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.utils import make_grid, save_image

from malp_disc.manipulate import call_manipulate
from malp_disc.serialization.files import atomic_path
from malp_disc.training.attribute_gan_options import AttributeGANOptions
from malp_disc.training.attribute_gan_step import AttributeGANStep
from malp_disc.training.cyclegan_step import CycleGANStep
from malp_disc.training.from_scratch import adam, attribute_samples, evaluated, shown_images, train_networks
from malp_disc.training.moving_average import moving_average


def train_attribute_gan(
    generator: nn.Module,
    objective: nn.Module,
    dataset: Dataset,
    held_out: Dataset,
    config: AttributeGANOptions,
    accelerator: Accelerator,
) -> nn.Module:
    """Train an attribute editor and return the moving average of the generator, in evaluation mode.

    Writes ``checkpoint-<step>`` folders, ``curves.jsonl`` and sample grids into ``config.output_dir``, and at the end ``G.safetensors`` (the average),
    ``D.safetensors`` and ``samples.png``. A resumed run gives the same bytes as an uninterrupted one.

    Args:
        generator: with ``manipulate(images, target)``, a target of its `target_kind`; of the zoo.
        objective: its losses, such as `generators.attgan_losses.AttGANObjective`, with the discriminator as `discriminator`.
        held_out: the first images of this data set are shown in the sample grids.
        config: also the data set's options, for the resume fingerprint.

    Raises:
        ValueError: a checkpoint belongs to a run with other settings, or the disk has too little space.
        KeyboardInterrupt: the run was interrupted; its checkpoint is written.
    """
    average = moving_average(generator, config.ema_decay, warmup=True).to(accelerator.device)
    optimizers = _optimizers(config, G=generator, D=objective)

    def edit(network: nn.Module, x: Tensor, target: Tensor, current: Tensor) -> Tensor:
        return call_manipulate(network.manipulate, x, target, current=current)

    train_networks(
        {"G_raw": generator, "D": objective.discriminator, "G_average": average},
        optimizers,
        lambda: AttributeGANStep(generator, objective, average, optimizers, config, accelerator),
        dataset,
        config,
        accelerator,
        label=f"train {config.method}",
        draw=attribute_samples(average, edit, held_out, dataset.attribute_names, config.output_dir, accelerator),
        results={"G": average.module, "D": objective.discriminator},
    )
    return average.module.eval()


def train_cyclegan(
    generators: nn.Module, objective: nn.Module, pools: nn.ModuleDict, dataset: Dataset, held_out: Dataset, config: AttributeGANOptions, accelerator: Accelerator
) -> nn.Module:
    """Train both generators of a CycleGAN and return their moving average, in evaluation mode.

    Writes the same as `train_attribute_gan`; the results are ``G_A.safetensors`` (from domain A, the data set's images, to B, its references) and
    ``G_B.safetensors``, ``D_A.safetensors`` (of images of B, as the authors name it) and ``D_B.safetensors``.

    Args:
        generators, objective, pools: as `CycleGANStep`, with the parts `forth` and `back`, and `of_a` and `of_b`.
        dataset: with references (`malp_disc.data.WithReferences`).
        held_out: images of domain A.

    Raises:
        ValueError, KeyboardInterrupt: as `train_attribute_gan`.
    """
    average = moving_average(generators, config.ema_decay, warmup=True).to(accelerator.device)
    optimizers = _optimizers(config, G=generators, D=objective)
    images, _ = shown_images(held_out, accelerator.device)

    def draw(name: str) -> None:
        if accelerator.is_main_process:
            translate = evaluated(average.module, lambda network, x: torch.stack([x, fake := network.forth(x), network.back(fake)], dim=1))
            save_rows(translate(images), config.output_dir / name)

    train_networks(
        {"G_raw": generators, "D": objective, "G_average": average, "pools": pools},
        optimizers,
        lambda: CycleGANStep(generators, objective, pools, average, optimizers, config, accelerator),
        dataset,
        config,
        accelerator,
        label="train cyclegan",
        draw=draw,
        results={"G_A": average.module.forth, "G_B": average.module.back, "D_A": objective.of_b, "D_B": objective.of_a},
    )
    return average.module.eval()


def save_rows(rows: Tensor, path: Path) -> None:
    """Save images (B, columns, 3, H, W) in [-1, 1] as a grid of B rows."""
    with atomic_path(path) as temporary:
        save_image(make_grid((rows.flatten(0, 1).clamp(-1, 1) + 1) / 2, nrow=rows.shape[1], padding=1), temporary)


def _optimizers(config: AttributeGANOptions, **networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
    return {name: adam(network.parameters(), rate) for (name, network), rate in zip(networks.items(), config.rates)}
