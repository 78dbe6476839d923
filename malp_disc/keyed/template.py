"""A template for each image: S(I) = Re(exp(i φ(I)) · V), limited to the band of `LOW` … `HIGH` cycles per pixel of the reference grid, with φ and V from the secret key.

    V    exp(i θ) with a random phase θ at every pixel, another V for every template number (`malp_disc.keyed.carrier`)
    φ    at every pixel `TURNS` times the phase of the image's low frequencies after a secret complex filter Q, plus the local levels of red, green and blue with one of three secret sets of
         weights, which alternate from pixel to pixel

**Two parts of φ see different edits.** Q has the mean 0 and its phase ignores contrast, so it sees what moves or replaces details, but no region that is recoloured or made brighter. The levels see these. With one
set of weights, changes of colour in a plane would cancel; with three, only those that are a full turn for all of them, which are others for each key. The sets alternate between pixels, and not between
orientations or bands of the template: V turned by any φ stays uniform, while parts that overlap and are turned differently would show how much (100 published images were enough to find the weights).

**What published images give away: nothing of the key, if no two have the same number.** V turned by any φ is as random as V, so a published template is noise that depends neither on Q and the weights nor on other
templates. Q keeps the template of one image from fitting another: who moves it there doesn't know how to turn it. Of images with the same number, a few are enough to find Q, for who knows the weights, and to forge templates of that
number (`malp_disc.evaluation.key_search`), so `malp_disc.keyed.issued` draws them at random from 2^53. What attackers reach is measured in docs/results/survival.md.

Mid-band frequencies survive recompression and moderate resizing. The multiple turns of φ, and the levels, set images apart that resemble each other, as aligned faces do. φ hardly depends on the template,
which has other frequencies than those that φ follows from, so it is found again after publication, and, since Q and the levels' window reach a few pixels only, outside an edited region too. On a resized
image the template is resized with it; sides are relative to the reference grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.carrier import carrier
from malp_disc.keyed.secret import secret_noise
from malp_disc.keyed.spectrum import band, filtered, moved, reference_size, remembered, resampled, smoothed

LOW, SPLIT, HIGH = 0.12, 0.25, 0.42
"""Band limits of the template and where evidence separates it in two, in cycles per pixel of the reference grid."""
TURNS = 3
"""More turns set images farther apart and disturb the template farther around an edit; an odd number has no axis on which phases of opposite sign meet again (docs/results/survival.md)."""
CONTENT = (0.06, 0.1)  # limits of the frequencies that Q sees
REACH, _WINDOW = 10, 2.5  # radius of Q, and σ of the Gaussian window over it
LEVEL = 2.0
"""σ of the Gaussian window that local levels of the colours are means of, in pixels of the reference grid."""
SETS = 3
LUMA, CHROMA = ((4.0, 6.0), (7.0, 9.0), (10.0, 12.0)), (8.0, 12.0)
"""Ranges of what a level adds to φ, in radians per unit of [-1, 1]: of the brightness, by each of the three sets of weights, and of a chroma of norm 1. The ranges of the brightness lie apart, so that nobody can guess a change of brightness that is about a full turn for
all three."""
MASKING = 0.7  # the amplitude follows the local contrast to this power: textures hide more than flat regions
FLAT = 0.012  # contrast of a flat region, in units of [-1, 1]
_AREA = 0.25  # least share of the image that takes all of the noise: an object on a plain background covers less, and gets less (1,625 photos of faces had 0.26 or more)


@remembered(maxsize=32)
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


@remembered(maxsize=64)
def _filter_spectrum(secret: bytes, height: int, width: int) -> Tensor:
    """The spectrum of Q over an image that it is correlated with, complex (2, height, width // 2 + 1)."""
    return torch.fft.rfft2(content_filter(secret), s=(height, width)).conj().resolve_conj()


@remembered(maxsize=32)
def level_weights(secret: bytes) -> Tensor:
    """What a level of red, green and blue adds to φ by each set of weights, in radians per unit of [-1, 1]: (`SETS`, 3 colours).

    Each has its own weight of the brightness, and one of the chroma in its own direction; the three directions are 120 degrees apart, so that each change of colour turns φ by some of them.
    """
    drawn = torch.special.ndtr(secret_noise(secret, "levels", (2 * SETS + 1,)))  # uniform
    low, high = torch.tensor([*LUMA, *[CHROMA] * SETS]).T
    luma, chroma = (low + (high - low) * drawn[:-1]).split(SETS)
    turn = 2 * torch.pi * (drawn[-1] + torch.arange(SETS) / SETS)
    first, second = torch.tensor([1.0, -1.0, 0.0]) / math.sqrt(2), torch.tensor([1.0, 1.0, -2.0]) / math.sqrt(6)
    return luma[:, None] / 3 + chroma[:, None] * (turn.cos()[:, None] * first + turn.sin()[:, None] * second)


def content_phase(images: Tensor, secret: bytes, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """exp(i φ): (B, 3, h, w) on the reference grid, at (down, right) of it -> complex (B, 1, h, w), of absolute value 1 (0 where the grey levels are constant)."""
    return filter_turn(images.mean(1, keepdim=True), secret) * level_turn(images, level_weights(secret), corner)


def filter_turn(grey: Tensor, secret: bytes) -> Tensor:
    """The part of exp(i φ) that Q gives: (B, 1, h, w) -> complex (B, 1, h, w). Of the correlation with Q by Fourier transforms, which takes a tenth of the time, what isn't wrapped around is kept."""
    from scipy.fft import next_fast_len  # late: takes a while to import

    low = filtered(grey, 0, CONTENT[1])
    height, width = low.shape[2:]
    reach = min(REACH, *(side - 1 for side in low.shape[2:]))
    padded = F.pad(F.pad(low, (reach,) * 4, mode="reflect"), (REACH - reach,) * 4, mode="replicate")
    area = tuple(next_fast_len(side, real=True) for side in padded.shape[2:])
    spectrum = torch.fft.rfft2(padded, s=area) * _filter_spectrum(secret, *area).to(padded.device)
    response = torch.fft.irfft2(spectrum, s=area)[:, :, :height, :width]
    unit = response / (response.square().sum(1, keepdim=True) + 1e-8).sqrt()
    return torch.complex(unit[:, :1], unit[:, 1:]) ** TURNS


def level_turn(images: Tensor, weights: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """The part of exp(i φ) that the colours' levels give, by `level_weights`: (B, 3, h, w) -> complex (B, 1, h, w). At every pixel (y, x) of the grid, set (y + x) mod `SETS` counts."""
    return turn_by_levels(smoothed(images, LEVEL), weights, corner)


def turn_by_levels(levels: Tensor, weights: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """`level_turn` of images whose local levels are known, (B, 3, h, w)."""
    counts = which_set(tuple(levels.shape[2:]), corner).to(levels.device).expand(len(levels), 1, -1, -1)
    return turns_by_levels(levels, weights).gather(1, counts)


def turns_by_levels(levels: Tensor, weights: Tensor) -> Tensor:
    """The same by each set of weights at all pixels, complex (B, `SETS`, h, w)."""
    angles = F.conv2d(levels, weights.to(levels)[:, :, None, None])
    return torch.polar(torch.ones_like(angles), angles)


def which_set(shape: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Which set of weights counts at each pixel from the corner on, (h, w) of int64."""
    return (torch.arange(corner[0], corner[0] + shape[0])[:, None] + torch.arange(corner[1], corner[1] + shape[1])) % SETS


@dataclass(frozen=True)
class Parts:
    """What the templates of images on the reference grid are made of, at the grid's pixels.

    Attributes:
        images: (B, 3, h, w), moved there.
        phase: exp(i φ), complex (B, 1, h, w).
        carrier: V, (B, 2, h, w).
        corner: (down, right), the first of the grid's pixels.
        rest: (down, right) from the grid's pixels to those of the images, less than one.
    """

    images: Tensor
    phase: Tensor
    carrier: Tensor
    corner: tuple[int, int] = (0, 0)
    rest: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, images: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Parts:
        """Arguments as for `template`."""
        corner = (round(offset[0]), round(offset[1]))
        rest = (offset[0] - corner[0], offset[1] - corner[1])
        pattern = carrier(secret, numbers, size, tuple(images.shape[2:]), corner).to(images)
        there = moved(images, *rest)  # V can't be interpolated between pixels, since it has all frequencies; the image's low ones, which φ follows from, can
        return cls(there, content_phase(there, secret, corner), pattern, corner, rest)

    @property
    def template(self) -> Tensor:
        """S, at the images' pixels, (B, 1, h, w)."""
        turned = (self.phase * torch.complex(*self.carrier.unbind(1))[:, None]).real
        return moved(filtered(turned, LOW, HIGH), -self.rest[0], -self.rest[1])

    def correlation(self, residual: Tensor) -> Tensor:
        """Correlation of V with images (B, 1, h, w), turned back by φ, in standard deviations over all V: (B,), standard normal for images without this template whatever they show."""
        turned = self.turned_back(residual)
        return (turned * self.carrier).sum((1, 2, 3)) / turned.square().sum((1, 2, 3)).div(2).sqrt().clamp(min=1e-12)

    def turned_back(self, residual: Tensor) -> Tensor:
        """Images (B, 1, h, w) turned back by φ, so that what is left of the template is V: (B, 2, h, w), to be correlated with V's real and imaginary part."""
        turned = moved(residual, *self.rest) * self.phase.conj()
        return torch.cat([turned.real, turned.imag], 1)


def template(images: Tensor, secret: bytes, numbers: Sequence[int], size: int, offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """S(I) for images on the reference grid, (B, 3, h, w) -> (B, 1, h, w).

    Args:
        images: in [-1, 1].
        numbers: of the images' templates, B of them.
        size: side of the reference grid.
        offset: (down, right) of the images' corner on the grid: (0, 0) for whole images, another for crops.
    """
    return Parts.of(images, secret, numbers, size, offset).template


def masked_template(images: Tensor, secret: bytes, numbers: Sequence[int], size: int, psnr: float) -> Tensor:
    """What protection adds to images (B, 3, H, W) in [-1, 1]: (B, 1, H, W), stronger in textures, at this PSNR or above in each image (before clamping).

    The PSNR is above where the textures cover little of the image: they would take all of the noise otherwise.
    """
    seen = resampled(images, reference_size(*images.shape[2:], size))
    contrast = smoothed(filtered(seen.mean(1, keepdim=True), LOW, HIGH).square(), 3.0).clamp(min=0).sqrt()
    amplitude = (contrast + FLAT) ** MASKING
    area = amplitude.square().mean((1, 2, 3), keepdim=True) ** 2 / (amplitude**4).mean((1, 2, 3), keepdim=True)  # a, if it is constant on a share a and 0 elsewhere
    added = resampled(template(seen, secret, numbers, size) * amplitude, tuple(images.shape[2:]))
    wanted = 2 * 10 ** (-psnr / 20) * (area / _AREA).clamp(max=1).sqrt()
    return added * (wanted / added.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12))
