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

from malp_disc.degradation_chain import DRAWS, straight_through
from malp_disc.degradations import random_degradation, to_8bit
from malp_disc.fakeness import fakeness_map
from malp_disc.manipulate import call_manipulate
from malp_disc.metrics.editing import one_attribute_targets
from malp_disc.runtime.input_checks import without_value_checks
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates
from malp_disc.training.local_pairs import EDIT_DRAWS, chains, needs_generator, through_chains, with_local_edits
from malp_disc.training.localizer_options import LocalizerOptions


class LossOf(nn.Module):
    """A method's `losses` as a forward pass, so that DistributedDataParallel and autocast can wrap it."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, real: Tensor, manipulated: Tensor, truth: Tensor, **options: Tensor) -> dict[str, Tensor]:
        return self.method.losses(real, manipulated, truth, **options)


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
    edited: Tensor | None = None
    """Edited regions, (B, 1, H, W) of bool, for a method that `takes_regions`; None for others."""
    draws: Tensor | None = None
    """Random numbers in [0, 1) for the method's losses, (B, its `loss_draws`); None for a method that draws none."""

    @property
    def options(self) -> dict[str, Tensor]:
        """The further arguments of the method's `losses`."""
        return {name: value for name in ("index", "edited", "draws") if (value := getattr(self, name)) is not None}


class LocalizerStep:
    """The steps of a training, each one update of the method.

    Args:
        method: the method to train.
        wrapped: `LossOf` it, as Accelerate prepared it.
        generator: the fixed generator, with ``manipulate(images, target)``.
        base_rate: learning rate before the schedule.
        attribute_names: of the data set's labels.
        exclusive: those of which an edit must leave exactly one (`malp_disc.target_kind.exclusive_names`), or None.
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
        exclusive: Sequence[str] | None = None,
    ) -> None:
        self.method, self.wrapped, self.optimizer, self.generator = method, wrapped, optimizer, generator
        self.config, self.accelerator, self.base_rate = config, accelerator, base_rate
        self.attribute_names, self.exclusive = tuple(attribute_names), exclusive

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
        if self.config.degradation_chain:  # `pairs` has applied it
            return self.loss_of(pairs.real, pairs.manipulated, pairs)
        draws = batch.noise.uniform(4, device="cpu")[0].tolist()
        change = random_degradation(draws[1:]) if draws[0] < self.config.degradation else to_8bit
        real, manipulated = (self.augmented(as_file(images, change), batch) for images in (pairs.real, pairs.manipulated))
        return self.loss_of(real, manipulated, pairs)

    def loss_of(self, real: Tensor, manipulated: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        """The terms of the method's loss on these versions of the pairs."""
        with without_value_checks():  # `pairs` has looked at the images
            return self.wrapped(real, manipulated, pairs.truth, **pairs.options)

    def pairs(self, batch: Batch) -> Pairs:
        """Originals as published, their edits, and the truth. With a degradation chain, both as they arrive: degraded before the edit or after it."""
        originals = batch.images.clamp(-1, 1)
        published, index = originals, None
        if set_size := getattr(self.method, "set_size", 0):
            index = batch.noise.integers(set_size)
            published = self.method.encrypt(published, index)
        degrade = None
        if self.config.degradation_chain:
            draws = batch.noise.uniform(DRAWS + 2, device="cpu")
            used, before = draws[:, DRAWS] < self.config.degradation, draws[:, DRAWS + 1] < 0.5
            degrade = chains(draws[:, :DRAWS])
            published = straight_through(published, lambda images: through_chains(images, degrade, used & before))
        edited = None
        if self.config.local_edits or getattr(self.method, "takes_regions", False):
            draws, share = batch.noise.uniform(EDIT_DRAWS, device="cpu"), self.config.local_edits
            generated, rows = published.detach().clone(), needs_generator(draws, share)
            if len(rows):
                generated[rows] = self.edit(generated[rows], batch, rows)
            manipulated, edited = with_local_edits(published.detach(), originals, generated, draws, share)
        else:
            manipulated = self.edit(published.detach(), batch)
        truth = fakeness_map(originals, manipulated)
        if degrade is not None:
            published = straight_through(published, lambda images: through_chains(images, degrade, used & ~before))
            manipulated = through_chains(manipulated, degrade, used & ~before)
        count = getattr(self.method, "loss_draws", 0)
        regions = edited if getattr(self.method, "takes_regions", False) else None
        return Pairs(published, manipulated, truth, index, regions, batch.noise.uniform(count) if count else None)

    @torch.no_grad()
    def edit(self, images: Tensor, batch: Batch, rows: Tensor | slice = slice(None)) -> Tensor:
        """G(images), with the batch's targets or edits of ``edit_attribute`` alone, in [-1, 1]; `rows` of the batch that the images are."""
        manipulate, target, labels = self.generator.manipulate, batch.target[rows], batch.labels[rows]
        if self.config.edit_attribute is not None:
            target = one_attribute_targets(labels, self.attribute_names, self.config.edit_attribute, exclusive=self.exclusive)
        with self.accelerator.autocast():
            return call_manipulate(manipulate, images, target, current=labels).clamp(-1, 1)

    def augmented(self, images: Tensor, batch: Batch) -> Tensor:
        """The images after the method's own augmentation, if it has one."""
        count = getattr(self.method, "numbers", 0)
        return self.method.augment(images, batch.noise.uniform(count)) if count else images


def as_file(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images after `change`, which rounds to 8 bits; gradients pass as if nothing had changed.

    Without rounding, a method could tell originals, which lie on the 8-bit grid, from generated images by that alone, and would fail on files.
    """
    return straight_through(images, change)
