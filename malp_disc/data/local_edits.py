"""Local edits with their true masks: a region is moved, pasted, inpainted, generated or retouched, and the rest of the image stays as it is.

    copy_move    from another place of the same image
    splice       from another image, at the same place
    inpaint      filled smoothly from the region's border (the solution of Laplace's equation), with the noise of a camera
    generated    the same region of a generator's edit
    retouch      its brightness, contrast and colours are changed, and its details stay

They train and test localization. Pasting is without feathering: blending would only make the border's true place ambiguous.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.data.masks import SHARES, random_mask
from malp_disc.runtime.input_checks import check_images

LocalEdit = Literal["copy_move", "splice", "inpaint", "generated", "retouch"]
LOCAL_EDITS: tuple[LocalEdit, ...] = get_args(LocalEdit)
_NOISE = 2 / 127.5  # standard deviation of inpainting's noise, two grey levels: without any, it would be found by its smoothness alone
_VISIBLE = 8 / 127.5  # least mean change by retouching, eight grey levels
_SWEEPS = 30  # of Jacobi's iteration on each level of the pyramid


def random_masks(images: Tensor, seeds: list[list[int]], shares: tuple[float, float] = SHARES) -> Tensor:
    """A mask of `random_mask` for each image, (B, 1, H, W) of bool; `seeds` has one list of integers for each, such as [seed, step, image]."""
    if len(seeds) != len(images):
        raise ValueError(f"expected a seed for each of {len(images)} images, got {len(seeds)}")
    masks = [random_mask(*images.shape[2:], np.random.default_rng(seed), shares=shares) for seed in seeds]
    return torch.from_numpy(np.stack(masks))[:, None].to(images.device)


def local_edit(images: Tensor, masks: Tensor, kind: LocalEdit, *, sources: Tensor | None = None, seed: int = 0) -> Tensor:
    """`images` with the masked regions replaced.

    Shapes: images and sources (B, 3, H, W) in [-1, 1], masks (B, 1, H, W) of bool -> (B, 3, H, W).

    Args:
        kind: one of `LOCAL_EDITS`.
        sources: what is pasted: other images for "splice", the generator's for "generated"; not needed by the others.
        seed: of the inpainting's noise, and of what retouching does.

    Raises:
        ValueError: shapes that don't fit together, an unknown kind, or missing sources.
    """
    check_images(images)
    if masks.shape != (len(images), 1, *images.shape[2:]) or masks.dtype != torch.bool:
        raise ValueError(f"expected boolean masks of shape {(len(images), 1, *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}")
    if kind not in LOCAL_EDITS:
        raise ValueError(f"expected a local edit out of {', '.join(LOCAL_EDITS)}, got {kind!r}")
    if kind in ("splice", "generated"):
        if sources is None or sources.shape != images.shape:
            raise ValueError(
                f"{kind} pastes from sources of the images' shape {tuple(images.shape)}, got {None if sources is None else tuple(sources.shape)}"
            )
        pasted = sources
    elif kind == "copy_move":
        pasted = moved(images, masks)
    else:
        pasted = (inpainted if kind == "inpaint" else retouched)(images, masks, seed=seed)
    return torch.where(masks, pasted.to(images.dtype), images)


def moved(images: Tensor, masks: Tensor) -> Tensor:
    """Each image rolled so that the masked region shows the place opposite to it, by half the image's sides at most: (B, 3, H, W)."""
    height, width = images.shape[2:]
    rolled = []
    for image, mask in zip(images, masks):
        rows, columns = mask[0].nonzero(as_tuple=True)
        down = height // 3 if rows.float().mean() > height / 2 else -(height // 3)
        right = width // 3 if columns.float().mean() > width / 2 else -(width // 3)
        rolled.append(torch.roll(image, (down, right), dims=(1, 2)))
    return torch.stack(rolled) if rolled else images


def inpainted(images: Tensor, masks: Tensor, *, seed: int = 0) -> Tensor:
    """Masked regions filled by the solution of Laplace's equation with the border's values, plus noise of two grey levels; clamped to [-1, 1].

    Solved from coarse to fine: the result at half the size starts Jacobi's iteration at the full size.
    """
    filled = _harmonic(images.float(), masks)
    noise = torch.randn(filled.shape, generator=torch.Generator().manual_seed(seed)).to(filled.device)
    return torch.where(masks, filled + _NOISE * noise, images.float()).clamp(-1, 1)


def retouched(images: Tensor, masks: Tensor, *, seed: int = 0) -> Tensor:
    """Whole images with another brightness and contrast, other colours, or both, drawn with `seed`; clamped to [-1, 1].

    Brightness changes by up to 40 grey levels and contrast by up to half; colours turn around the grey axis, and their saturation is multiplied by 0 to 1.5. Where that changes an image by less than eight
    levels in the mean over its mask, it also gets 20 levels brighter or darker.
    """
    random = np.random.default_rng([seed, 23])
    return torch.cat([_retouched(image, mask, random) for image, mask in zip(images.float().split(1), masks.split(1))]) if len(images) else images


def _retouched(image: Tensor, mask: Tensor, random: np.random.Generator) -> Tensor:
    parts = random.integers(3)  # light, colour, both
    gain, offset = (np.exp(random.uniform(-0.7, 0.4)), random.uniform(-40, 40) / 127.5) if parts != 1 else (1.0, 0.0)
    angle, saturation = (random.uniform(0, 2 * np.pi), random.uniform(0, 1.5)) if parts != 0 else (0.0, 1.0)
    grey = image.mean(1, keepdim=True)
    middle = grey[mask].mean() if mask.any() else grey.mean()
    turned = torch.einsum("oc,bchw->bohw", _around_grey(angle).to(image), image - grey)
    changed = (middle + gain * (grey - middle) + offset + saturation * turned).clamp(-1, 1)
    if ((changed - image).abs() * mask).sum() < _VISIBLE * 3 * mask.sum():
        changed = (changed + (20 / 127.5 if middle < 0 else -20 / 127.5)).clamp(-1, 1)  # away from the nearer end of the range
    return changed


def _around_grey(angle: float) -> Tensor:
    """Rotation of colours by an angle around the grey axis, (3, 3)."""
    along = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    return along + np.cos(angle) * (torch.eye(3) - along) + np.sin(angle) * cross


def _harmonic(images: Tensor, masks: Tensor) -> Tensor:
    known = (~masks).float()
    start = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    if min(images.shape[2:]) >= 4:
        weight = F.avg_pool2d(known, 2, ceil_mode=True)
        coarse = F.avg_pool2d(images * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
        start = F.interpolate(_harmonic(coarse, weight == 0), size=images.shape[2:], mode="bilinear", align_corners=False)
    current = torch.where(masks, start, images)
    for _ in range(_SWEEPS):
        around = F.pad(current, (1, 1, 1, 1), mode="replicate")
        mean = (around[:, :, :-2, 1:-1] + around[:, :, 2:, 1:-1] + around[:, :, 1:-1, :-2] + around[:, :, 1:-1, 2:]) / 4
        current = torch.where(masks, mean, images)
    return current
