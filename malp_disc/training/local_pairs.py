"""Local edits and degradation chains in the pairs that a localizer is trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from malp_disc.data.local_edits import LOCAL_EDITS, local_edit, random_masks
from malp_disc.data.masks import SHARES
from malp_disc.degradation_chain import DegradationChain

EDIT_DRAWS = 5
"""Random numbers that determine an image's local edit."""
_SMALL, _SMALL_SHARES = 0.15, (0.003, SHARES[0])  # share of the local edits whose regions are small, and how much of the image these cover; brush strokes cover 0.8 % or more
_INTEGERS = 2**31


def with_local_edits(published: Tensor, originals: Tensor, generated: Tensor, draws: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Replace the generator's edit of some images by a local edit.

    Shapes: published, originals (not protected) and generated (B, 3, H, W); draws (B, `EDIT_DRAWS`) in [0, 1) -> images (B, 3, H, W), edited regions (B, 1, H, W) of
    bool, which are everywhere where the generator's edit stays.

    Args:
        share: of the images, in [0, 1]. Splices come from the original of the batch's next image; a batch of one image has copy-moves in their place.
    """
    images, regions = [], []
    for i, (kept, kind, mask, noise, small) in enumerate(draws.tolist()):
        row = slice(i, i + 1)
        if kept >= share:
            images.append(generated[row])
            regions.append(torch.ones_like(generated[row, :1], dtype=torch.bool))
            continue
        name = LOCAL_EDITS[int(kind * len(LOCAL_EDITS))]
        if name == "splice" and len(originals) == 1:  # pasted from the image itself, it would change nothing
            name = "copy_move"
        region = random_masks(published[row], [[int(mask * _INTEGERS)]], _SMALL_SHARES if small < _SMALL else SHARES)
        sources = {"splice": originals[(i + 1) % len(originals)][None], "generated": generated[row]}.get(name)
        images.append(local_edit(published[row], region, name, sources=sources, seed=int(noise * _INTEGERS)))
        regions.append(region)
    return torch.cat(images), torch.cat(regions)


def needs_generator(draws: Tensor, share: float) -> Tensor:
    """Rows of the images for which `with_local_edits` uses the generator's edit, (n,) long: those not edited locally, and those with a generated region."""
    generated = (draws[:, 1] * len(LOCAL_EDITS)).long() == LOCAL_EDITS.index("generated")
    return ((draws[:, 0] >= share) | generated).nonzero()[:, 0]


def chains(draws: Tensor) -> list[DegradationChain]:
    """A random chain for each image; draws (B, `degradation_chain.DRAWS`) in [0, 1)."""
    return [DegradationChain.from_draws(row) for row in draws.tolist()]


def through_chains(images: Tensor, each: list[DegradationChain], used: Tensor) -> Tensor:
    """Every image (B, 3, H, W) through its chain where `used` (B,), otherwise only rounded to 8 bits. No gradient."""
    rows = images.detach().split(1)
    return torch.cat([(chain if use else DegradationChain())(row) for row, chain, use in zip(rows, each, used.tolist())])
