"""Encryption (paper, section 3.2.1): adds a template of a learned set to a real image, Eq. 3 and 6."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_batches, check_images, looks_at_values
from malp_disc.runtime.precision import full_precision
from malp_disc.runtime.transfer import to_device

PAPER_TEMPLATE_SIZE = 128
_INITIAL_DEVIATION = 0.2  # of the templates' initial values; with m = 0.3 the initial PSNR of encrypted images is about 30 dB

_WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

NO_TEMPLATE = -1  # in an index: an unprotected image


class Encryption(Float32Module):
    """The template set S = {S_1 … S_n} and T(I) = I + m·S_i, Eq. 6, always in float32.

    Args:
        set_size: n.
        template_size: side of the square one-channel templates; 128 in the paper. For other image sizes they are resampled
            (paper, section 4.3).
        strength: m, 0.3 in the paper. 0 gives a passive detector: nothing is added.

    Note:
        The paper doesn't give the initialization of the templates (the authors' code: uniform in [0, 1)). Here it is a normal distribution
        with mean 0, so that initially encryption doesn't brighten the image.
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
        """i = Rand(1 … n) for `count` images: (count,) long in 0 … n - 1."""
        where = generator.device if generator is not None else "cpu"
        return to_device(torch.randint(self.set_size, (count,), generator=generator, device=where), self.templates.device)

    def at(self, size: tuple[int, int]) -> Tensor:
        """The template set resampled to `size` (H, W): (n, 1, H, W)."""
        templates = self.templates.float()[:, None]
        if templates.shape[2:] == tuple(size):
            return templates
        return F.interpolate(templates, size=size, mode="bilinear", align_corners=False, antialias=True)

    @full_precision
    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """T(I) of Eq. 6, clamped to [-1, 1].

        Shapes: images (B, 3, H, W) in [-1, 1]; index (B,) long, a template's number or `NO_TEMPLATE` -> (B, 3, H, W) in [-1, 1], always
        float32, since 16-bit rounding would destroy a faint template.

        Raises:
            ValueError: wrong shapes, range, dtype or device, or an index outside the set.
        """
        self.check_weights()
        check_batches({"images": images}, device=self.templates.device)
        check_images(images)
        index = self.check_index(index, len(images))
        chosen = self.at(images.shape[2:])[index.clamp(min=0)] * (index != NO_TEMPLATE).view(-1, 1, 1, 1)
        return (images.float() + self.strength * chosen).clamp(-1, 1)

    @torch.no_grad()
    def limit_(self, psnr: float) -> None:
        """Scale down in place every template with which the PSNR of encrypted images would be below `psnr` dB; to be called after each step.

        J_T penalizes the magnitude but doesn't bound it: if a strong template lowers the other losses, as with degradations, the PSNR
        falls (16 dB was measured). Clamping to [-1, 1] only raises the PSNR, so images are at `psnr` or above, up to resampling.
        """
        allowed = 2 * 10 ** (-psnr / 20) / self.strength if self.strength else float("inf")
        norms = self.templates.square().mean((1, 2), keepdim=True).sqrt()
        self.templates.mul_((allowed / norms.clamp(min=1e-12)).clamp(max=1))

    def check_index(self, index: Tensor, count: int) -> Tensor:
        """The index as long on the templates' device; ValueError if it is invalid."""
        return check_index(index, count, self.set_size, self.templates.device)


def check_index(index: Tensor, count: int, set_size: int, device: torch.device, *, first: int = NO_TEMPLATE) -> Tensor:
    """`index` as (count,) long on `device`; ValueError unless its values are whole numbers from `first` to set_size - 1."""
    if not isinstance(index, Tensor):
        raise ValueError(f"expected an index as a tensor of {count} whole numbers, one per image, got {type(index).__name__}; use torch.tensor(...)")
    if index.shape != (count,) or index.dtype not in _WHOLE_NUMBERS:
        raise ValueError(f"expected an index of {count} whole numbers, one per image, got {index.dtype} {tuple(index.shape)}")
    if index.is_meta and device.type != "meta":
        raise ValueError(f"expected an index with values, on {device} or another device, got one on the meta device")
    index = to_device(index, device).long()
    if looks_at_values(index):
        low, high = torch.stack(torch.aminmax(index)).tolist()
        if low < first or high >= set_size:
            none = f" (or {NO_TEMPLATE} for none)" if first == NO_TEMPLATE else ""
            raise ValueError(f"expected template numbers 0 … {set_size - 1}{none}, got {low} … {high}")
    return index
