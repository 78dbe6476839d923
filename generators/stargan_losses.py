"""StarGAN's training losses (Choi et al., CVPR 2018, Eq. 1-8), in the WGAN-GP form of the official code.

They train the generator from scratch and remain part of the objective while it is fine-tuned against MaLP: with MaLP's loss alone it collapses or stops
editing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.runtime.input_checks import check_loss_weights
from malp_disc.runtime.second_derivative import differentiable_gradient


@dataclass(frozen=True)
class StarGANWeights:
    """λ of the paper's section 5.1 (`cls`, `rec`) and of the WGAN-GP penalty (`gp`); the paper has no `adv` and no `branch`.

    Attributes:
        gp: of the gradient penalty, which isn't computed with 0.
        adv: of the adversarial loss. With 0, D only classifies, and its penalty isn't computed.
        branch: of the loss by MaLP's pretrained second branch, if there is one.
    """

    cls: float = 1.0
    rec: float = 10.0
    gp: float = 10.0
    adv: float = 1.0
    branch: float = 1.0

    def __post_init__(self) -> None:
        check_loss_weights(self)


@dataclass
class StarGANLosses:
    """The terms by name; those that don't apply to the trained network are zero."""

    total: Tensor
    adversarial: Tensor
    classification: Tensor
    reconstruction: Tensor
    penalty: Tensor
    realness: Tensor | None = None


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy summed over attributes, averaged over images (official code; Eq. 2 and 3)."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum") / len(logits)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """E[(‖∇D(x̂)‖₂ - 1)²] on the lines between real and fake (Eq. 8); alpha (B,) in [0, 1]."""
    weight = alpha.view(-1, 1, 1, 1)
    between = (weight * real + (1 - weight) * fake).detach().requires_grad_(True)
    realness, _ = discriminator(between)
    gradient = differentiable_gradient(realness.float().sum(), between, "the WGAN-GP penalty differentiates D twice: set its weight gp to 0")
    return (gradient.float().flatten(1).norm(dim=1) - 1).square().mean()


class StarGANCritic(nn.Module):
    """The discriminator's loss (Eq. 5) as one forward pass, because DistributedDataParallel expects one forward per backward.

    forward: real (B, 3, H, W), fake of the same shape (detached), labels (B, c_dim) of the real images, alpha (B,) uniform, and target (B, c_dim) of `fake`,
    which only a branch needs that is told the attributes.

    Args:
        branch: a co-trained `MaLPDiscriminator` whose pretrained second branch also scores the images, beside D or, with ``weights.adv`` 0, in its place.
    """

    def __init__(self, discriminator: nn.Module, weights: StarGANWeights | None = None, branch: MaLPDiscriminator | None = None) -> None:
        super().__init__()
        self.discriminator, self.weights, self.branch = discriminator, weights or StarGANWeights(), branch

    def forward(self, real: Tensor, fake: Tensor, labels: Tensor, alpha: Tensor, target: Tensor | None = None) -> StarGANLosses:
        realness, logits = self.discriminator(torch.cat([real, fake]))
        on_real, on_fake = realness.float().chunk(2)
        adversarial = on_fake.mean() - on_real.mean()
        classification = attribute_loss(logits[: len(real)], labels)
        penalty = gradient_penalty(self.discriminator, real, fake, alpha) if self.weights.adv and self.weights.gp else torch.zeros_like(adversarial)
        total = self.weights.adv * adversarial + self.weights.cls * classification + self.weights.gp * penalty
        if self.branch is None:
            return StarGANLosses(total, adversarial, classification, torch.zeros_like(total), penalty)
        found = self.branch.discriminator_loss(real, real, fake, without_template(real), labels=labels, target=target)
        return StarGANLosses(total + found.total, adversarial, classification, torch.zeros_like(total), penalty, found.realness)

    def generator_losses(self, real: Tensor, fake: Tensor, reconstructed: Tensor, target: Tensor) -> StarGANLosses:
        """`generator_losses` with this discriminator and these weights, and the branch's loss."""
        losses = generator_losses(self.discriminator, real, fake, reconstructed, target, self.weights)
        if self.branch is None:
            return losses
        realness = self.branch.generator_loss(fake, without_template(fake), target).total
        return dataclasses.replace(losses, total=losses.total + self.weights.branch * realness, realness=realness)


def without_template(images: Tensor) -> Tensor:
    """The index (B,) of images that carry no template."""
    return torch.full((len(images),), NO_TEMPLATE, device=images.device)


def generator_losses(
    discriminator: nn.Module, real: Tensor, fake: Tensor, reconstructed: Tensor, target: Tensor, weights: StarGANWeights | None = None
) -> StarGANLosses:
    """The generator's loss (Eq. 6): adversarial, domain classification, and reconstruction. Pass the unwrapped discriminator; gradients reach
    only `fake` and `reconstructed`, none is left in D."""
    weights = weights or StarGANWeights()
    with gradients_to_inputs_only(discriminator):
        realness, logits = discriminator(fake)
    adversarial = -realness.float().mean()
    classification = attribute_loss(logits, target)
    reconstruction = (real - reconstructed).float().abs().mean()
    total = weights.adv * adversarial + weights.cls * classification + weights.rec * reconstruction
    return StarGANLosses(total, adversarial, classification, reconstruction, torch.zeros_like(total))


class StarGANObjective(nn.Module):
    """StarGAN's losses in the interface of `malp_disc/training/finetune.py`: D's from `forward`, G's from `generator_loss`; weighted terms by name.

    Both expect a batch with `images`, `labels`, `target` and the random numbers `noise`.
    """

    def __init__(self, discriminator: nn.Module, weights: StarGANWeights | None = None) -> None:
        super().__init__()
        self.discriminator, self.weights = discriminator, weights or StarGANWeights()

    def forward(self, fake: Tensor, batch: Any) -> dict[str, Tensor]:
        critic = StarGANCritic(self.discriminator, self.weights)
        losses = critic(batch.images, fake, batch.labels, batch.noise.uniform())
        return {
            "adversarial": self.weights.adv * losses.adversarial,
            "classification": self.weights.cls * losses.classification,
            "penalty": self.weights.gp * losses.penalty,
        }

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        losses = generator_losses(self.discriminator, batch.images, fake, edit(fake, batch.labels, batch.target), batch.target, self.weights)
        return {
            "adversarial": self.weights.adv * losses.adversarial,
            "classification": self.weights.cls * losses.classification,
            "reconstruction": self.weights.rec * losses.reconstruction,
        }
