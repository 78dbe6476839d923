"""Pretrain MaLP on a generator: learn a template and a detector that finds what this generator changes (paper, section 3, Eq. 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP, MaLPConfig, MaLPDiscriminator
from malp_disc.data import DataOptions
from malp_disc.discriminator import GeneratorGradient
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import LossWeights
from malp_disc.manipulate import call_manipulate
from malp_disc.metrics.degradations import random_degradation
from malp_disc.metrics.editing import one_attribute_targets
from malp_disc.run_folder.experiment import not_compared, training_settings
from malp_disc.training.batches import micro_batches, steps
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.train_options import TrainOptions


@dataclass(kw_only=True)
class MaLPOptions:
    """What MaLP is made of and how it learns."""

    malp_set_size: int = 1
    """Templates in the set."""
    malp_strength: float = 0.3
    """m of Eq. 6; 0 trains a passive detector."""
    malp_width: int = 16
    """Channels of the shallow CNN; 64 in the authors' code."""
    malp_transformer: Annotated[bool, tyro.conf.FlagConversionOff] = True
    """Train with the second branch."""
    malp_learning_rate: float = 1e-3
    """Of the networks. (The authors' is 1e-5.)"""
    malp_template_learning_rate: float | None = None
    """Of the templates; five times that of the networks if not given, 0 for templates that stay as they were drawn. (The authors' is 1e-6.)"""
    malp_least_psnr: float = 30.0
    """Encrypted images stay at least so close to the originals, in dB: a template that grows beyond is scaled down. 0 for no limit."""
    malp_template_delay: float = 0.25
    """Share of the steps in which the templates stay as they were drawn. Without it, a wider network or a higher rate can end with no template at
    all: before E_E can see one, J_T shrinks it and J_R finds a constant that fits both classes by half (measured)."""
    malp_generator_gradient: GeneratorGradient = "none"
    """What of the generator's images the templates learn from: none, the predicted map, or map and truth (Eq. 4 and 5 to the letter). The last two
    need the generator's gradients, about twice its time."""
    malp_template_dropout: float = 0.0
    """Share of the images that stay without a template, and count as real all the same. 0 is the paper's: such a MaLP takes a missing template for
    manipulation and never looks at the image itself. As a discriminator of clean images it needs some, half of them, say."""
    malp_degradation: float = 0.0
    """Share of the steps in which MaLP sees its images degraded (JPEG, blur, noise, low resolution), so that the templates learn to survive it. For
    images that will be published: without it a JPEG of quality 80 is the end of a faint template."""
    malp_attribute: str | None = None
    """Train on edits of this attribute alone, to see how MaLP does on others (the paper's Table 3); all attributes if not given."""


@dataclass(kw_only=True)
class PretrainOptions(TrainOptions, MaLPOptions, DataOptions):
    """Flags of a pretraining, but for those that name the generator."""

    output_dir: Path = Path("runs/malp")
    max_train_steps: int = 1000
    detection_false_alarm_rate: float = not_compared(0.01)
    """The threshold that malp-disc detect takes from this MaLP is set so that at most this share of real images exceeds it."""


def check_options(config: PretrainOptions, dataset: Dataset) -> None:
    """Raise ValueError for what can't be, before any work."""
    if config.malp_attribute is not None and config.malp_attribute not in dataset.attribute_names:
        raise ValueError(f"expected --malp-attribute out of {' '.join(dataset.attribute_names)}, got {config.malp_attribute}")
    if not config.malp_learning_rate > 0:
        raise ValueError(f"expected --malp-learning-rate above 0, got {config.malp_learning_rate}")
    if config.malp_template_learning_rate is not None and config.malp_template_learning_rate < 0:
        raise ValueError(f"expected --malp-template-learning-rate of 0 or more, got {config.malp_template_learning_rate}")
    with torch.random.fork_rng():
        build_malp(config)


def build_malp(config: PretrainOptions) -> MaLP:
    """A fresh MaLP as the flags describe it."""
    if not 0 <= config.malp_degradation <= 1:
        raise ValueError(f"expected --malp-degradation in [0, 1], got {config.malp_degradation}")
    if not 0 <= config.malp_template_dropout <= 1:
        raise ValueError(f"expected --malp-template-dropout in [0, 1], got {config.malp_template_dropout}")
    if not 0 <= config.malp_template_delay < 1:
        raise ValueError(f"expected --malp-template-delay in [0, 1), got {config.malp_template_delay}")
    return MaLP(
        MaLPConfig(
            image_size=config.image_size,
            set_size=config.malp_set_size,
            strength=config.malp_strength,
            width=config.malp_width,
            transformer=config.malp_transformer,
        )
    )


