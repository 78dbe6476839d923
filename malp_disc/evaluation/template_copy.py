"""The strongest attack on keyed templates with a number each that we know: the template of one published image is turned into that of another as well as can be without the key.

The residual of a published image holds Re(exp(i φ) V) beside the image's own texture. To forge, the attacker needs the same V turned by the φ of another image. Which φ an image has, only the key
tells; but where two images resemble each other, so do their φ for any key. So the residual is weighted, at every pixel, by the mean of cos(φ' − φ) over many keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from malp_disc.evaluation.key_search import filter_basis, orthonormal, responses, turn

_KEYS, _FEW = 200, 40  # random keys that agreement is the mean of, for the copy and for the choice of the image
_PIXELS = 1200  # a sample for the choice


def agreement(victims: Tensor, published: Tensor) -> Tensor:
    """Mean of cos(φ' − φ) over random keys, between images (B, 3, h, w) and as many others: (B, 1, h, w) in [-1, 1]."""
    own, other = (responses(images.mean(1, keepdim=True)) for images in (victims, published))
    return torch.stack([(turn(own, key) * turn(other, key).conj()).real for key in _keys(_KEYS)]).mean(0)[:, None]


def most_similar(victims: Tensor, published: Tensor, *, seed: int = 0) -> Tensor:
    """For each of the images, the published one whose φ agrees most with its own, (B,)."""
    own, other = (torch.cat([responses(part.mean(1, keepdim=True)) for part in images.split(64)]).flatten(2) for images in (victims, published))
    pixels = torch.randperm(own.shape[2], generator=torch.Generator().manual_seed(seed))[:_PIXELS]
    own, other = (torch.stack([turn(part[:, :, pixels], key) for key in _keys(_FEW)]) for part in (own, other))  # (keys, B, pixels)
    found = [torch.einsum("kp,knp->np", mine, other.conj()).real.square().sum(1).argmax() for mine in own.unbind(1)]
    return torch.stack(found)


def _keys(count: int) -> Tensor:
    """Filters of random keys, (count, 2, 9)."""
    filters = filter_basis()[1]
    return torch.stack([orthonormal(key) for key in filters.view(len(filters), 2, -1)[-count:]])
