"""One step of training an attribute editor with its own losses: a discriminator update, and every n_critic steps one of the generator.

    step = AttributeGANStep(generator, objective, average, optimizers, config, accelerator)
    terms = step(1, batches)                     # {"D/adversarial": …, "G/reconstruction": …, …}, those of the updates that were due
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.manipulate import Editor, call_manipulate
from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.training.attribute_gan_options import AttributeGANOptions
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.checkpoints import prepare_optimizer
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates


class AttributeGANStep:
    """The steps of the training.

    Args:
        generator: with ``manipulate(images, target)``, a target of its `target_kind`.
        objective: its own losses (`malp_disc.generator_objective`), with the discriminator.
        average: moving average of the generator's weights.
        optimizers: of the generator ("G") and of the discriminator ("D").
        accelerator: prepares the networks and optimizers that are given.
    """

    def __init__(
        self,
        generator: nn.Module,
        objective: nn.Module,
        average: AveragedModel,
        optimizers: dict[str, torch.optim.Optimizer],
        config: AttributeGANOptions,
        accelerator: Accelerator,
    ) -> None:
        self.generator, self.objective, self.average = generator, objective, average
        self.config, self.accelerator = config, accelerator
        self.edit, self.wrapped_objective = accelerator.prepare(Editor(generator), objective)
        self.g_optimizer, self.d_optimizer = (prepare_optimizer(accelerator, optimizers[name]) for name in ("G", "D"))

    def __call__(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step `number`, counted from 1, on all micro-batches. Returns the mean loss terms, by network and name."""
        factor = constant_then_linear(number - 1, self.config.max_train_steps)
        for optimizer, rate in zip((self.g_optimizer, self.d_optimizer), self.config.rates):
            set_learning_rates(optimizer, [rate * factor])
        terms = self.update_discriminator(batches)
        if number % self.config.critic_updates == 0:
            terms |= self.update_generator(batches)
            self.average.update_parameters(self.generator)
        return terms

    def update_discriminator(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """One update of the discriminator. The generator's weights get no gradient."""
        collected = []
        for batch in micro_batches(self.accelerator, list(batches), self.wrapped_objective):
            with torch.no_grad(), self.accelerator.autocast():
                fake = call_manipulate(self.generator.manipulate, batch.images, batch.target, current=batch.labels)
            with self.accelerator.autocast():
                terms = call_discriminator_loss(self.wrapped_objective, fake, batch)
            self.accelerator.backward(sum(terms.values()) / len(batches))
            collected.append(terms)
        self.d_optimizer.step()
        self.d_optimizer.zero_grad()
        return mean_terms("D", collected)

    def update_generator(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """One update of the generator. The discriminator's weights get no gradient."""
        collected = []
        with gradients_to_inputs_only(self.objective):
            for batch in micro_batches(self.accelerator, list(batches), self.edit):
                with self.accelerator.autocast():
                    fake = self.edit(batch.images, batch.target, batch.labels)
                    terms = call_generator_loss(self.objective, fake, batch, self.edit)
                self.accelerator.backward(sum(terms.values()) / len(batches))
                collected.append(terms)
        self.g_optimizer.step()
        self.g_optimizer.zero_grad()
        return mean_terms("G", collected)
