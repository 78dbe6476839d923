"""One step of training a localizer: the fixed generator edits, and the method learns from the pairs. A test can call every part by itself.

    step = LocalizerStep(method, LossOf(method), optimizer, generator, config, accelerator, base_rate=1e-4, attribute_names=("Smiling",))
    terms = step(1, batches)                     # {"localizer/total": …, "localizer/map": …}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from malp_disc.fakeness import fakeness_map
from malp_disc.manipulate import call_manipulate
from malp_disc.metrics.degradations import random_degradation, to_8bit
from malp_disc.metrics.editing import one_attribute_targets
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates
from malp_disc.training.localizer_options import LocalizerOptions


class LossOf(nn.Module):
    """A method's `losses` as a forward pass, so that DistributedDataParallel and autocast can wrap it."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, real: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        if index is None:
            return self.method.losses(real, manipulated, truth)
        return self.method.losses(real, manipulated, truth, index=index)


class Pairs(NamedTuple):
    """What a method learns from."""

    real: Tensor
    """Originals as published, (B, 3, H, W): encrypted by a proactive method, with gradients to its templates."""
    manipulated: Tensor
    """The generator's edits of them, (B, 3, H, W) in [-1, 1]."""
    truth: Tensor
    """M_GT, (B, 1, H, W) in [0, 1]: Eq. 2 for a passive method, Eq. 5 for a proactive one."""
    index: Tensor | None
    """Numbers of the templates that were added, (B,); None for a passive method."""


class LocalizerStep:
    """The steps of a training, each one update of the method.

    Args:
        method: the method to train.
        wrapped: `LossOf` it, as Accelerate prepared it.
        generator: the fixed generator, with ``manipulate(images, target)``.
        base_rate: learning rate before the schedule.
        attribute_names: of the data set's labels.
    """

    def __init__(
        self,
        method: nn.Module,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: nn.Module,
        config: LocalizerOptions,
        accelerator: Accelerator,
        *,
        base_rate: float,
        attribute_names: Sequence[str],
    ) -> None:
        self.method, self.wrapped, self.optimizer, self.generator = method, wrapped, optimizer, generator
        self.config, self.accelerator, self.base_rate, self.attribute_names = config, accelerator, base_rate, tuple(attribute_names)

    def __call__(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step `number`, counted from 1: one optimizer step on all micro-batches. Returns the mean terms of the loss."""
        rate = self.base_rate * constant_then_linear(number - 1, self.config.max_train_steps)
        set_learning_rates(self.optimizer, [rate] * len(self.optimizer.param_groups))
        collected = []
        for batch in micro_batches(self.accelerator, batches, self.wrapped):
            terms = self.losses(batch)
            total = sum(terms.values())
            self.accelerator.backward(total / len(batches))
            collected.append({"total": total, **terms})
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean_terms("localizer", collected)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the method's loss; no weight changes. The random numbers are drawn from the batch in a fixed order."""
        batch.noise.seed_dropout()
        pairs = self.pairs(batch)
        dice = batch.noise.uniform(4)[0].tolist()
        change = random_degradation(dice[1:]) if dice[0] < self.config.degradation else to_8bit
        real, manipulated = (self.augmented(as_file(images, change), batch) for images in (pairs.real, pairs.manipulated))
        return self.wrapped(real, manipulated, pairs.truth, *([] if pairs.index is None else [pairs.index]))

    def pairs(self, batch: Batch) -> Pairs:
        """Originals as published, their edits, and the truth."""
        published, index = batch.images.clamp(-1, 1), None
        if set_size := getattr(self.method, "set_size", 0):
            index = batch.noise.integers(set_size)
            published = self.method.encrypt(published, index)
        manipulated = self.edit(published.detach(), batch)
        return Pairs(published, manipulated, fakeness_map(batch.images.clamp(-1, 1), manipulated), index)

    @torch.no_grad()
    def edit(self, images: Tensor, batch: Batch) -> Tensor:
        """G(images), with the batch's targets or edits of ``edit_attribute`` alone, in [-1, 1]."""
        target = batch.target
        if self.config.edit_attribute is not None:
            target = one_attribute_targets(batch.labels, self.attribute_names, self.config.edit_attribute)
        with self.accelerator.autocast():
            return call_manipulate(self.generator.manipulate, images, target).clamp(-1, 1)

    def augmented(self, images: Tensor, batch: Batch) -> Tensor:
        """The images after the method's own augmentation, if it has one."""
        count = getattr(self.method, "numbers", 0)
        return self.method.augment(images, batch.noise.uniform(count)) if count else images


def as_file(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images after `change`, which rounds to 8 bits; gradients pass as if nothing had changed.

    Without rounding, a method could tell originals, which lie on the 8-bit grid, from generated images by that alone, and would fail on files.
    """
    return images + (change(images.detach()) - images).detach()
