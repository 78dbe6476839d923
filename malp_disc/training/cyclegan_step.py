"""One step of training a CycleGAN: an update of both generators, then one of both discriminators, as in the authors' code.

    step = CycleGANStep(generators, objective, pools, average, optimizers, config, accelerator)
    terms = step(1, batches)                     # {"G/adversarial": …, "G/cycle": …, "D/of_a": …, …}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from malp_disc.training.attribute_gan_options import AttributeGANOptions
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.checkpoints import prepare_optimizer
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates


class CycleGANStep:
    """The steps of the training.

    Args:
        generators: both as one module, ``(a, b) -> images`` with the fields `fake_a` and `fake_b` (`generators.cyclegan_losses.CycleGenerators`).
        objective: the losses, with both discriminators (`CycleGANObjective` there).
        pools: "a" and "b", the `ImagePool` of each domain.
        average: moving average of the generators' weights.
        optimizers: of the generators ("G") and of the discriminators ("D").
        accelerator: prepares the networks and optimizers that are given.
    """

    def __init__(
        self,
        generators: nn.Module,
        objective: nn.Module,
        pools: nn.ModuleDict,
        average: AveragedModel,
        optimizers: dict[str, torch.optim.Optimizer],
        config: AttributeGANOptions,
        accelerator: Accelerator,
    ) -> None:
        self.generators, self.objective, self.pools, self.average = generators, objective, pools.to(accelerator.device), average
        self.config, self.accelerator = config, accelerator
        self.wrapped_generators, self.wrapped_objective = accelerator.prepare(generators, objective)
        self.g_optimizer, self.d_optimizer = (prepare_optimizer(accelerator, optimizers[name]) for name in ("G", "D"))

    def __call__(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step `number`, counted from 1, on all micro-batches. Returns the mean loss terms, by network and name."""
        factor = constant_then_linear(number - 1, self.config.max_train_steps)
        for optimizer, rate in zip((self.g_optimizer, self.d_optimizer), self.config.rates):
            set_learning_rates(optimizer, [rate * factor])
        terms, made = self.update_generators(batches)
        self.average.update_parameters(self.generators)
        return terms | self.update_discriminators(batches, made)

    def update_generators(self, batches: Sequence[Batch]) -> tuple[dict[str, Tensor], list[Any]]:
        """One update of both generators, and the images that they made, detached."""
        collected, made = [], []
        for batch in micro_batches(self.accelerator, list(batches), self.wrapped_generators):
            with self.accelerator.autocast():
                images = self.wrapped_generators(batch.images, batch.reference)
                terms = self.objective.generator_loss(images, batch.images, batch.reference)
            self.accelerator.backward(sum(terms.values()) / len(batches))
            collected.append(terms)
            made.append((images.fake_a.detach(), images.fake_b.detach()))
        self.g_optimizer.step()
        self.g_optimizer.zero_grad()
        return mean_terms("G", collected), made

    def update_discriminators(self, batches: Sequence[Batch], made: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """One update of both discriminators, on generated images that went through the pools."""
        collected = []
        for batch, (fake_a, fake_b) in micro_batches(self.accelerator, list(zip(batches, made)), self.wrapped_objective):
            fake_a, fake_b = (self.exchange(name, fake, batch) for name, fake in (("a", fake_a), ("b", fake_b)))
            with self.accelerator.autocast():
                terms = self.wrapped_objective(batch.images, fake_a, batch.reference, fake_b)
            self.accelerator.backward(sum(terms.values()) / len(batches))
            collected.append(terms)
        self.d_optimizer.step()
        self.d_optimizer.zero_grad()
        return mean_terms("D", collected)

    def exchange(self, domain: str, fakes: Tensor, batch: Batch) -> Tensor:
        """The images after the domain's pool. All processes put theirs into it, so each has the same pool, which is saved once."""
        numbers = batch.noise.uniform(2)
        together = self.pools[domain].exchange(self.accelerator.gather(fakes), self.accelerator.gather(numbers))
        first = self.accelerator.process_index * len(fakes)
        return together[first : first + len(fakes)]
