"""The arms of a fine-tuning. All start from the same networks and see the same images and targets for the same number of steps.

control        the generator's own losses alone, without MaLP. A difference of another arm to this one is due to MaLP.
control_2xD    the same with two updates of the generator's own discriminator per step: the extra compute without MaLP.
random         against an untrained, frozen MaLP: is the effect due to the detector, or would any regulariser do?
frozen         against the pretrained MaLP, frozen: the paper's first strategy.
cotrain        against the pretrained MaLP, co-trained: the paper's second strategy.
no_template    as cotrain, with a passive MaLP, which was trained without templates: does the template help?
from_scratch   as cotrain, from random weights: does the pretraining help?
vision_aided   no MaLP, but a real-or-fake discriminator on the features of a frozen SqueezeNet, as in vision-aided GANs: the common alternative.
feature_map    the same network, trained to predict MaLP's target, the fakeness map: does the target matter, or the backbone?
joint          cotrain and vision_aided together: does MaLP add to it?
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
from malp_disc.training.finetune import ArmSetup
from malp_disc.training.generator_losses import VisionAidedObjective
from malp_disc.training.launch import check_seeds
from malp_disc.training.options import FinetuneOptions
from malp_disc.training.pretrain_options import MaLPOptions, build_malp

_ON_BACKBONE = ("vision_aided", "feature_map", "joint")
Arm = Literal["control", "control_2xD", "random", "frozen", "cotrain", "no_template", "from_scratch", "vision_aided", "feature_map", "joint"]


@dataclass(kw_only=True)
class ArmOptions(FinetuneOptions, MaLPOptions, EvaluationOptions, DataOptions):
    """Which arms to run, with which seeds, and against which MaLP."""

    output_dir: Path = Path("runs/finetune")
    """Folder of the run, created if absent: checkpoints, tuned generators, measurements, and the report."""
    arms: tuple[Arm, ...] = work(("control", "cotrain"))
    """Arms to run and compare. Without control, the report has no verdict.
    control: no MaLP. control_2xD: no MaLP, and two updates of the generator's own discriminator per step.
    random: an untrained MaLP, frozen. frozen: the pretrained MaLP, frozen. cotrain: the pretrained MaLP, co-trained.
    no_template: as cotrain, but without templates. from_scratch: as cotrain, but without pretraining.
    vision_aided: a real-or-fake discriminator on a frozen SqueezeNet. feature_map: the same, predicting the fakeness map.
    joint: cotrain and vision_aided together."""
    seeds: tuple[int, ...] = work(())
    """Seeds with which every arm is repeated. Several seeds in one report show how much of a difference is chance.
    By default, --seed alone."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator (malp-disc pretrain).
    By default, the included one for the included generator; for any other, MaLP is pretrained first."""
    passive_malp: Path | None = of_arms("no_template", default=None)
    """Folder of a passive MaLP (malp-disc pretrain --malp-strength 0), for the arm no_template.
    By default, it is pretrained first."""
    vision_aided_network: Path | None = of_arms(*_ON_BACKBONE, default=None)
    """Weights of torchvision's squeezenet1_0, the backbone of the discriminator in the arms vision_aided, feature_map, and joint.
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
        """Raise ValueError for invalid flags, before any work."""
        super().check()
        if len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError(f"expected different arms out of {', '.join(get_args(Arm))}, got {list(self.arms)}")
        if set(_ON_BACKBONE) & set(self.arms) and self.vision_aided_network is None:
            raise ValueError("the arms vision_aided, feature_map and joint need --vision-aided-network, a state dict of torchvision's squeezenet1_0")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected different seeds, got {list(self.seeds)}")
        check_seeds(*self.seeds)
        if self.fresh_malp_steps < 0:
            raise ValueError(f"expected --fresh-malp-steps of 0 or more, got {self.fresh_malp_steps}")
        if self.malp_pretrain_steps < 1:
            raise ValueError(f"expected --malp-pretrain-steps of at least 1, got {self.malp_pretrain_steps}")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run: --seeds, or --seed alone."""
        return self.seeds or (self.seed,)


def arm_setup(arm: Arm, malps: dict[str, MaLP], config: ArmOptions) -> ArmSetup:
    """The MaLP of an arm, its weight, and how it is trained.

    Args:
        malps: pretrained, by name: "malp", and "passive" if the arm no_template is run.
    """
    if arm in ("control", "vision_aided", "feature_map"):
        return ArmSetup()
    if arm == "control_2xD":
        return ArmSetup(second_discriminator_update=True)
    if arm in ("random", "from_scratch"):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            untrained = MaLP(malps["malp"].config).eval()
        if arm == "random":
            return ArmSetup(untrained, weight=config.frozen_weight)
        return ArmSetup(untrained, trainable=True, weight=config.cotrain_weight, template_dropout=config.template_dropout)
    if arm == "frozen":
        return ArmSetup(malps["malp"], weight=config.frozen_weight)
    malp = malps["passive" if arm == "no_template" else "malp"]
    return ArmSetup(malp, trainable=True, weight=config.cotrain_weight, template_dropout=1.0 if arm == "no_template" else config.template_dropout)


def arm_objective(arm: Arm, objective: nn.Module | None, config: ArmOptions) -> nn.Module | None:
    """The generator's losses other than MaLP's: its own `objective`, and in some arms that of a feature discriminator as well."""
    if arm not in _ON_BACKBONE:
        return objective
    weight, target = (config.feature_map_weight, "map") if arm == "feature_map" else (config.vision_aided_weight, "realness")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return VisionAidedObjective(objective, FeatureDiscriminator(config.vision_aided_network, target=target), weight, config.augmentation)


def load_given_malps(config: ArmOptions, malp: MaLP | None) -> dict[str, MaLP | None]:
    """The MaLPs that the arms need, by name; None for those that have to be pretrained first.

    Raises:
        ValueError, FileNotFoundError: a folder that is missing or can't be loaded, a passive MaLP that has a template, or invalid flags of the pretraining.
    """
    given = {"malp": malp}
    if "no_template" in config.arms:
        given["passive"] = MaLP.from_pretrained(config.passive_malp) if config.passive_malp is not None else None
        if given["passive"] is not None and not given["passive"].passive:
            raise ValueError(
                f"{config.passive_malp} adds a template (strength {given['passive'].config.strength}); pretrain one with --malp-strength 0"
            )
    if None in given.values() or config.fresh_malp_steps:
        build_malp(config)
    return given
