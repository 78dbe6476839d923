"""The arms of a fine-tuning: which to run, and the MaLP and the weights of each. `malp_disc.run_folder.arms.ARM_TABLE` describes them.

All start from the same networks and see the same images and targets for the same number of steps.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from malp_disc import MaLP
from malp_disc.backbones import default_depths
from malp_disc.evaluation.evaluation_models import EvaluationConfig
from malp_disc.experiment.given_malp import load_learned_malp
from malp_disc.malp import with_pretrained_branch
from malp_disc.run_folder.arms import AGAINST_MALP, ARM_TABLE, ARMS_HELP, ON_BACKBONE
from malp_disc.run_folder.experiment import arms_of, evaluation, of_arms, work
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.finetune import ArmSetup
from malp_disc.training.launch import check_seeds
from malp_disc.training.options import FinetuneOptions
from malp_disc.training.output_folder import has_results
from malp_disc.training.pretrain_options import MaLPOptions, build_malp

logger = logging.getLogger("malp_disc")
Arm = Literal["control", "control_2xD", "random", "frozen", "cotrain", "no_template", "from_scratch", "vision_aided", "feature_map", "joint"]


@dataclass(kw_only=True)
class ArmOptions(FinetuneOptions, MaLPOptions, EvaluationConfig):
    """Which arms to run, with which seeds, and against which MaLP."""

    output_dir: Path = Path("runs/finetune")
    """Folder of the run, created if absent: checkpoints, tuned generators, measurements, and the report."""
    arms: tuple[Arm, ...] = work(("control", "vision_aided"), help=ARMS_HELP)
    seeds: tuple[int, ...] = work(())
    """Seeds with which every arm is repeated. Several seeds in one report show how much of a difference is chance.
    By default, --seed alone."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator (malp-disc pretrain).
    By default, the included one for the included generator; for any other, MaLP is pretrained first."""
    passive_malp: Path | None = of_arms("no_template", default=None)
    """Folder of a passive MaLP (malp-disc pretrain --malp-strength 0), for the arm no_template.
    By default, it is pretrained first."""
    malp_pretrain_steps: int = 1000
    """Number of steps of MaLP's pretraining, 1 or more. This and the other flags of a pretraining are refused in a run without one."""
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
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected different seeds, got {list(self.seeds)}")
        check_seeds(*self.seeds)
        if self.fresh_malp_steps < 0:
            raise ValueError(f"expected --fresh-malp-steps of 0 or more, got {self.fresh_malp_steps}")
        if self.malp_pretrain_steps < 1:
            raise ValueError(f"expected --malp-pretrain-steps of at least 1, got {self.malp_pretrain_steps}")
        self.check_options_of_arms()

    def check_options_of_arms(self) -> None:
        """Raise ValueError for options of arms that aren't run, which would have no effect; in a resumed run, warn."""
        unused = []
        for field in dataclasses.fields(self):
            own = arms_of(type(self), field.name, vars(self))
            if own and not set(own) & set(self.arms) and getattr(self, field.name) != field.default:
                unused.append(f"--{field.name.replace('_', '-')} (of {', '.join(own)})")
        if unused:
            them = "it" if len(unused) == 1 else "them"
            self.refuse_without_effect(f"no effect in the arms {' '.join(self.arms)}: {', '.join(unused)}; leave {them} out, or run an arm that uses {them}")

    def check_options_have_effect(self, given: Mapping[str, MaLP | None], *, own_discriminator: bool) -> None:
        """Raise ValueError for options that nothing in this run depends on; in a resumed run, warn.

        Args:
            given: of `load_given_malps`.
            own_discriminator: whether the generator's own losses have parameters to train.
        """
        if None not in given.values():
            unused = {"malp_pretrain_steps"}
            if not self.fresh_malp_steps:
                unused |= {field.name for field in dataclasses.fields(MaLPOptions)}
            if "malp" in given:
                unused -= {"malp_backbone_weights"}  # also those of its own branch
            elif set(self.arms) & set(ON_BACKBONE):
                unused -= {"malp_branch", "malp_backbone_weights"}  # the arm's MaLP has this branch
            why = "one is given, or the included one is used; pretrain your own with malp-disc pretrain, and give it as --malp" if "malp" in given else "no arm needs one"
            self._refuse_unused(unused, f"this run pretrains no MaLP: {why}")
        malp = given.get("malp")
        if malp is not None and malp.config.pretrained_branch:
            unused = [name for name in ("backbone", "backbone_side", "backbone_depths") if arms_of(type(self), name, vars(self))]
            self._refuse_unused(unused, "the given MaLP keeps the pretrained branch that it has")
        if not own_discriminator:
            self._refuse_unused(["discriminator_learning_rate"], "the generator's own losses have no parameters to train")
        if self.gradient_share is not None:
            unused = ["frozen_weight"] if "joint" in self.arms else ["frozen_weight", "cotrain_weight"]
            self._refuse_unused(unused, "--gradient-share takes the place of a fixed weight")

    def _refuse_unused(self, names: Iterable[str], why: str) -> None:
        given = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(self) if field.name in names and getattr(self, field.name) != field.default]
        if given:
            self.refuse_without_effect(f"no effect: {', '.join(given)}, as {why}. Leave {'it' if len(given) == 1 else 'them'} out")

    def refuse_without_effect(self, message: str) -> None:
        """Raise ValueError for options without effect. A run of an earlier version that is resumed may have such, and is warned."""
        if self.resume_from_checkpoint is None or not has_results(self.output_dir):
            raise ValueError(message)
        logger.warning(message)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run: --seeds, or --seed alone."""
        return self.seeds or (self.seed,)


def arm_setup(arm: Arm, malps: Mapping[str, MaLP], config: ArmOptions, *, attributes: int = 0) -> ArmSetup:
    """The MaLP of an arm, its weights, and how it is trained.

    Args:
        malps: pretrained, by name: "malp", unless no arm needs it, and "passive" if the arm no_template is run.
        attributes: number of attributes that its real images are labelled with (`malp_disc.data.references.known_attributes`).

    Raises:
        ValueError: --conditional-realness without attributes, or a MaLP whose second branch is conditioned on another number of them.
    """
    if arm == "control":
        return ArmSetup()
    if arm == "control_2xD":
        return ArmSetup(second_discriminator_update=True)
    spec = ARM_TABLE[arm]
    with random_state_kept(seed=config.seed):
        if spec.heads:
            return _on_backbone(arm, malps.get("malp") or build_malp(config).eval(), config, attributes)
        if spec.malp == "untrained":
            malp = MaLP(malps["malp"].config.without_branch()).eval()
        else:
            malp = malps["passive" if spec.malp == "passive" else "malp"]
    if not spec.cotrained:
        return ArmSetup(malp, weight=config.frozen_weight, **_cnn_terms(config))
    dropout = 1.0 if spec.malp == "passive" else config.template_dropout
    return ArmSetup(malp, trainable=True, weight=config.cotrain_weight, template_dropout=dropout, losses=config.cotrain_losses or "light", **_cnn_terms(config))


def _cnn_terms(config: ArmOptions, *, map: float = 1.0, classifier: float = 0.0, factor: float = 1.0) -> dict[str, float]:
    """The weights of E_C's terms, `factor` times those of the flags, with these defaults."""
    asked = (map if config.map_weight is None else config.map_weight, classifier if config.classifier_weight is None else config.classifier_weight)
    return {name: factor * weight for name, weight in zip(("map_weight", "classifier_weight", "template_weight"), (*asked, config.template_weight), strict=True)}


