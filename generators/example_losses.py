"""Own losses for generators that come without any, to start from: `accelerate launch recipes/finetune.py --losses generators.example_losses:super_resolution`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from generators.patchgan import PatchDiscriminator
from malp_disc.freezing import gradients_to_inputs_only


class ContentLoss(nn.Module):
    """Weight times mean |G(x) - x|: for a generator that is to give the image back, as super-resolution of its small version is (the L1 form of SRGAN's
    content loss). Nothing of it learns."""

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        self.weight = weight

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        return {"content": self.weight * (fake - batch.images).abs().mean()}


class PatchAdversary(nn.Module):
    """A PatchGAN in least-squares form (LSGAN, Mao et al., ICCV 2017; PatchGAN: Isola et al., CVPR 2017), learning along, and what it thinks of G's images.

    Real images are the batch's references (`--reference-root`), or its images where there are none. Instance norm is per image, so that two processes do
    what one does.
    """

    def __init__(self, weight: float = 1.0, width: int = 32) -> None:
        super().__init__()
        self.weight, self.discriminator = weight, PatchDiscriminator(ndf=width, norm="instance")

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        with gradients_to_inputs_only(self.discriminator):
            return {"adversarial": self.weight * (self.discriminator(fake).float() - 1).square().mean()}

    def forward(self, fake: Tensor, batch: Any) -> dict[str, Tensor]:
        real = batch.images if batch.reference is None else batch.reference
        on_real, on_fake = self.discriminator(real).float(), self.discriminator(fake).float()
        return {"real": (on_real - 1).square().mean() / 2, "fake": on_fake.square().mean() / 2}


def super_resolution() -> ContentLoss:
    """For `fast_srgan`, `esrgan`, `real_esrgan`: stay true to the image."""
    return ContentLoss()


def translation() -> PatchAdversary:
    """For generators into another domain (`cyclegan`, `cartoongan` …): look like the references."""
    return PatchAdversary()
