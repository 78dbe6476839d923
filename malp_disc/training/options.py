"""The flags of a fine-tuning, and functions of them: optimizers, learning rates, names of folders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from malp_disc.backbones import DEFAULT_BACKBONE
from malp_disc.feature_branch import FeatureBranch
from malp_disc.run_folder.arms import AGAINST_MALP, COTRAINED, LEARNING_MALP, ON_BACKBONE, WITH_MALP
from malp_disc.run_folder.experiment import not_compared, of_arms
from malp_disc.training.diff_augment import Augmentation, check_augmentation
from malp_disc.training.train_options import TrainOptions

Schedule = Literal["constant", "linear", "cosine"]
CotrainLosses = Literal["light", "pretraining"]
DEFAULT_WARMUP = 50
"""Steps of the warm-up by default, where there are three times as many."""


@dataclass(kw_only=True)
class FinetuneOptions(TrainOptions):
    """Optimization, losses, and evaluation schedule of a fine-tuning against MaLP."""

    max_train_steps: int = 150
    """Number of steps of every arm. In each, the generator, its own discriminator, and a co-trained MaLP are updated once."""
    learning_rate: float = 1e-4
    """Learning rate of the generator, above 0."""
    discriminator_learning_rate: float = 2e-4
    """Learning rate of the generator's own discriminator, above 0. All optimizers start from scratch."""
    lr_scheduler: Schedule = "constant"
    """Schedule of both learning rates: constant, or falling to 0 linearly or along half a cosine."""
    lr_warmup_steps: int | None = None
    """Number of steps over which all learning rates rise linearly from 0, so that optimizers and heads that start from scratch don't throw the generator off.
    By default, 50, or a third of the steps if that is less."""
    adam_beta1: float = 0.5
    """Adam's β1 for the generator and its own discriminator, in [0, 1)."""
    adam_beta2: float = 0.999
    """Adam's β2 for the generator and its own discriminator, in [0, 1)."""
    adam_epsilon: float = 1e-8
    """Adam's ε for all networks, above 0."""
    max_grad_norm: float | None = None
    """Maximum L2 norm of each network's gradient; a longer one is scaled down. None doesn't clip."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the generator's weights, in [0, 1). The average is what is measured and saved."""
    keep_weight: float = 0.0
    """Weight of mean |G(x) - G_before(x)|, which keeps the generator close to the original one.
    Use it for generators whose own losses aren't available."""
    keep_nyquist_weight: float = 0.0
    """Weight of the same difference near the highest frequency of rows and columns, which the second branch can't see: it looks at smoothed images.
    Against a checkerboard that grows unseen in long runs."""

    map_weight: float | None = of_arms(*AGAINST_MALP, default=None)
    """Weight of the fakeness map's mean square in MaLP's loss on the generator, 0 or more (Eq. 12).
    This term and the next two are relative to their values at the first step.
    By default 1, and 0 in the arm joint."""
    classifier_weight: float | None = of_arms(*AGAINST_MALP, default=None)
    """Weight of -log P(not manipulated) by MaLP's classifier in its loss on the generator, 0 or more.
    By default 0, and 1 in the arm joint, whose second branch is trained on the same objective."""
    template_weight: float = of_arms(*AGAINST_MALP, default=0.0)
    """Weight of the template's survival, 1 - CS(S, S_R), in MaLP's loss on the generator, 0 or more."""
    frozen_weight: float = of_arms("random", "frozen", default=0.2)
    """Weight of MaLP's whole loss in the arms frozen and random, 0 or more.
    With 1, a fixed MaLP drove a generator into an adversarial checkerboard pattern in an early experiment."""
    cotrain_weight: float = of_arms(*COTRAINED, default=1.0)
    """Weight of MaLP's whole loss in the arms cotrain, no_template, from_scratch, and joint, 0 or more."""
    backbone: str = of_arms(*ON_BACKBONE, default=DEFAULT_BACKBONE, all_with="content_weight")
    """The frozen pretrained backbone of MaLP's second branch in the arms vision_aided, feature_map and joint.
    The name of a timm model, or squeezenet1_0. Don't evaluate with the same network. A MaLP that has such a branch (--malp) keeps its own."""
    backbone_weights: Path | None = of_arms(*ON_BACKBONE, default=None, all_with="content_weight")
    """Weights of --backbone, or of the one that --malp has, a state dict as timm or torchvision saves it.
    By default, the installed ones of tf_efficientnet_lite0, and timm's download for others."""
    backbone_side: int = of_arms(*ON_BACKBONE, default=128, all_with="content_weight")
    """Images whose shorter side has fewer pixels are enlarged to this for the backbone. At least 32."""
    backbone_depths: int | None = of_arms(*ON_BACKBONE, default=None)
    """Number of the backbone's feature maps that the heads look at, 1 or more: of the strides 4, 8, 16 and 32, the finest first.
    By default, 2 for images that are enlarged to --backbone-side, and otherwise 4."""
    conditional_realness: bool | None = of_arms("vision_aided", "joint", default=None)
    """Condition the second branch on the attributes that an image is meant to have, so that it rates whether the image is real with these attributes.
    By default, for data with attributes whose edits belong to the same domain. Without, edits that are hard to draw become weaker."""
    realness_weight: float | None = of_arms("vision_aided", "joint", default=None)
    """Weight of -log P(not manipulated) by the second branch in the arms vision_aided and joint, 0 or more.
    A larger one lowers the distance further, but edits become weaker (docs/results/faces.md).
    By default, 2 if it is conditioned on attributes, and 1 otherwise."""
    branch_map_weight: float = of_arms("feature_map", default=1.0)
    """Weight of the mean square of the second branch's fakeness map in the arm feature_map, 0 or more.
    It is relative to its value at the first step."""
    branch_learning_rate: float = of_arms(*ON_BACKBONE, default=4e-4)
    """Learning rate of the second branch's heads, above 0. Its schedule is that of --cotrain-lr-scheduler."""
    gradient_share: float | None = of_arms(*WITH_MALP, default=None)
    """Instead of a fixed weight, scale MaLP's loss so that its gradient has this share of the length of the generator's own, above 0.
    Both are measured at the generator's last layer. By default, the fixed weight applies."""
    cotrain_learning_rate: float = of_arms(*COTRAINED, default=1e-3)
    """Learning rate of a co-trained MaLP, above 0. The paper uses a lower one than in pretraining."""
    cotrain_lr_scheduler: Schedule = of_arms(*LEARNING_MALP, default="constant")
    """Schedule of a co-trained MaLP's learning rate: constant, or falling to 0 linearly or along half a cosine."""
    cotrain_losses: CotrainLosses | None = of_arms(*LEARNING_MALP, default=None)
    """Weights of a co-trained MaLP's own losses (Eq. 7-10).
    light: those that were best on drawn faces. pretraining: those of pretraining, with which MaLP keeps localizing edits of real faces.
    By default light, and pretraining in the arm joint."""
    template_dropout: float = of_arms(*COTRAINED, default=1.0)
    """Share of the images, in [0, 1], that get no template while MaLP is co-trained.
    MaLP's real class then consists of encrypted images (0), unprotected images (1), or a mixture."""
    r1_weight: float = of_arms(*COTRAINED, default=0.0)
    """Weight γ of the R1 gradient penalty on the real images of a co-trained MaLP, 0 or more. 0 for no penalty."""
    augmentation: tuple[Augmentation, ...] = of_arms(*WITH_MALP, default=())
    """Differentiable augmentation of all images before MaLP sees them: color, translation, or both.
    A translation needs kornia. By default, none."""

    eval_steps: int = not_compared(250)
    """Measure the Fréchet distance every this many steps, on images that the report doesn't use, and keep the best weights as best.safetensors. 0 for never.
    The report measures the last step, whatever the best one was."""
    max_skipped_steps: int = not_compared(10)
    """Maximum number of updates that are skipped because a gradient isn't finite. One more ends the run."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = not_compared(False)
    """Check everything, print what the run would do and what it needs, and stop."""

    @property
    def warmup_steps(self) -> int:
        """--lr-warmup-steps, or its default."""
        return min(DEFAULT_WARMUP, self.max_train_steps // 3) if self.lr_warmup_steps is None else self.lr_warmup_steps

    def check(self) -> None:
        """Raise ValueError for invalid flags, before any work."""
        for name in ("learning_rate", "discriminator_learning_rate", "cotrain_learning_rate", "branch_learning_rate", "adam_epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(self, name)}")
        for name in ("frozen_weight", "cotrain_weight", "branch_map_weight", "keep_weight", "keep_nyquist_weight", "eval_steps", "max_skipped_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected --{name.replace('_', '-')} of 0 or more, got {getattr(self, name)}")
        for name in ("map_weight", "classifier_weight", "template_weight", "realness_weight", "lr_warmup_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"expected --{name.replace('_', '-')} of 0 or more, got {getattr(self, name)}")
        if self.max_train_steps < 1:
            raise ValueError(f"expected --max-train-steps of at least 1, got {self.max_train_steps}")
        if self.warmup_steps >= self.max_train_steps:
            raise ValueError(
                f"expected --lr-warmup-steps below --max-train-steps {self.max_train_steps}, got {self.warmup_steps}: the run would end before its "
                "learning rate is reached"
            )
        for name in ("ema_decay", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} in [0, 1), got {getattr(self, name)}")
        for name in ("gradient_share", "max_grad_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(self, name)}; leave it out for none")
        if self.backbone_side < 32:
            raise ValueError(f"expected --backbone-side of at least 32, got {self.backbone_side}")
        if self.backbone_depths is not None and self.backbone_depths < 1:
            raise ValueError(f"expected --backbone-depths of at least 1, got {self.backbone_depths}")
        check_augmentation(self.augmentation)
        if "translation" in self.augmentation and self.template_dropout < 1:
            raise ValueError(
                "--augmentation translation also moves the templates, which MaLP recognises by their position; use it with --template-dropout 1"
            )


def make_optimizer(name: str, network: nn.Module, config: FinetuneOptions) -> torch.optim.Optimizer:
    """Adam for the generator ("G"), its own discriminator ("D"), or MaLP ("MaLP"). ``foreach`` gives the same bytes in half the time on a CPU; a fused
    kernel, faster still, made two processes differ from one by more than rounding."""
    if name == "MaLP":
        groups = network.parameter_groups(lr=config.cotrain_learning_rate, branch_lr=config.branch_learning_rate)
        if isinstance(network.malp.branch, FeatureBranch):
            groups[-1]["betas"] = (config.adam_beta1, config.adam_beta2)  # the heads learn as a GAN's discriminator does
        return torch.optim.Adam(groups, eps=config.adam_epsilon, foreach=True)
    rate = config.learning_rate if name == "G" else config.discriminator_learning_rate
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon, foreach=True)


def learning_rate_factor(config: FinetuneOptions, name: str, step: int) -> float:
    """The factor of the learning rate at `step`, counted from 0: a linear warm-up, then the schedule."""
    warmup = config.warmup_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    schedule = config.cotrain_lr_scheduler if name == "MaLP" else config.lr_scheduler
    done = (step - warmup) / max(1, config.max_train_steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def run_subdirectory(arm: str, seed: int) -> str:
    """An arm's sub-folder of arms/, curves/ and the like: ``<arm>``, or ``<seed>/<arm>`` for seeds other than 0."""
    return f"{seed}/{arm}" if seed else arm
