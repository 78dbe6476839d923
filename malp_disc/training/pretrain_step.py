"""One step of pretraining (Eq. 11): encrypt, let the fixed generator edit, and update MaLP. A test can call every part by itself.

    step = PretrainStep(disc, disc, optimizer, generator, config, accelerator, base_rates=(1e-3, 5e-3), attribute_names=("Smiling",))
    terms = step(1, batches)                     # {"MaLP/total": …, "MaLP/template": …, …}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from malp_disc.degradations import random_degradation
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import MaLPLosses
from malp_disc.manipulate import call_manipulate
from malp_disc.metrics.editing import one_attribute_targets
from malp_disc.runtime.input_checks import check_images, without_value_checks
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates
from malp_disc.training.pretrain_options import PretrainOptions

_TERMS = ("total", "template", "localization", "recovery", "classification")


class PretrainStep:
    """The steps of a pretraining, each one update of MaLP's networks and templates.

    Args:
        discriminator: the MaLP to train, co-trainable.
        wrapped: the same as Accelerate prepared it; `discriminator` itself in a single process.
        optimizer: of ``discriminator.parameter_groups``: the networks, the templates, and the heads of a pretrained second branch.
        generator: the fixed generator, with ``manipulate(images, target)``.
        base_rates: learning rates of these groups, before the schedule.
        attribute_names: of the data set's labels.
        exclusive: those of which an edit must leave exactly one (`malp_disc.target_kind.exclusive_names`), or None.
    """

    def __init__(
        self,
        discriminator: MaLPDiscriminator,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: nn.Module,
        config: PretrainOptions,
        accelerator: Accelerator,
        *,
        base_rates: Sequence[float],
        attribute_names: Sequence[str],
        exclusive: Sequence[str] | None = None,
    ) -> None:
        self.discriminator, self.wrapped, self.optimizer, self.generator = discriminator, wrapped, optimizer, generator
        self.config, self.accelerator, self.base_rates = config, accelerator, tuple(base_rates)
        self.attribute_names, self.exclusive = tuple(attribute_names), exclusive

    def __call__(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step `number`, counted from 1: one optimizer step on all micro-batches. Returns the mean terms of the loss."""
        set_learning_rates(self.optimizer, learning_rates(self.config, self.base_rates, number - 1))
        collected = []
        for batch in micro_batches(self.accelerator, batches, self.wrapped):
            losses = self.losses(batch)
            self.accelerator.backward(losses.total / len(batches))
            collected.append({name: getattr(losses, name) for name in _TERMS})
        self.optimizer.step()
        self.discriminator.malp.encryption.limit_(self.config.malp_least_psnr)
        self.optimizer.zero_grad()
        return mean_terms("MaLP", collected)

    def losses(self, batch: Batch) -> MaLPLosses:
        """J of Eq. 11 on T(I) and G(T(I)), perhaps degraded; no weight changes. The random numbers are drawn from the batch in a fixed order."""
        batch.noise.seed_dropout()  # of MaLP's transformer branch
        with without_value_checks():  # the loader has looked at the images
            encrypted, index = self.encrypt(batch)
        draws = batch.noise.uniform(4, device="cpu")[0].tolist()
        fake = self.edit(encrypted, batch)
        check_images(fake, "fake")
        degradation = random_degradation(draws[1:]) if draws[0] < self.config.malp_degradation else None
        with without_value_checks():
            return self.wrapped(batch.images, encrypted, fake, index, degradation=degradation)

    def encrypt(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """T(I) (B, 3, H, W) and the index (B,) of each image's template, -1 for the share ``malp_template_dropout`` without one."""
        index = batch.noise.integers(self.discriminator.malp.encryption.set_size)
        if self.config.malp_template_dropout:
            index = torch.where(batch.noise.uniform() < self.config.malp_template_dropout, NO_TEMPLATE, index)
        return self.discriminator.encrypt(batch.images, index)

    def edit(self, encrypted: Tensor, batch: Batch) -> Tensor:
        """G(T(I)), with the batch's targets or edits of ``malp_attribute`` alone; with gradients only where the templates get some through G."""
        manipulate, target = self.generator.manipulate, batch.target
        if self.config.malp_attribute is not None:
            target = one_attribute_targets(batch.labels, self.attribute_names, self.config.malp_attribute, exclusive=self.exclusive)
        with torch.set_grad_enabled(self.discriminator.generator_gradient != "none"), self.accelerator.autocast():
            return call_manipulate(manipulate, encrypted, target, current=batch.labels)


def learning_rates(config: PretrainOptions, base_rates: Sequence[float], step: int) -> tuple[float, ...]:
    """Learning rates at `step`, counted from 0: of the networks, the templates, and, with a pretrained second branch, its heads.

    All are constant for the first half of the steps and then fall linearly to 0; that of the templates is 0 until ``malp_template_delay`` is over.
    """
    networks, templates, *heads = (rate * constant_then_linear(step, config.max_train_steps) for rate in base_rates)
    return networks, 0.0 if step < config.malp_template_delay * config.max_train_steps else templates, *heads
