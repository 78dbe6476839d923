"""The flags of a fine-tuning, and what follows from them alone: optimizers, learning rates, names of files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from malp_disc.run_folder.experiment import not_compared, of_arms
from malp_disc.training.diff_augment import Augmentation, check_augmentation
from malp_disc.training.train_options import TrainOptions

Schedule = Literal["constant", "linear", "cosine"]
COTRAINED = ("cotrain", "passive", "scratch", "joint")
"""The arms in which MaLP learns along."""
AGAINST_MALP = ("random", "frozen", *COTRAINED)
"""The arms that are trained against a MaLP at all."""


@dataclass(kw_only=True)
class FinetuneOptions(TrainOptions):
    """How a generator is fine-tuned against MaLP."""

    max_train_steps: int = 250
    """Steps of every arm; each is one update of G's own D, of G, and of MaLP where it learns along."""
    learning_rate: float = 1e-4
    """Of G."""
    discriminator_learning_rate: float = 4e-4
    """Of G's own discriminator. All optimizers start fresh."""
    lr_scheduler: Schedule = "constant"
    """How both fall to 0 over the steps."""
    lr_warmup_steps: int = 0
    """Steps in which all rates rise from 0."""
    adam_beta1: float = 0.5
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float | None = None
    """Longest gradient of a network's step; longer ones are shortened."""
    ema_decay: float = 0.99
    """Of the moving average of G, which is what is measured and saved."""
    keep_weight: float = 0.0
    """Weight of mean |G(x) - G_before(x)|, which holds G near the generator it was; for generators whose own losses aren't at hand."""

    map_weight: float = of_arms(*AGAINST_MALP, default=1.0)
    """MaLP's loss on G: the fakeness map shall be zero. Parts are relative to their value at step 0."""
    classifier_weight: float = of_arms(*AGAINST_MALP, default=0.0)
    """… : the classifier shall say real."""
    template_weight: float = of_arms(*AGAINST_MALP, default=0.0)
    """… : the template shall survive."""
    frozen_weight: float = of_arms("random", "frozen", default=0.2)
    """Of the whole in the arms frozen and random. At 1 a fixed MaLP draws an adversarial checkerboard (measured in a prototype)."""
    cotrain_weight: float = of_arms(*COTRAINED, default=1.0)
    """Of the whole in the arms cotrain and passive."""
    aided_weight: float = of_arms("aided", "joint", default=1.0)
    """Of the feature discriminator's loss in the arms aided and joint."""
    aided_map_weight: float = of_arms("aided_map", default=200.0)
    """The same in the arm aided_map, whose gradients are smaller: a map is small nearly everywhere."""
    gradient_share: float | None = of_arms(*AGAINST_MALP, default=None)
    """Instead of a fixed weight: keep MaLP's gradient at this share of the length of G's own, at G's last layer."""
    cotrain_learning_rate: float = of_arms(*COTRAINED, default=1e-3)
    """Of MaLP where it learns along. The paper: lower than in pretraining."""
    cotrain_lr_scheduler: Schedule = of_arms(*COTRAINED, default="constant")
    """How it falls to 0."""
    cotrain_losses: Literal["light", "pretraining"] = of_arms(*COTRAINED, default="light")
    """By which weights of its own losses: those that were best on drawn faces, or those of its pretraining, with which it holds on to G on real ones."""
    template_dropout: float = of_arms(*COTRAINED, default=1.0)
    """What MaLP takes for real while it learns along: 0 encrypted images, 1 clean ones, between them a mixture."""
    malp_scales: tuple[int, ...] = of_arms(*COTRAINED, default=(1,))
    """How many times smaller MaLP sees the images while it is co-trained; 1 2 4 shows it structure too."""
    r1_weight: float = of_arms(*COTRAINED, default=0.0)
    """Of the gradient penalty R1 on those; 0 for none."""
    augmentation: tuple[Augmentation, ...] = of_arms(*AGAINST_MALP, "aided", "aided_map", default=())
    """What happens to all images before MaLP sees them: color, translation. Needs kornia."""

    eval_steps: int = not_compared(125)
    """Measure the Fréchet distance on the way every so many steps, and keep the best; 0 for never."""
    max_skipped_steps: int = not_compared(10)
    """How many steps whose gradient isn't finite are skipped before the run gives up."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = not_compared(False)
    """Say what would be done, and do nothing."""

    def check(self) -> None:
        """Raise ValueError for what can't be, before any work."""
        for name in ("learning_rate", "discriminator_learning_rate", "cotrain_learning_rate", "adam_epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(self, name)}")
        for name in ("frozen_weight", "cotrain_weight", "aided_weight", "aided_map_weight", "keep_weight", "eval_steps", "max_skipped_steps", "lr_warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected --{name.replace('_', '-')} of 0 or more, got {getattr(self, name)}")
        for name in ("ema_decay", "adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"expected --{name.replace('_', '-')} in [0, 1), got {getattr(self, name)}")
        for name in ("gradient_share", "max_grad_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(self, name)}; leave it out for none")
        if not self.malp_scales or min(self.malp_scales) < 1:
            raise ValueError(f"expected --malp-scales of 1 or more, got {list(self.malp_scales)}")
        if tuple(self.malp_scales) != (1,) and self.template_dropout < 1:
            raise ValueError("--malp-scales shows MaLP smaller images, which no template survives; use it with --template-dropout 1")
        check_augmentation(self.augmentation)
        if "translation" in self.augmentation and self.template_dropout < 1:
            raise ValueError(
                "--augmentation translation moves the templates too, which MaLP knows by their place; use it with --template-dropout 1"
            )


def make_optimizer(name: str, network: nn.Module, config: FinetuneOptions) -> torch.optim.Optimizer:
    """Adam for G, its own discriminator, or MaLP."""
    if name == "MaLP":
        return torch.optim.Adam(network.parameter_groups(lr=config.cotrain_learning_rate), eps=config.adam_epsilon)
    rate = config.learning_rate if name == "G" else config.discriminator_learning_rate
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon)


def learning_rate_factor(config: FinetuneOptions, name: str, step: int) -> float:
    """What the learning rate is multiplied with at `step`, counted from 0: a warm-up, then the schedule down to 0."""
    if step < config.lr_warmup_steps:
        return (step + 1) / (config.lr_warmup_steps + 1)
    schedule = config.cotrain_lr_scheduler if name == "MaLP" else config.lr_scheduler
    done = (step - config.lr_warmup_steps) / max(1, config.max_train_steps - config.lr_warmup_steps)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def run_subdirectory(arm: str, seed: int) -> str:
    """Where an arm's files lie below the folder of their kind: ``<arm>``, or ``<seed>/<arm>`` where the seed isn't 0."""
    return f"{seed}/{arm}" if seed else arm
