"""The strongest attack on keyed templates with a number each that we know: the template of one published image is turned into that of another as well as can be without the key.

The residual of a published image holds Re(exp(i φ) V) beside the image's own texture. To forge, the attacker needs the same V turned by the φ of another image. Which φ an image has, only the key
tells; but where two images resemble each other, so do their φ for any key. So the residual is weighted, at every pixel, by the mean of cos(φ' − φ) over many keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from malp_disc.evaluation.key_search import filter_basis, orthonormal, responses, turn
from malp_disc.keyed.spectrum import filtered, smoothed
from malp_disc.keyed.template import CONTENT, LEVEL, level_weights, turn_by_levels, which_set

_KEYS, _FEW = 200, 40  # random keys that agreement is the mean of, for the copy and for the choice of the image
_PIXELS = 1200  # a sample for the choice
_STEPS, _STEERING_KEYS, _BATCH, _STEERING_RATE = 40, 60, 8, 0.15


def agreement(victims: Tensor, published: Tensor) -> Tensor:
    """Mean of cos(φ' − φ) over random keys, between images (B, 3, h, w) and as many others: (B, 1, h, w) in [-1, 1]."""
    own, other = (responses(images.mean(1, keepdim=True)) for images in (victims, published))
    by_filter = torch.stack([(turn(own, key) * turn(other, key).conj()).real for key in _filters(_KEYS)]).mean(0)
    change = smoothed(victims - published, LEVEL)  # the levels' part of φ is linear
    return by_filter[:, None] * torch.stack([turn_by_levels(change, weights).real for weights in _levels(_KEYS)]).mean(0)


def most_similar(victims: Tensor, published: Tensor, *, seed: int = 0) -> Tensor:
    """For each of the images, the published one whose φ agrees most with its own, (B,)."""
    pixels = torch.randperm(victims[0, 0].numel(), generator=torch.Generator().manual_seed(seed))[:_PIXELS]
    own, other = (torch.cat([_phases(part, pixels) for part in images.split(64)], 1) for images in (victims, published))  # (keys, B, pixels)
    found = [torch.einsum("kp,knp->np", mine, other.conj()).real.square().sum(1).argmax() for mine in own.unbind(1)]
    return torch.stack(found)


def _phases(images: Tensor, pixels: Tensor) -> Tensor:
    """exp(i φ) of images at some pixels, for some random keys: (keys, B, pixels)."""
    seen, levels = responses(images.mean(1, keepdim=True)).flatten(2)[:, :, pixels], smoothed(images, LEVEL).flatten(2)[:, :, pixels]
    counts = which_set(tuple(images.shape[2:])).flatten()[pixels]
    angles = [torch.einsum("pc,bcp->bp", weights[counts].to(levels), levels) for weights in _levels(_FEW)]
    return torch.stack([turn(seen, key) * torch.polar(torch.ones_like(angle), angle) for key, angle in zip(_filters(_FEW), angles)])


def steered(victims: Tensor, published: Tensor, psnr: float, *, seed: int = 0) -> Tensor:
    """What an attacker adds to images (B, 3, h, w) to have their φ agree more with that of as many published ones: (B, 3, h, w) of low frequencies only, at this PSNR.

    φ follows from frequencies of up to 0.1 cycles per pixel, and from the colours' local levels, so it can be steered by them. The agreement is maximised in the mean over random keys, from the published
    image's own low frequencies on.
    """
    generator, filters, levels, most = torch.Generator().manual_seed(seed), _filters(_STEERING_KEYS), _levels(_STEERING_KEYS), 2 * 10 ** (-psnr / 20)
    other = responses(published.mean(1, keepdim=True))

    def change(values: Tensor) -> Tensor:
        low = filtered(values, 0, CONTENT[1])
        return low * (most / low.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=most))

    with torch.enable_grad():
        values = filtered(published - victims, 0, CONTENT[1])
        values = (values * (most / values.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12))).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([values], lr=_STEERING_RATE * most)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            images = victims + change(values)
            own, moved = responses(images.mean(1, keepdim=True)), smoothed(images - published, LEVEL)
            some = torch.randperm(len(filters), generator=generator)[:_BATCH]
            agreeing = [((turn(own, filters[k]) * turn(other, filters[k]).conj())[:, None] * turn_by_levels(moved, levels[k])).real for k in some]
            (-torch.stack([part.mean((1, 2, 3)).sum() for part in agreeing]).mean()).backward()
            optimizer.step()
    return change(values.detach())


def _filters(count: int) -> Tensor:
    """Filters of random keys, (count, 2, 9)."""
    filters = filter_basis()[1]
    return torch.stack([orthonormal(key) for key in filters.view(len(filters), 2, -1)[-count:]])


def _levels(count: int) -> Tensor:
    """Weights of the colours' levels of random keys, (count, 3, 3)."""
    return torch.stack([level_weights(number.to_bytes(32, "big")) for number in range(count)])
