"""Example losses for generators that have none of their own: `accelerate launch recipes/finetune.py --losses generators.example_losses:super_resolution`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from generators.patchgan import PatchDiscriminator
from malp_disc.runtime.freezing import gradients_to_inputs_only


class ContentLoss(nn.Module):
    """Content loss, weight · mean |G(x) - x|: for generators whose output should equal the input, such as super-resolution of a downsampled image
    (SRGAN's content loss with L1). No parameters."""

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        self.weight = weight

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        return {"content": self.weight * (fake - batch.images).abs().mean()}


class IdentityLoss(nn.Module):
    """CycleGAN's identity loss, weight · mean |G(y) - y| for images y of the target domain (Zhu et al., ICCV 2017, section 5.2): what looks as it should already stays.

    It needs no other network, so it is at hand where only the generator was published. No parameters. The images of the target domain are the batch's
    references (`--reference-root`).

    Raises:
        ValueError: a batch without references.
    """

    def __init__(self, weight: float = 5.0) -> None:
        super().__init__()
        self.weight = weight

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        if batch.reference is None:
            raise ValueError("the identity loss needs images of the target domain; give their folder as --reference-root")
        return {"identity": self.weight * (edit(batch.reference, batch.target, batch.target) - batch.reference).abs().mean()}


class PatchAdversary(nn.Module):
    """A PatchGAN in least-squares form (LSGAN, Mao et al., ICCV 2017; PatchGAN: Isola et al., CVPR 2017), trained with the generator, and its generator loss.

    Real images are the batch's references (`--reference-root`), or its images where there are none. Instance norm is per image, so that two processes do
    what one does.
    """

    def __init__(self, weight: float = 1.0, width: int = 32) -> None:
        super().__init__()
        self.weight, self.discriminator = weight, PatchDiscriminator(ndf=width, norm="instance")

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        with gradients_to_inputs_only(self.discriminator):
            return {"adversarial": self.weight * (self.discriminator(fake).float() - 1).square().mean()}

    def forward(self, fake: Tensor, batch: Any) -> dict[str, Tensor]:
        real = batch.images if batch.reference is None else batch.reference
        on_real, on_fake = self.discriminator(real).float(), self.discriminator(fake).float()
        return {"real": (on_real - 1).square().mean() / 2, "fake": on_fake.square().mean() / 2}


def super_resolution() -> ContentLoss:
    """Losses for `fast_srgan`, `esrgan` and `real_esrgan`: the output should equal the image."""
    return ContentLoss()


def identity() -> IdentityLoss:
    """The identity loss of a generator for image-to-image translation, such as `cyclegan` and `cyclegan_compressed`, with the weight of CycleGAN's authors."""
    return IdentityLoss()


def translation() -> PatchAdversary:
    """Losses for image-to-image translation (`cyclegan`, `cartoongan` …): an adversarial loss with the reference images as real."""
    return PatchAdversary()
