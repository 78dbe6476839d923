"""Known damages of images, each at five rising strengths, for the study of evaluation networks in `judge_damages.py`.

Every damage takes images (B, 3, H, W) in [-1, 1], a level and a generator of random numbers, and returns images of the same shape, rounded to 8 bits.
The levels were chosen by eye on drawn faces before any distance was computed: the first is hardly visible, the third plain, the fifth coarse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from malp_disc.degradations import blurred, gaussian_blur, gaussian_noise, jpeg, to_8bit

MODERATE = 2
"""Number of the level, from 0, that is called moderate."""
_HALO_SIGMA = 2.0  # pixels
_DOT_CONTRAST = 0.5  # of the range


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        function: (images, level, generator) -> images.
        levels: five, from weak to strong.
        text: meaning and unit of a level.
    """

    function: Callable[[Tensor, float, torch.Generator], Tensor]
    levels: tuple[float, ...]
    text: str

    def __call__(self, images: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """The images, damaged to `level`."""
        return self.function(images, level, generator)


def dots(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the pixels, isolated and chosen at random, becomes lighter or darker by half of the range, as a whole."""
    b, _, h, w = images.shape
    hit = torch.rand(b, 1, h, w, generator=generator) < share
    sign = torch.where(torch.rand(b, 1, h, w, generator=generator) < 0.5, 1.0, -1.0)
    return to_8bit((images + _DOT_CONTRAST * sign * hit).clamp(-1, 1))


def halos(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Light and dark seams along edges, as after too much sharpening: `amount` times the difference to the blurred image is added."""
    return to_8bit((images + amount * (images - blurred(images, _HALO_SIGMA))).clamp(-1, 1))


def colour_cast(images: Tensor, levels: float, generator: torch.Generator) -> Tensor:
    """All images `levels` grey levels redder and as much less blue."""
    shift = torch.tensor([levels, 0.0, -levels]).view(1, 3, 1, 1) / 127.5
    return to_8bit((images + shift).clamp(-1, 1))


def haze(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Mixed with a light grey, which lowers the contrast."""
    return to_8bit((1 - share) * images + share * 0.3)


def checkerboard(images: Tensor, levels: float, generator: torch.Generator) -> Tensor:
    """A pattern that alternates from pixel to pixel, with an amplitude of `levels` grey levels."""
    h, w = images.shape[2:]
    board = 1.0 - 2 * ((torch.arange(h)[:, None] + torch.arange(w)) % 2)
    return to_8bit((images + levels / 127.5 * board).clamp(-1, 1))


def without_detail(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Mixed with its 5×5 median, which removes thin structures (strands, frames, lips, pupils) and leaves large edges sharp."""
    h, w = images.shape[2:]
    patches = F.unfold(F.pad(images, (2,) * 4, mode="reflect"), 5).view(len(images), 3, 25, h, w)
    return to_8bit(torch.lerp(images, patches.median(dim=2).values, share))


DAMAGES = {
    "blur": Damage(lambda x, level, g: gaussian_blur(x, level), (0.3, 0.5, 0.7, 1.0, 1.5), "σ of a Gaussian, pixels"),
    "noise": Damage(gaussian_noise, (1, 2, 4, 8, 16), "σ per pixel, grey levels"),
    "dots": Damage(dots, (0.001, 0.003, 0.01, 0.02, 0.04), "share of the pixels"),
    "checkerboard": Damage(checkerboard, (1, 2, 4, 8, 16), "amplitude, grey levels"),
    "halos": Damage(halos, (0.1, 0.2, 0.4, 0.8, 1.6), "amount of sharpening"),
    "colour cast": Damage(colour_cast, (2, 4, 8, 16, 24), "grey levels"),
    "haze": Damage(haze, (0.03, 0.06, 0.12, 0.25, 0.4), "share of grey"),
    "JPEG": Damage(lambda x, level, g: jpeg(x, int(level)), (95, 85, 70, 50, 30), "quality"),
    "missing detail": Damage(without_detail, (0.1, 0.2, 0.4, 0.7, 1.0), "share of the median"),
}
"""All damages of single images. Wrong edits are a damage of a set of images, see `judge_damages.wrong_edits`."""
