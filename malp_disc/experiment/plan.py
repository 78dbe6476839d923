"""The plan of a run: images per step, steps, checkpoints, and disk space, printed before any work and by --dry-run."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.data.references import known_attributes
from malp_disc.experiment.arms import Arm, ArmOptions, arm_setup
from malp_disc.run_folder.arms import AGAINST_MALP
from malp_disc.training.checkpoints import CheckpointManager, checkpoints_written
from malp_disc.training.finetune import ArmSetup, make_discriminator
from malp_disc.training.options import make_optimizer, run_subdirectory
from malp_disc.training.pretrain_options import build_malp


@dataclass(frozen=True)
class Plan:
    """A run's plan as lines of text, and the disk space that it needs, in bytes."""

    lines: list[str]
    disk: int


def make_plan(
    config: ArmOptions, before: nn.Module, objective: nn.Module | None, malp: MaLP | None, dataset: Dataset, accelerator: Accelerator
) -> Plan:
    """The plan for all arms and seeds: images per step, number of steps, checkpoints and their size."""
    shown = {"malp": malp or build_malp(config)}
    shown["passive"] = shown["malp"]
    images = config.images_per_step * accelerator.num_processes
    lines = [
        f"images     {dataset.description}",
        f"step       {images} images: {config.train_batch_size} x {config.gradient_accumulation_steps} micro-batches x {accelerator.num_processes} processes, "
        f"on {accelerator.device.type}, {'float32' if config.mixed_precision == 'no' else config.mixed_precision}",
        f"steps      {config.max_train_steps} per arm, {config.max_train_steps * images / len(dataset):.1f} epochs",
    ]
    if objective is None:
        lines.append(f"losses     none of the generator's own (--losses); --keep-weight {config.keep_weight:g} holds it near what it was, so the control hardly changes")
    if malp is None and set(config.arms) & set(AGAINST_MALP):
        lines.append(f"MaLP       none given: {config.malp_pretrain_steps} steps of pretraining first")
    if "no_template" in config.arms and config.passive_malp is None:
        lines.append(f"MaLP       no passive one given: {config.malp_pretrain_steps} steps of pretraining first")
    total, written = 0, checkpoints_written(config)
    for arm in config.arms:
        setup = arm_setup(arm, shown, config, attributes=known_attributes(dataset))
        trainings = [_checkpoints(arm, seed, setup, before, objective, config) for seed in config.all_seeds]
        needed = sum(training.space(config) for training in trainings)
        total += needed
        weight = f"weight of MaLP {setup.weight:g}"
        if config.gradient_share is not None and setup.malp is not None:
            weight = f"MaLP's gradient {config.gradient_share:g} of the generator's own"
        lines.append(
            f"arm        {arm}: seeds {' '.join(map(str, config.all_seeds))}, {weight}, {written} checkpoints of {trainings[0].bytes() / 2**20:.1f} MiB, "
            f"{min(written, config.checkpoints_total_limit or written)} kept, {needed / 2**20:.0f} MiB"
        )
    lines.append(f"disk       about {total / 2**20:.0f} MiB in {config.output_dir}")
    return Plan(lines, total)


def _checkpoints(arm: Arm, seed: int, setup: ArmSetup, before: nn.Module, objective: nn.Module | None, config: ArmOptions) -> CheckpointManager:
    """The checkpoints of an arm, to tell their size: what `FineTuning` saves, without preparing it."""
    learning = {"G": before} | ({"D": objective} if objective is not None else {})
    networks = learning | {"G_average": before} | ({"malp": setup.malp} if setup.malp is not None else {})
    optimizers = {name: make_optimizer(name, network, config) for name, network in learning.items() if any(p.requires_grad for p in network.parameters())}
    if setup.trainable:
        optimizers["malp"] = make_optimizer("MaLP", make_discriminator(setup, config), config)
    return CheckpointManager(config.output_dir / "arms" / run_subdirectory(arm, seed), networks=networks, optimizers=optimizers, settings={})
