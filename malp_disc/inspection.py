"""Protection and inspection of image files by either kind of MaLP: in windows of the training size (`malp_disc.tiling`), or, with keyed templates, as a whole.

A `KeyedMaLP` takes an image of any size at once. Its map is the probability that a pixel belongs to an edited region. Which template the image has, where it lies on the original
if it is a crop, and what was done to it as a whole, is found out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from malp_disc import tiling
from malp_disc.degradation_chain import DegradationChain
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.issued import TEMPLATES, Issued
from malp_disc.keyed.tone import Tone, describe_tone
from malp_disc.levels import from_pixels, to_pixels
from malp_disc.malp import MaLP
from malp_disc.tiling import Inspection, Window, check_levels

LEAST_OF_GRID = 0.5
"""Side (the root of the area) that an image needs for keyed templates, as a share of the reference grid's. On 12 faces and a grid of 128, untouched ones of 64 pixels scored at most
0.04 (drawn ones 0.58); drawn ones of 48 scored 0.53 in the mean, and at 32 no template was found any more."""
CHANGED_ABOVE = 0.03
"""Default of the map value above which a pixel counts as changed, for a fakeness map: 8 of 255 levels."""


def protect_levels(malp: MaLP | KeyedMaLP, levels: np.ndarray, index: int) -> np.ndarray:
    """T(I), rounded to 8 bits: (H, W, 3) uint8 -> (H, W, 3) uint8; `index` is the template's. With a `KeyedMaLP`, no two images that are published may have the same.

    Raises:
        ValueError: not an image, an index outside the set, or an image with too few pixels for the key's reference grid.
    """
    if not isinstance(malp, KeyedMaLP):
        return tiling.protect_levels(malp, levels, index)
    check_protectable(malp, levels)
    protected, _ = malp.encrypt(as_input(malp, levels), torch.tensor([index]))
    return to_pixels(protected)[0]


def check_protectable(malp: MaLP | KeyedMaLP, levels: np.ndarray) -> None:
    """Raise ValueError unless `levels` is an image (H, W, 3) uint8 that can be protected."""
    check_levels(levels)
    if not isinstance(malp, KeyedMaLP):
        return
    height, width = levels.shape[:2]
    if math.sqrt(height * width) < LEAST_OF_GRID * (grid := malp.config.image_size):
        raise ValueError(
            f"{width}x{height} pixels are too few for the key's reference grid of {grid}x{grid}: untouched, the image would count as edited. It needs the area of "
            f"{round(LEAST_OF_GRID * grid)}x{round(LEAST_OF_GRID * grid)}, or a key with a smaller grid: malp-disc key OUT --malp DIR --reference-size N"
        )


@torch.no_grad()
def inspect_levels(
    malp: MaLP | KeyedMaLP,
    levels: np.ndarray,
    *,
    with_map: bool = True,
    progress: Callable[[int], object] = lambda windows: None,
    issued: Issued | None = None,
) -> Inspection:
    """Map and scores of an image; arguments and errors as for `malp_disc.tiling.inspect_levels`.

    Args:
        issued: with a `KeyedMaLP`, the templates that the image may have.

    Raises:
        ValueError: as there, or a `KeyedMaLP` without `issued`.
    """
    if not isinstance(malp, KeyedMaLP):
        return tiling.inspect_levels(malp, levels, with_map=with_map, progress=progress)
    check_levels(levels)
    if issued is None:
        raise ValueError("expected issued=Issued(...) with the templates that the image may have, since a KeyedMaLP gives every image another")
    images = as_input(malp, levels)
    traced = malp.trace(images, issued)
    which = traced.found
    out = malp(traced.image, which.number, which.alignment)
    progress(1)
    score, similarity = out.score.item(), out.similarity.item()
    window = Window((0, 0, levels.shape[1], levels.shape[0]), score, similarity)
    edited = traced.as_given(out.edited, levels.shape[:2])
    return Inspection(
        (edited[0, 0] * 65535).round().cpu().numpy().astype(np.uint16) if with_map else None,
        score,
        similarity,
        which.number,
        (window,),
        which.presence,
        which.protected,
        traced.resembles,
        traced.mirrored,
        traced.stretched,
        describe_tone(traced.as_given(traced.image, levels.shape[:2]), images) if traced.tone != Tone() else None,
    )


def arrivals(malp: MaLP | KeyedMaLP, levels: np.ndarray, number: int) -> list[np.ndarray]:
    """An untouched image as it may arrive: as it is, and, where templates are made to survive, also after a random degradation chain, which follows from `number`."""
    if not isinstance(malp, KeyedMaLP):
        return [levels]
    return [levels, to_pixels(DegradationChain.seeded(0, 0, number)(as_input(malp, levels)))[0]]


def count_windows(malp: MaLP | KeyedMaLP, height: int, width: int, *, with_map: bool = True) -> int:
    """The number of windows that `inspect_levels` computes."""
    return 1 if isinstance(malp, KeyedMaLP) else tiling.count_windows(malp, height, width, with_map=with_map)


def set_size(malp: MaLP | KeyedMaLP) -> int:
    """The number of templates to choose from."""
    return TEMPLATES if isinstance(malp, KeyedMaLP) else malp.encryption.set_size


def changed_above(malp: MaLP | KeyedMaLP) -> float:
    """The map value above which a pixel counts as changed, unless somebody says otherwise."""
    return malp.config.edited_above if isinstance(malp, KeyedMaLP) else CHANGED_ABOVE


def as_input(malp: KeyedMaLP, levels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1] on the MaLP's device."""
    return from_pixels(levels, malp.device)