def _on_backbone(arm: Arm, malp: MaLP, config: ArmOptions, attributes: int) -> ArmSetup:
    """An arm whose MaLP has a pretrained second branch: that of `malp` if it has one, else one with untrained heads."""
    told = attributes_told(config, attributes)
    if not malp.config.pretrained_branch:
        told = 0 if arm == "feature_map" else told
        depths = config.backbone_depths or default_depths(config.random_crop or config.image_size, config.backbone_side)
        malp = with_pretrained_branch(malp, config.backbone, weights=config.backbone_weights, side=config.backbone_side, depths=depths, labels=told)
    elif malp.config.branch_labels != told and (config.conditional_realness is not None or malp.config.branch_labels):
        raise ValueError(
            f"the second branch of the given MaLP is conditioned on {malp.config.branch_labels} attributes, where --conditional-realness {config.conditional_realness} and this data "
            f"set ask for {told}; change that flag, or give another --malp"
        )
    realness = config.realness_weight
    if realness is None:
        realness = 2.0 if malp.config.branch_labels else 1.0
    weights = {"branch_map_weight": config.branch_map_weight} if arm == "feature_map" else {"realness_weight": realness}
    if arm == "joint":
        weights |= _cnn_terms(config, map=0.0, classifier=1.0, factor=config.cotrain_weight)
        return ArmSetup(malp, trainable=True, weight=1.0, template_dropout=config.template_dropout, losses=config.cotrain_losses or "pretraining", **weights)
    return ArmSetup(malp, trainable=True, weight=1.0, map_weight=0.0, template_dropout=1.0, losses=config.cotrain_losses or "light", **weights)


def attributes_told(config: ArmOptions, attributes: int) -> int:
    """The number of attributes that a new second branch is conditioned on, for a data set whose real images are labelled with `attributes`.

    Raises:
        ValueError: they are asked for, and there are none.
    """
    if config.conditional_realness and not attributes:
        raise ValueError(
            "--conditional-realness tells the second branch the attributes of every real image, and this data set has none, or images of another domain; leave it out"
        )
    return 0 if config.conditional_realness is False else attributes


def load_given_malps(config: ArmOptions, malp: MaLP | None) -> dict[str, MaLP | None]:
    """The MaLPs that the arms need, by name; None for those that have to be pretrained first.

    Raises:
        ValueError, FileNotFoundError: a folder that is missing or can't be loaded, a passive MaLP that has a template, or invalid flags of the pretraining.
    """
    given = {"malp": malp} if malp is not None or set(config.arms) & set(AGAINST_MALP) or config.fresh_malp_steps else {}
    if "no_template" in config.arms:
        given["passive"] = load_learned_malp(config.passive_malp, "--passive-malp", branch=False) if config.passive_malp is not None else None
        if given["passive"] is not None and not given["passive"].passive:
            raise ValueError(
                f"{config.passive_malp} adds a template (strength {given['passive'].config.strength}); pretrain one with --malp-strength 0"
            )
    if None in given.values() or config.fresh_malp_steps:
        build_malp(config)
    return given
