"""CycleGAN's training losses (Zhu, Park, Isola and Efros, ICCV 2017, Eq. 1-3 and section 5.2), and its pool of past images.

The adversarial loss is the least-squares one of LSGAN (Mao et al., ICCV 2017), as in section 4 of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.runtime.input_checks import check_loss_weights


@dataclass(frozen=True)
class CycleGANWeights:
    """λ of Eq. 3 for the cycle, and the weight of the identity loss: 0.5 λ in section 5.2, which some of the paper's experiments leave out."""

    cycle: float = 10.0
    identity: float = 5.0

    def __post_init__(self) -> None:
        check_loss_weights(self)


class CycleImages(NamedTuple):
    """What both generators make of images a and b; each (B, 3, H, W)."""

    fake_b: Tensor  # G(a)
    back_a: Tensor  # F(G(a))
    fake_a: Tensor  # F(b)
    back_b: Tensor  # G(F(b))
    same_b: Tensor | None  # G(b), only for the identity loss
    same_a: Tensor | None  # F(a)


class CycleGenerators(nn.Module):
    """Both generators in one forward pass, as DistributedDataParallel expects: `forth` is the paper's G, from domain A to B, `back` its F."""

    def __init__(self, forth: nn.Module, back: nn.Module, *, identity: bool = True) -> None:
        super().__init__()
        self.forth, self.back, self.identity = forth, back, identity

    def forward(self, a: Tensor, b: Tensor) -> CycleImages:
        fake_b, fake_a = self.forth(a), self.back(b)
        same = (self.forth(b), self.back(a)) if self.identity else (None, None)
        return CycleImages(fake_b, self.back(fake_b), fake_a, self.forth(fake_a), *same)


class CycleGANObjective(nn.Module):
    """CycleGAN's losses: those of both discriminators from `forward`, those of both generators from `generator_loss`; weighted terms by name.

    Args:
        of_a, of_b: D(x) -> a map of logits, of each domain's images, such as `generators.patchgan.PatchDiscriminator`.
    """

    def __init__(self, of_a: nn.Module, of_b: nn.Module, weights: CycleGANWeights | None = None) -> None:
        super().__init__()
        self.of_a, self.of_b, self.weights = of_a, of_b, weights or CycleGANWeights()

    def forward(self, a: Tensor, fake_a: Tensor, b: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        """Each discriminator's ½ E[(D(real) - 1)²] + ½ E[D(fake)²]; half of LSGAN's, so that D learns more slowly than G (section 4)."""
        return {
            name: (least_squares(discriminator(real), 1.0) + least_squares(discriminator(fake), 0.0)) / 2
            for name, discriminator, real, fake in (("of_a", self.of_a, a, fake_a), ("of_b", self.of_b, b, fake_b))
        }

    def generator_loss(self, images: CycleImages, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Eq. 3 with least squares, and the identity loss."""
        with gradients_to_inputs_only(self):
            adversarial = least_squares(self.of_b(images.fake_b), 1.0) + least_squares(self.of_a(images.fake_a), 1.0)
        terms = {"adversarial": adversarial, "cycle": self.weights.cycle * (l1(images.back_a, a) + l1(images.back_b, b))}
        if images.same_b is not None:
            terms["identity"] = self.weights.identity * (l1(images.same_b, b) + l1(images.same_a, a))
        return terms


def least_squares(values: Tensor, wanted: float) -> Tensor:
    """E[(D - wanted)²]."""
    return (values.float() - wanted).square().mean()


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (x - y).float().abs().mean()


class ImagePool(nn.Module):
    """The last generated images, from which the discriminators are updated (section 4; Shrivastava et al., CVPR 2017): half of them are earlier ones.

    A module, so that its content is part of the checkpoints.

    Args:
        size: number of images kept, 50 in the paper. 0 keeps none.
        side: of the images in pixels.
    """

    images: Tensor
    filled: Tensor

    def __init__(self, side: int, size: int = 50) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, 3, side, side))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def exchange(self, fakes: Tensor, numbers: Tensor) -> Tensor:
        """Put images in and take as many out: while the pool isn't full the same ones, afterwards each with probability ½ a random one, whose place it takes.

        Args:
            fakes: (B, 3, side, side).
            numbers: uniform in [0, 1), (B, 2): whether to exchange, and the place.
        """
        size = len(self.images)
        if not size:
            return fakes
        out = fakes.clone()
        for i, (coin, place) in enumerate(numbers.tolist()):
            if int(self.filled) < size:
                self.images[int(self.filled)] = fakes[i]
                self.filled += 1
            elif coin < 0.5:
                index = min(int(place * size), size - 1)
                out[i] = self.images[index]
                self.images[index] = fakes[i]
        return out
