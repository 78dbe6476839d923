"""Image degradations of the robustness test (paper, section 4.5 and Figure 5): JPEG, blur, noise, low resolution.

Every function takes images (B, 3, H, W) in [-1, 1] and returns new ones of the same shape, rounded to 8 bits, as if saved to a file.
`DEGRADATIONS` lists them with levels from none to severe.

Note:
    The paper names the four kinds, "as adopted by [21]" (FakeLocator), but no levels. At the most severe levels here, a 64-pixel image is
    barely recognizable.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from malp_disc.levels import as_images, quantize, to_pixels
from malp_disc.runtime.input_checks import check_images


def to_8bit(images: Tensor) -> Tensor:
    """Rounded to the nearest of 256 levels, as if saved to PNG."""
    check_images(images)
    return as_images(quantize(images))


def jpeg(images: Tensor, quality: int | None) -> Tensor:
    """JPEG compression by Pillow, with 4:2:0 chroma subsampling, the most common setting.

    Args:
        quality: Pillow's, 1 … 100; None for rounding to 8 bits only.

    Raises:
        ValueError: another quality.
    """
    return _lossy(images, "JPEG", quality, subsampling="4:2:0")


def webp(images: Tensor, quality: int | None) -> Tensor:
    """Lossy WebP compression by Pillow.

    Args:
        quality: Pillow's, 1 … 100; None for rounding to 8 bits only.

    Raises:
        ValueError: another quality.
    """
    return _lossy(images, "WebP", quality)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels and reflection padding; 0 only rounds to 8 bits.

    Raises:
        ValueError: a negative sigma, or one whose kernel is larger than the image.
    """
    check_images(images)
    _check_sigma(sigma, "pixels")
    return to_8bit(blurred(images, sigma))


