"""Why no two images may have the same template number: from a few that do, an attacker finds the key's filter Q and their carrier V, and forges templates of that number.

A template is Re(exp(i φ) V), with φ from the image, Q and the weights of the levels. Averaging images gives little, as each has another φ. But all Qs lie nearly in a space of few dimensions, which
follows from the public code. For the right Q, turning each published residual back by φ makes all templates equal, so that the mean over the images is V, and longer than
for any other Q. The attacker looks for the Q with the longest mean: the best of random ones, improved by gradient steps. Neither detector nor originals are needed. What the colours' levels add to φ, seven
numbers of the key, the attacker is told here; they might be searched as well.

Where every image has a number of its own, no Q gives a longer mean than another (`malp_disc.keyed.template`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.spectrum import filtered, remembered, smoothed
from malp_disc.keyed.template import CONTENT, FLAT, HIGH, LOW, MASKING, REACH, TURNS, content_filter, level_turn

_KEYS, _DIMENSIONS = 600, 9  # random filters, and the dimensions that they nearly lie in: 98 % of their energy is in seven
_RESTARTS, _STEPS, _RATE = 6, 60, 0.03
_PIXELS = 1200  # a sample that the mean's length is computed from
_CONTRAST, _FLOOR = 4.0, 0.006  # residuals are divided by their local contrast: textures would dominate the mean otherwise


@dataclass(frozen=True)
class FoundKey:
    """What an attacker knows of a key: Q in the basis of `filter_basis`, (2, 9), V up to a constant factor, complex (h, w), and `malp_disc.keyed.template.level_weights`."""

    weights: Tensor
    carrier: Tensor
    levels: Tensor

    def template(self, images: Tensor, psnr: float) -> Tensor:
        """What the attacker adds to images (B, 3, h, w), to have them taken for protected ones: (B, 1, h, w) at this PSNR."""
        turned = (turn(responses(images.mean(1, keepdim=True)), self.weights) * self.carrier)[:, None] * level_turn(images, self.levels)
        return at_strength(turned.real, images, psnr)


def search_key(published: Tensor, levels: Tensor, *, seed: int = 0) -> FoundKey:
    """The attack on published images (N, 3, h, w) in [-1, 1] that have the size of the reference grid, given the key's `malp_disc.keyed.template.level_weights`; some seconds."""
    generator = torch.Generator().manual_seed(seed)
    grey = published.mean(1, keepdim=True)
    residual = torch.cat([(whitened(part) * level_turn(part, levels).conj())[:, 0] for part in published.split(64)])  # turned back by the levels' part of φ
    answers = torch.cat([responses(part) for part in grey.split(64)])
    pixels = torch.randperm(residual[0].numel(), generator=generator)[:_PIXELS]
    seen, values = answers.flatten(2)[:, :, pixels], residual.flatten(1)[:, pixels]

    def length(weights: Tensor, some: Tensor | slice) -> Tensor:
        mean = (values[:, some] * turn(seen[:, :, some], orthonormal(weights)).conj()).mean(0)
        return (mean.real.square() + mean.imag.square()).sum()

    few = slice(0, _PIXELS // 8)
    guesses = (filter_basis()[1]).view(_KEYS, 2, _DIMENSIONS)
    lengths = torch.stack([length(guess, few) for guess in guesses])
    found = [_improved(guesses[row], length, generator) for row in lengths.topk(_RESTARTS).indices]
    weights = max(found, key=lambda one: length(one, slice(None)).item())
    total = sum((part * turn(own, weights).conj()).sum(0) for part, own in zip(residual.split(64), answers.split(64)))
    carrier = [filtered(value[None, None], LOW, HIGH)[0, 0] for value in (total.real, total.imag)]
    return FoundKey(weights, torch.complex(*carrier) / len(published), levels)


@remembered(maxsize=1)
def filter_basis() -> tuple[Tensor, Tensor]:
    """The main directions of the filters of random keys, (9, k, k), and these filters in them, (600, 18)."""
    filters = torch.cat([content_filter.__wrapped__(number.to_bytes(32, "big")).flatten(1) for number in range(_KEYS)])
    basis = torch.linalg.svd(filters, full_matrices=False).Vh[:_DIMENSIONS]
    side = 2 * REACH + 1
    return basis.view(_DIMENSIONS, side, side), (filters @ basis.T).view(_KEYS, 2 * _DIMENSIONS)


def _improved(weights: Tensor, length, generator: torch.Generator) -> Tensor:
    """The filter after gradient steps that lengthen the mean."""
    with torch.enable_grad():
        weights = orthonormal(weights).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([weights], lr=_RATE)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            (-length(weights, torch.randperm(_PIXELS, generator=generator)[: _PIXELS // 8])).backward()
            optimizer.step()
    return orthonormal(weights.detach())


def responses(grey: Tensor) -> Tensor:
    """The images' low frequencies after each filter of the basis: (B, 1, h, w) -> (B, 9, h, w)."""
    padded = F.pad(filtered(grey, 0, CONTENT[1]), (REACH,) * 4, mode="reflect")
    return F.conv2d(padded, filter_basis()[0].to(grey)[:, None])


def turn(answers: Tensor, weights: Tensor) -> Tensor:
    """exp(i φ) by a filter, from the `responses`: (B, 9, …), (2, 9) -> complex (B, …)."""
    real, imaginary = (torch.tensordot(answers.movedim(1, -1), part, 1) for part in weights.to(answers))
    return (torch.complex(real, imaginary) / (real.square() + imaginary.square() + 1e-8).sqrt()) ** TURNS


def whitened(images: Tensor) -> Tensor:
    """The part of images (B, 3, h, w) in which the template is looked for, (B, 1, h, w): whitened, and divided by its local contrast."""
    residual = filtered(images.mean(1, keepdim=True), LOW, HIGH, whiten=1.0)
    return residual / (smoothed(residual.square(), _CONTRAST).clamp(min=0).sqrt() + _FLOOR)


def at_strength(pattern: Tensor, images: Tensor, psnr: float) -> Tensor:
    """A pattern (B, 1, h, w) as protection would add it to images: in the template's band, stronger in textures, at this PSNR."""
    contrast = smoothed(filtered(images.mean(1, keepdim=True), LOW, HIGH).square(), 3.0).clamp(min=0).sqrt()
    added = filtered(pattern, LOW, HIGH) * (contrast + FLAT) ** MASKING
    return added * (2 * 10 ** (-psnr / 20) / added.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12))


def orthonormal(weights: Tensor) -> Tensor:
    """Both parts of a filter with norm 1, and orthogonal."""
    real = weights[0] / weights[0].norm()
    imaginary = weights[1] - (real * weights[1]).sum() * real
    return torch.stack([real, imaginary / imaginary.norm()])
