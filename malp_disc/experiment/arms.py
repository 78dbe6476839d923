"""The arms of a fine-tuning, side by side: each from the same networks, with the same images, targets and steps.

control    G and its own losses go on; no MaLP. What an arm does beyond this is MaLP's doing.
control_d  the same, and G's own discriminator learns twice per step: the extra compute without MaLP.
random     against a MaLP that never learned anything, fixed: is it the detector, or any regulariser?
frozen     against the pretrained MaLP, fixed: the paper's first strategy.
cotrain    against MaLP, which learns along: the paper's second strategy.
passive    the same with a detector that never knew a template: does the template earn its place?
scratch    as cotrain, from random weights: does it need the pretraining?
aided      no MaLP but a discriminator on the features of a frozen SqueezeNet, vision-aided style: what one would take instead.
aided_map  the same network asked MaLP's question, how much each place was changed: is it MaLP's question or its eyes?
joint      cotrain and aided at once: does MaLP add to it?
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from malp_disc import MaLP
from malp_disc.data import DataOptions
from malp_disc.evaluation.evaluator import EvaluationOptions
from malp_disc.feature_discriminator import FeatureDiscriminator
from malp_disc.run_folder.experiment import evaluation, of_arms, work
from malp_disc.training.finetune import Setup
from malp_disc.training.generator_losses import VisionAidedObjective
from malp_disc.training.launch import check_seeds
from malp_disc.training.options import FinetuneOptions
from malp_disc.training.pretrain_options import MaLPOptions, build_malp

_AIDED = ("aided", "aided_map", "joint")
Arm = Literal["control", "control_d", "random", "frozen", "cotrain", "passive", "scratch", "aided", "aided_map", "joint"]


@dataclass(kw_only=True)
class ArmOptions(FinetuneOptions, MaLPOptions, EvaluationOptions, DataOptions):
    """Which arms to run, with which seeds, and against which MaLP."""

    output_dir: Path = Path("runs/finetune")
    """Folder of the run, created if absent: checkpoints, tuned generators, measurements, and the report."""
    arms: tuple[Arm, ...] = work(("control", "cotrain"))
    """Arms to run and compare. Without control, the report has no verdict.
    control: no MaLP. control_d: no MaLP, and two updates of the generator's own discriminator per step.
    random: an untrained MaLP, frozen. frozen: the pretrained MaLP, frozen. cotrain: the pretrained MaLP, co-trained.
    passive: as cotrain, but without templates. scratch: as cotrain, but without pretraining.
    aided: a real-or-fake discriminator on a frozen SqueezeNet. aided_map: the same, predicting the fakeness map.
    joint: cotrain and aided together."""
    seeds: tuple[int, ...] = work(())
    """Seeds with which every arm is repeated. Several seeds in one report show how much of a difference is chance.
    By default, --seed alone."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator (malp-disc pretrain).
    By default, the included one for the included generator; for any other, MaLP is pretrained first."""
    passive_malp: Path | None = of_arms("passive", default=None)
    """Folder of a passive MaLP (malp-disc pretrain --malp-strength 0), for the arm passive.
    By default, it is pretrained first."""
    aided_network: Path | None = of_arms(*_AIDED, default=None)
    """Weights of torchvision's squeezenet1_0, the backbone of the discriminator in the arms aided, aided_map, and joint.
    Don't evaluate these arms with the same network; choose another --second-extractor."""
    malp_pretrain_steps: int = 1000
    """Number of steps of MaLP's pretraining, 1 or more."""
    malp_template_dropout: float = 0.5
    """Share of the images, in [0, 1], that get no template in MaLP's pretraining.
    0 is the paper's value, but only a MaLP that was trained on unprotected images too can score them."""
    fresh_malp_steps: int = evaluation(0)
    """Also train a new MaLP from scratch against every tuned generator, for this many steps. 0 for no.
    It shows whether the edits are really harder to localize, or only fool the MaLP that the generator was tuned against.
    This takes as long as a pretraining for every arm and seed."""

    def check(self) -> None:
        super().check()
        if len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError(f"expected different arms out of {', '.join(get_args(Arm))}, got {list(self.arms)}")
        if set(_AIDED) & set(self.arms) and self.aided_network is None:
            raise ValueError("the arms aided, aided_map and joint need --aided-network, a state dict of torchvision's squeezenet1_0")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected different seeds, got {list(self.seeds)}")
        check_seeds(*self.seeds)
        if self.fresh_malp_steps < 0:
            raise ValueError(f"expected --fresh-malp-steps of 0 or more, got {self.fresh_malp_steps}")
        if self.malp_pretrain_steps < 1:
            raise ValueError(f"expected --malp-pretrain-steps of at least 1, got {self.malp_pretrain_steps}")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run."""
        return self.seeds or (self.seed,)


def setup_of(arm: Arm, malps: dict[str, MaLP], config: ArmOptions) -> Setup:
    """What an arm does beyond the control."""
    if arm in ("control", "aided", "aided_map"):
        return Setup()
    if arm == "control_d":
        return Setup(second_discriminator_update=True)
    if arm in ("random", "scratch"):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            untrained = MaLP(malps["malp"].config).eval()
        if arm == "random":
            return Setup(untrained, weight=config.frozen_weight)
        return Setup(untrained, trainable=True, weight=config.cotrain_weight, template_dropout=config.template_dropout)
    if arm == "frozen":
        return Setup(malps["malp"], weight=config.frozen_weight)
    malp = malps["passive" if arm == "passive" else "malp"]
    return Setup(malp, trainable=True, weight=config.cotrain_weight, template_dropout=1.0 if arm == "passive" else config.template_dropout)


def losses_of(arm: Arm, own: nn.Module | None, config: ArmOptions) -> nn.Module | None:
    """The losses beside MaLP's: the generator's own, and in some arms those of a feature discriminator."""
    if arm not in _AIDED:
        return own
    weight, target = (config.aided_map_weight, "map") if arm == "aided_map" else (config.aided_weight, "realness")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return VisionAidedObjective(own, FeatureDiscriminator(config.aided_network, target=target), weight, config.augmentation)


def given_malps(config: ArmOptions, malp: MaLP | None) -> dict[str, MaLP | None]:
    """The detectors that the arms need, by name; None for those that have to be pretrained first.

    Raises:
        ValueError, FileNotFoundError: one that isn't there, can't be loaded or isn't what it should be, or flags of a pretraining that can't be.
    """
    given = {"malp": malp}
    if "passive" in config.arms:
        given["passive"] = MaLP.from_pretrained(config.passive_malp) if config.passive_malp is not None else None
        if given["passive"] is not None and not given["passive"].passive:
            raise ValueError(
                f"{config.passive_malp} adds a template (strength {given['passive'].config.strength}); pretrain one with --malp-strength 0"
            )
    if None in given.values() or config.fresh_malp_steps:
        build_malp(config)
    return given