def gaussian_noise(images: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Additive Gaussian noise, independent for every value.

    The noise is sampled per image, so it doesn't depend on how the images are divided into batches.

    Args:
        sigma: standard deviation in grey levels, of 255; the result is clipped to the range.
        generator: random number generator; torch's global one if None.

    Raises:
        ValueError: a negative sigma.
    """
    check_images(images)
    _check_sigma(sigma, "grey levels")
    where = images.device if generator is None else generator.device
    noise = [torch.randn(images.shape[1:], generator=generator, device=where) for _ in images]
    if not noise or sigma == 0:
        return to_8bit(images)
    return to_8bit((images + torch.stack(noise).to(images.device) * (sigma / 127.5)).clamp(-1, 1))


def resize_down_up(images: Tensor, factor: float) -> Tensor:
    """Downsampled by `factor` (bilinear, antialiased), rounded to 8 bits, and upsampled to the old size (bilinear); 1 only rounds.

    Raises:
        ValueError: a factor below 1, or above the smaller side.
    """
    check_images(images)
    height, width = images.shape[2:]
    if not 1 <= factor <= min(height, width):  # written so that NaN fails
        raise ValueError(f"expected a factor of 1 … {min(height, width)} for images of {height}x{width}, got {factor}")
    smaller = (round(height / factor), round(width / factor))
    small = to_8bit(F.interpolate(images.float(), size=smaller, mode="bilinear", align_corners=False, antialias=True))
    return to_8bit(F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False))


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resampled to `size` (H, W), antialiased where it shrinks, and rounded to 8 bits: bilinear to a smaller size, bicubic to a larger one.

    Raises:
        ValueError: a side below 1.
    """
    check_images(images)
    if min(size) < 1:
        raise ValueError(f"expected a size (H, W) of at least 1x1, got {tuple(size)}")
    smaller = size[0] * size[1] < images.shape[2] * images.shape[3]
    mode = "bilinear" if smaller else "bicubic"
    return to_8bit(F.interpolate(images.float(), size=tuple(size), mode=mode, align_corners=False, antialias=smaller).clamp(-1, 1))


def resized_and_back(images: Tensor, scale: float) -> Tensor:
    """`resized` by `scale` along both sides, and back to the old size.

    Raises:
        ValueError: a scale that leaves less than a pixel, or isn't finite.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"expected a scale above 0, got {scale}")
    height, width = images.shape[2:]
    return resized(resized(images, (round(height * scale), round(width * scale))), (height, width))


def cropped(images: Tensor, share: float, place: tuple[float, float]) -> Tensor:
    """A window whose sides have `share` of the images' sides, in 8 bits: (B, 3, H, W) -> (B, 3, round(share H), round(share W)).

    Args:
        place: of the window in what remains, from (0, 0), the upper left corner, to (1, 1).

    Raises:
        ValueError: a share outside (0, 1] or a place outside the image.
    """
    if not (0 < share <= 1 and all(0 <= part <= 1 for part in place)):
        raise ValueError(f"expected a share in (0, 1] and a place in [0, 1] x [0, 1], got {share} and {place}")
    height, width = (max(1, round(share * side)) for side in images.shape[2:])
    top, left = (round(part * (side - kept)) for part, side, kept in zip(place, images.shape[2:], (height, width)))
    return to_8bit(images[:, :, top : top + height, left : left + width])


@dataclass(frozen=True)
class Degradation:
    """A kind of degradation with its levels.

    Attributes:
        function: (images, level) -> images; if `drawn`, with the generator as third argument.
        levels: from none (only rounding to 8 bits) to severe.
        label: meaning and unit of a level.
        drawn: whether it is random.
    """

    function: Callable[..., Tensor]
    levels: tuple[float | None, ...]
    label: str
    drawn: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the levels for an axis: "none", "95", "90" …"""
        return ("none", *(f"{level:g}" for level in self.levels[1:]))

    def __call__(self, images: Tensor, level: float | None, generator: torch.Generator | None = None) -> Tensor:
        """The images (B, 3, H, W) degraded to `level`, which needn't be one of `levels`."""
        return self.function(images, level, generator) if self.drawn else self.function(images, level)


DEGRADATIONS = {
    "jpeg": Degradation(jpeg, (None, 95, 90, 80, 70, 50, 30, 10), "JPEG quality"),
    "blur": Degradation(gaussian_blur, (0, 0.5, 0.75, 1, 1.5, 2, 3), "blur, σ in pixels"),
    "noise": Degradation(gaussian_noise, (0, 1, 2, 5, 10, 20, 40), "noise, σ in grey levels of 255", drawn=True),
    "resize": Degradation(resize_down_up, (1, 1.25, 1.5, 2, 3, 4, 8), "downsampling factor"),
}
"""The degradations of the paper's Figure 5, in its order."""


def random_degradation(draws: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """A random moderate degradation, for training: JPEG of quality 50 … 95, blur up to 1 pixel, noise up to 10 grey levels, or downsampling
    by up to 2, with equal probability.

    Args:
        draws: three numbers in [0, 1), which determine kind, level, and seed of the noise.
    """
    kind, level = list(DEGRADATIONS)[int(len(DEGRADATIONS) * draws[0])], draws[1]
    chosen = {"jpeg": 50 + round(45 * level), "blur": level, "noise": 10 * level, "resize": 1 + level}[kind]
    return lambda images: DEGRADATIONS[kind](images, chosen, torch.Generator(images.device).manual_seed(int(draws[2] * 2**31)))


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) in float32, the kernel truncated at 3 sigma, with reflection padding.

    Raises:
        ValueError: the kernel is larger than the image.
    """
    if sigma == 0:
        return images.float()
    reach = math.ceil(3 * sigma)
    if reach >= min(images.shape[2:]):
        raise ValueError(f"a blur of {sigma} pixels has a kernel radius of {reach} pixels, too large for images of {tuple(images.shape[2:])}; use a smaller sigma")
    from torchvision.transforms.functional import gaussian_blur as torchvision_blur  # imported late: takes as long as torch

    return torchvision_blur(images.float(), [2 * reach + 1] * 2, [float(sigma)] * 2)


def _lossy(images: Tensor, file_format: str, quality: int | None, **options: object) -> Tensor:
    """The images after Pillow's encoder and decoder of `file_format`, "JPEG" or "WebP"."""
    check_images(images)
    if quality is None:
        return to_8bit(images)
    if isinstance(quality, bool) or quality not in range(1, 101):
        raise ValueError(f"expected a {file_format} quality of 1 … 100, a whole number, or None for no {file_format}, got {quality!r}")
    decoded = []
    for levels in to_pixels(images):  # (H, W, 3)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, file_format, quality=int(quality), **options)
        with Image.open(buffer) as image:
            decoded.append(np.array(image.convert("RGB")))
    levels = torch.from_numpy(np.stack(decoded)) if decoded else torch.empty(0, *images.shape[2:], 3)
    return as_images(levels.permute(0, 3, 1, 2).to(images.device))


def _check_sigma(sigma: float, unit: str) -> None:
    if not 0 <= sigma < math.inf:  # written so that NaN fails
        raise ValueError(f"expected a sigma of 0 or more {unit}, got {sigma}")