def pretrain(
    malp: MaLP, generator: nn.Module, dataset: Dataset, config: PretrainOptions, accelerator: Accelerator, weights: LossWeights | None = None, *, name: str = "malp"
) -> MaLP:
    """Eq. 11 on pairs of T(I) and G(T(I)), the generator fixed. Trains `malp` and returns it in evaluation mode.

    Checkpoints go to ``<name>-training``, the curve to ``curves/<name>.jsonl``.
    """
    # Networks
    disc = MaLPDiscriminator(malp, trainable=True, loss_weights=weights, generator_gradient=config.malp_generator_gradient)
    optimizer = torch.optim.Adam(disc.parameter_groups(lr=config.malp_learning_rate, template_lr=config.malp_template_learning_rate))
    rates = [group["lr"] for group in optimizer.param_groups]

    # Resume, then prepare
    settings = {"seed": config.seed, "max_train_steps": config.max_train_steps, **malp_settings(config)}
    training = CheckpointManager(config.output_dir / f"{name}-training", networks={"malp": malp}, optimizers={"malp": optimizer}, settings=settings)
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    disc_ddp, optimizer = accelerator.prepare(disc, optimizer)

    # Loop
    curves = Curves(config.output_dir / "curves" / f"{name}.jsonl", accelerator, start=first, run=name)
    bar = progress(config, accelerator, start=first, label=f"pretrain {name}")
    with GracefulInterrupt() as stopping:
        for step, batches in steps(dataset, config, accelerator, start=first):
            for group, rate in zip(optimizer.param_groups, learning_rates(config, rates, step - 1)):
                group["lr"] = rate
            for batch in micro_batches(accelerator, batches, disc_ddp):
                batch.noise.seed_dropout()  # of MaLP's second branch
                target = batch.target
                if config.malp_attribute is not None:
                    target = one_attribute_targets(batch.labels, dataset.attribute_names, config.malp_attribute)
                index = batch.noise.integers(malp.encryption.set_size)
                if config.malp_template_dropout:
                    index = torch.where(batch.noise.uniform() < config.malp_template_dropout, NO_TEMPLATE, index)
                encrypted, index = disc.encrypt(batch.images, index)
                dice = batch.noise.uniform(4)[0].tolist()
                with torch.set_grad_enabled(disc.generator_gradient != "none"), accelerator.autocast():
                    fake = call_manipulate(generator.manipulate, encrypted, target)
                degradation = random_degradation(dice[1:]) if dice[0] < config.malp_degradation else None
                losses = disc_ddp(batch.images, encrypted, fake, index, degradation=degradation)
                accelerator.backward(losses.total / len(batches))
            optimizer.step()
            malp.encryption.limit_(config.malp_least_psnr)
            optimizer.zero_grad()
            bar.update()
            if step % config.log_steps == 0:
                names = ("total", "template", "localization", "recovery", "classification")
                shown = curves.log(step, {f"MaLP/{name}": getattr(losses, name).detach() for name in names})
                bar.set_postfix_str(f"J={shown['MaLP/total']:.3g}", refresh=False)
            stop = stopping.asked()
            if training.due(step, config) or stop:
                training.save(step, config, accelerator)
            if stop:
                raise KeyboardInterrupt
    bar.close()
    accelerator.free_memory()
    return malp.eval()


def malp_settings(config: PretrainOptions) -> dict[str, object]:
    """What a pretraining's checkpoint depends on, wherever the pretraining is a part of another recipe."""
    names = {field.name for options in (MaLPOptions, DataOptions) for field in dataclasses.fields(options)} | {"generator", "generator_checkpoint", "mixed_precision"}
    return {name: value for name, value in training_settings(config).items() if name in names}


def learning_rates(config: PretrainOptions, rates: Sequence[float], step: int) -> tuple[float, float]:
    """Networks and templates at `step`: constant for the first half, then falling in a line to 0; the templates begin after their delay."""
    factor = min(1.0, 2 * (config.max_train_steps - step) / config.max_train_steps)
    waiting = step < config.malp_template_delay * config.max_train_steps
    return rates[0] * factor, 0.0 if waiting else rates[1] * factor
