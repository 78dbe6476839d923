"""A template for each image: S(I) = Re(exp(i φ(I)) · V), limited to the band of `LOW` … `HIGH` cycles per pixel of the reference grid, with φ and V from the secret key.

    V    exp(i θ) with a random phase θ at every pixel, another V for every template number (`malp_disc.keyed.carrier`)
    φ    at every pixel `TURNS` times the phase of the image's low frequencies after a secret complex filter Q

**What published images give away: nothing of the key, if no two have the same number.** V turned by any φ is as random as V, so a published template is noise that depends neither on Q nor on other
templates. Q keeps the template of one image from fitting another: who moves it there doesn't know how to turn it. Of images with the same number, ten are enough to find Q and forge templates of that
number (`malp_disc.evaluation.key_search`), so `malp_disc.keyed.issued` draws them at random from 2^53. What attackers reach is measured in docs/results/survival.md.

Mid-band frequencies survive recompression and moderate resizing. The multiple turns of φ set images apart that resemble each other, as aligned faces do. φ doesn't depend on the template, which has
other frequencies than those that Q sees, so it is found again after publication, and, since Q reaches a few pixels only, outside an edited region too. On a resized image the template is resized with
it; sides are relative to the reference grid.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.carrier import carrier
from malp_disc.keyed.secret import secret_noise
from malp_disc.keyed.spectrum import band, filtered, moved, reference_size, resampled, smoothed

LOW, SPLIT, HIGH = 0.12, 0.25, 0.42
"""Band limits of the template and where evidence separates it in two, in cycles per pixel of the reference grid."""
TURNS = 5
"""More turns give less away and disturb the template farther around an edit; an odd number has no axis on which phases of opposite sign meet again (docs/results/survival.md)."""
CONTENT = (0.06, 0.1)  # limits of the frequencies that determine φ
REACH, _WINDOW = 10, 2.5  # radius of Q, and σ of the Gaussian window over it
MASKING = 0.7  # the amplitude follows the local contrast to this power: textures hide more than flat regions
FLAT = 0.012  # contrast of a flat region, in units of [-1, 1]
_AREA = 0.25  # least share of the image that takes all of the noise: an object on a plain background covers less, and gets less (1,625 photos of faces had 0.26 or more)


@functools.lru_cache(maxsize=32)
def content_filter(secret: bytes) -> Tensor:
    """Q as its real and imaginary part, (2, k, k): band-limited noise under a Gaussian window, of mean 0 and norm 1, the two parts orthogonal.

    Parts that resemble each other would have all phases near two opposite ones, the same for all images.
    """
    side = 2 * REACH + 1
    noise = secret_noise(secret, "content", (2, 64, 64))
    noise = torch.fft.irfft2(torch.fft.rfft2(noise) * band(64, 64, *CONTENT), s=(64, 64))[:, :side, :side]
    window = torch.exp(-torch.arange(-REACH, REACH + 1.0).square() / (2 * _WINDOW**2))
    kernel = noise * window[:, None] * window
    kernel = kernel - (kernel.mean((1, 2), keepdim=True) / (window[:, None] * window).mean()) * window[:, None] * window
    real, imaginary = kernel / kernel.flatten(1).norm(dim=1)[:, None, None]
    imaginary = imaginary - (real * imaginary).sum() * real
    return torch.stack([real, imaginary / imaginary.norm()])


def content_phase(grey: Tensor, secret: bytes) -> Tensor:
    """exp(i φ) as its real and imaginary part: (B, 1, h, w) on the reference grid -> (B, 2, h, w), of absolute value 1 (0 where the image is constant)."""
    kernel = content_filter(secret).to(grey)
    low = filtered(grey, 0, CONTENT[1])
    reach = min(REACH, *(side - 1 for side in low.shape[2:]))
    padded = F.pad(F.pad(low, (reach,) * 4, mode="reflect"), (REACH - reach,) * 4, mode="replicate")
    response = F.conv2d(padded, kernel[:, None])
    unit = response / (response.square().sum(1, keepdim=True) + 1e-8).sqrt()
    turned = torch.complex(unit[:, :1], unit[:, 1:]) ** TURNS
    return torch.cat([turned.real, turned.imag], 1)


@dataclass(frozen=True)
class Parts:
    """What the templates of images on the reference grid are made of, at the grid's pixels.

    Attributes:
        phase: exp(i φ), (B, 2, h, w).
        carrier: V, (B, 2, h, w).
        rest: (down, right) from the grid's pixels to those of the images, less than one.
    """

    phase: Tensor
    carrier: Tensor
    rest: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, grey: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Parts:
        """Arguments as for `template`."""
        down, right = (round(value) for value in offset)
        rest = (offset[0] - down, offset[1] - right)
        pattern = carrier(secret, numbers, size, tuple(grey.shape[2:]), (down, right)).to(grey)
        # V can't be interpolated between pixels, since it has all frequencies; the image's low ones, which φ follows from, can
        return cls(content_phase(moved(grey, *rest), secret), pattern, rest)

    @property
    def template(self) -> Tensor:
        """S, at the images' pixels, (B, 1, h, w)."""
        result = filtered(self.phase[:, :1] * self.carrier[:, :1] - self.phase[:, 1:] * self.carrier[:, 1:], LOW, HIGH)
        return moved(result, -self.rest[0], -self.rest[1])

    def correlation(self, residual: Tensor) -> Tensor:
        """Correlation of V with images (B, 1, h, w), turned back by φ, in standard deviations over all V: (B,), standard normal for images without this template whatever they show."""
        turned = self.phase * torch.tensor([1.0, -1.0], device=residual.device).view(2, 1, 1) * moved(residual, *self.rest)
        return (turned * self.carrier).sum((1, 2, 3)) / turned.square().sum((1, 2, 3)).div(2).sqrt().clamp(min=1e-12)


def template(grey: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """S(I) for grey images on the reference grid, (B, 1, h, w) -> (B, 1, h, w).

    Args:
        grey: in [-1, 1].
        numbers: of the images' templates, B of them.
        size: side of the reference grid.
        offset: (down, right) of the images' corner on the grid: (0, 0) for whole images, another for crops.
    """
    return Parts.of(grey, secret, numbers, size, offset).template


def masked_template(images: Tensor, secret: bytes, numbers: Sequence[int], size: int, psnr: float) -> Tensor:
    """What protection adds to images (B, 3, H, W) in [-1, 1]: (B, 1, H, W), stronger in textures, at this PSNR or above in each image (before clamping).

    The PSNR is above where the textures cover little of the image: they would take all of the noise otherwise.
    """
    grey = resampled(images.mean(1, keepdim=True), reference_size(*images.shape[2:], size))
    contrast = smoothed(filtered(grey, LOW, HIGH).square(), 3.0).clamp(min=0).sqrt()
    amplitude = (contrast + FLAT) ** MASKING
    area = amplitude.square().mean((1, 2, 3), keepdim=True) ** 2 / (amplitude**4).mean((1, 2, 3), keepdim=True)  # a, if it is constant on a share a and 0 elsewhere
    added = resampled(template(grey, secret, numbers, size) * amplitude, tuple(images.shape[2:]))
    wanted = 2 * 10 ** (-psnr / 20) * (area / _AREA).clamp(max=1).sqrt()
    return added * (wanted / added.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12))
