"""One step of training a StarGAN (Choi et al., CVPR 2018, section 4.1): a discriminator update, and every n_critic steps one of the generator.

    step = StarGANStep(generator, critic, average, optimizers, config, accelerator)
    terms = step(1, batches)                     # {"D/adversarial": …, "G/reconstruction": …, …}, those of the updates that were due
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from malp_disc.training.batches import Batch, micro_batches
from malp_disc.training.checkpoints import prepare_optimizer
from malp_disc.training.from_scratch import adam
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates
from malp_disc.training.stargan_options import StarGANOptions


class StarGANStep:
    """The steps of the training. While the generator warms up, it only learns to copy its input.

    Args:
        generator: G(images, target).
        critic: the discriminator's loss as a module, `generators.stargan_losses.StarGANCritic`.
        average: moving average of the generator's weights.
        optimizers: of the generator ("G") and of the discriminator ("D").
        accelerator: prepares the networks and optimizers that are given.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        average: AveragedModel,
        optimizers: dict[str, torch.optim.Optimizer],
        config: StarGANOptions,
        accelerator: Accelerator,
    ) -> None:
        self.generator, self.critic, self.average, self.config, self.accelerator = generator, critic, average, config, accelerator
        self.wrapped_generator, self.wrapped_critic = accelerator.prepare(generator, critic)
        self.g_optimizer, self.d_optimizer = (prepare_optimizer(accelerator, optimizers[name]) for name in ("G", "D"))

    def __call__(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Step `number`, counted from 1, on all micro-batches. Returns the losses of the last one, by network and name."""
        config = self.config
        factor = constant_then_linear(number - 1, config.max_train_steps)
        set_learning_rates(self.g_optimizer, [config.learning_rate * factor])
        set_learning_rates(self.d_optimizer, [rate * factor for rate in discriminator_rates(config)])
        copied = self.choose_copied(batches)
        terms: dict[str, Tensor] = {}
        if number - 1 >= 0.75 * config.warmup_steps:
            terms |= self.update_discriminator(batches)
        if number <= config.warmup_steps:
            terms |= self.warm_up_generator(batches)
        elif number % config.n_critic == 0:
            terms |= self.update_generator(batches, copied)
        self.average.update_parameters(self.generator)
        return terms

    def choose_copied(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Give ``identity_share`` of the images their own labels as the target; which ones, as a boolean (B,) per micro-batch."""
        copied = [batch.noise.uniform() < self.config.identity_share for batch in batches]
        for batch, chosen in zip(batches, copied):
            batch.target = torch.where(chosen[:, None], batch.labels, batch.target)
        return copied

    def update_discriminator(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Eq. 5 with WGAN-GP's penalty (Eq. 8). The generator's weights get no gradient."""
        for batch in micro_batches(self.accelerator, list(batches), self.wrapped_critic):
            with torch.no_grad(), self.accelerator.autocast():
                fake = self.generator(batch.images, batch.target)
            with self.accelerator.autocast():
                losses = self.wrapped_critic(batch.images, fake, batch.labels, batch.noise.uniform(), batch.target)
            self.accelerator.backward(losses.total / len(batches))
        self.d_optimizer.step()
        self.d_optimizer.zero_grad()
        return self._named("D", losses, ("adversarial", "classification", "penalty"))

    def warm_up_generator(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """L1 loss of G(x, own labels) to x."""
        for batch in micro_batches(self.accelerator, list(batches), self.wrapped_generator):
            with self.accelerator.autocast():
                copying = F.l1_loss(self.wrapped_generator(batch.images, batch.labels), batch.images)
            self.accelerator.backward(copying / len(batches))
        self._step_generator()
        return {"G/copying": copying.detach()}

    def update_generator(self, batches: Sequence[Batch], copied: Sequence[Tensor]) -> dict[str, Tensor]:
        """Eq. 6, plus the L1 loss to the input for images that keep their labels. The discriminator's weights get no gradient."""
        weights = self.critic.weights
        self.critic.requires_grad_(False)
        for batch, chosen in micro_batches(self.accelerator, list(zip(batches, copied)), self.wrapped_generator):
            with self.accelerator.autocast():
                fake = self.wrapped_generator(batch.images, batch.target)
                losses = self.critic.generator_losses(batch.images, fake, self.wrapped_generator(fake, batch.labels), batch.target)
                copying = ((fake - batch.images).abs().mean((1, 2, 3)) * chosen).sum() / len(fake)
            self.accelerator.backward((losses.total + weights.rec * copying) / len(batches))
        self.critic.requires_grad_(True)
        self._step_generator()
        return self._named("G", losses, ("adversarial", "classification", "reconstruction"))

    def _named(self, network: str, losses: Any, names: Sequence[str]) -> dict[str, Tensor]:
        """These terms of the losses, and the second branch's where there is one, by network and name."""
        names = (*names, "realness") if self.critic.branch is not None else names
        return {f"{network}/{name}": getattr(losses, name).detach() for name in names}

    def _step_generator(self) -> None:
        self.g_optimizer.step()
        self.g_optimizer.zero_grad()


def discriminator_optimizer(critic: nn.Module, config: StarGANOptions) -> torch.optim.Optimizer:
    """Adam for StarGAN's own discriminator and, where there is one, for the heads of MaLP's second branch."""
    parts = [critic.discriminator.parameters()]
    if critic.branch is not None:
        parts += [group["params"] for group in critic.branch.parameter_groups(lr=config.branch_learning_rate)]
    return adam([{"params": list(part), "lr": rate} for part, rate in zip(parts, discriminator_rates(config), strict=True)])


def discriminator_rates(config: StarGANOptions) -> list[float]:
    """Initial learning rates of `discriminator_optimizer`'s groups."""
    return [config.discriminator_learning_rate, config.branch_learning_rate][: 1 + bool(config.realness_weight)]
