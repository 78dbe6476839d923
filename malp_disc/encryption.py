"""Encryption (paper, section 3.2.1): a template out of a learned set is added to a real image, Eq. 3 and 6."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.fakeness import check_images

PAPER_TEMPLATE_SIZE = 128
_INITIAL_DEVIATION = 0.2  # of the templates' values; with m = 0.3 an encrypted image starts near 30 dB PSNR

NO_TEMPLATE = -1  # in an index: this picture was left as it is


class Encryption(nn.Module):
    """The template set S = {S_1 … S_n} and T(I) = I + m·S_i, Eq. 6.

    Args:
        set_size: n.
        template_size: side of the square one-channel templates; 128 in the paper. At another picture size they are resampled
            (paper, section 4.3).
        strength: m, 0.3 in the paper. 0 gives a passive detector: nothing is added.

    Note:
        The paper doesn't say from what the templates start (the authors' code: uniform in [0, 1)). Here it is a normal distribution
        about 0, so that encryption doesn't begin by brightening the picture.
    """

    def __init__(self, set_size: int = 1, *, template_size: int = PAPER_TEMPLATE_SIZE, strength: float = 0.3) -> None:
        super().__init__()
        if set_size < 1:
            raise ValueError(f"expected a template set of at least 1, got {set_size}; for a passive detector give strength=0")
        if not 0 <= strength <= 1:
            raise ValueError(f"expected a template strength in [0, 1], got {strength}; the paper's is 0.3")
        self.strength = strength
        self.templates = nn.Parameter(_INITIAL_DEVIATION * torch.randn(set_size, template_size, template_size))

    @property
    def set_size(self) -> int:
        return len(self.templates)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """i = Rand(1 … n) for `count` pictures: (count,) long, counted from 0."""
        where = generator.device if generator is not None else "cpu"
        return torch.randint(self.set_size, (count,), generator=generator, device=where).to(self.templates.device)

    def at(self, size: tuple[int, int]) -> Tensor:
        """The set resampled to pictures of `size` (H, W): (n, 1, H, W)."""
        templates = self.templates.float()[:, None]
        if templates.shape[2:] == tuple(size):
            return templates
        return F.interpolate(templates, size=size, mode="bilinear", align_corners=False, antialias=True)

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """T(I), clamped to the range of pictures.

        Shapes: images (B, 3, H, W) in [-1, 1]; index (B,) long, a template's number or `NO_TEMPLATE` -> (B, 3, H, W) in [-1, 1].

        Raises:
            ValueError: wrong shapes or range, or an index outside the set.
        """
        check_images(images)
        index = self.check_index(index, len(images))
        chosen = self.at(images.shape[2:])[index.clamp(min=0)] * (index != NO_TEMPLATE).view(-1, 1, 1, 1)
        return (images.float() + self.strength * chosen).clamp(-1, 1)

    @torch.no_grad()
    def limit_(self, psnr: float) -> None:
        """Scale down in place every template that would put encrypted pictures below `psnr` dB (over the range of 2); for use after each step.

        J_T alone is a price and no limit: where the template has a lot to gain, as under degradations, it pays (16 dB were measured). Clamping
        to [-1, 1] only raises the PSNR, so pictures lie at `psnr` or above, up to resampling.
        """
        allowed = 2 * 10 ** (-psnr / 20) / self.strength if self.strength else float("inf")
        norms = self.templates.square().mean((1, 2), keepdim=True).sqrt()
        self.templates.mul_((allowed / norms.clamp(min=1e-12)).clamp(max=1))

    def check_index(self, index: Tensor, count: int) -> Tensor:
        """The index, long and on the templates' device, or a ValueError that says what is wrong with it."""
        if index.shape != (count,) or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"expected an index of {count} whole numbers, one per picture, got {index.dtype} {tuple(index.shape)}")
        index = index.to(self.templates.device, torch.long)
        if count and not (index.min() >= NO_TEMPLATE and index.max() < self.set_size):
            raise ValueError(f"expected template numbers 0 … {self.set_size - 1} (or {NO_TEMPLATE} for none), got {index.min().item()} … {index.max().item()}")
        return index
