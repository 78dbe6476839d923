"""Converts labels to the conditions of attribute editors, by the rules of StarGAN, AttGAN and STGAN, with shared checks.

All three describe a face by a row of 0 and 1, one column per attribute (CelebA's -1 means 0). They differ in what an edit of one attribute does to
the others:

    StarGAN, and the PyTorch port of STGAN   a hair colour is set and the others cleared, even if it was already set; other attributes are flipped:
                                             `malp_disc.metrics.editing.one_attribute_targets`
    AttGAN, and the authors' own STGAN       every attribute is flipped, hair too; setting one clears those that it excludes: `flip_attribute`

The network's condition is StarGAN's labels themselves, AttGAN's labels minus one half (`attgan.attgan_target` adds the exaggeration of
its test script), and the change of the labels for STGAN: `difference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from malp_disc.metrics.editing import HAIR_COLOURS

# The order of the columns, by network.
CELEBA_13 = (  # AttGAN, and the authors' own STGAN
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "No_Beard",
    "Pale_Skin",
    "Young",
)
CELEBA_10 = (  # the PyTorch port of STGAN
    "Bangs",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Pale_Skin",
    "Young",
)


def _each_other(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(other for other in names if other != name) for name in names}


# An attribute, and those that setting it clears. A slip of the official code is kept: No_Beard clears Mustache, Mustache clears No_Beard, in AttGAN only.
STGAN_CONFLICTS: Mapping[str, tuple[str, ...]] = {
    "Bald": ("Bangs",),
    "Receding_Hairline": ("Bangs",),
    "Bangs": ("Bald", "Receding_Hairline"),
    **_each_other(*HAIR_COLOURS),
    **_each_other("Straight_Hair", "Wavy_Hair"),
}
ATTGAN_CONFLICTS: Mapping[str, tuple[str, ...]] = {**STGAN_CONFLICTS, **_each_other("Mustache", "No_Beard")}


def flip_attribute(
    labels: Tensor, names: Sequence[str], attribute: str, conflicts: Mapping[str, Sequence[str]] = ATTGAN_CONFLICTS
) -> Tensor:
    """Target labels with one attribute flipped: where it is set, the attributes that it excludes are cleared; where it is cleared, nothing else changes.

    Shape: labels (B, A) in {0, 1} -> (B, A).

    Raises:
        ValueError: labels of another shape or other than 0 and 1, or an unknown attribute.
    """
    names = list(names)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(f"expected labels (B, {len(names)}) for {names}, got {tuple(labels.shape)}")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError(f"expected labels of 0 and 1, got {labels.unique()[:5].tolist()}; CelebA's -1 means 0")
    if attribute not in names:
        raise ValueError(f"unknown attribute {attribute!r}; choose from {names}")
    column = names.index(attribute)
    wanted = labels.clone()
    wanted[:, column] = 1 - labels[:, column]
    excluded = [names.index(name) for name in conflicts.get(attribute, ()) if name in names]
    for other in excluded:
        wanted[:, other] = torch.where(wanted[:, column] == 1, 0, wanted[:, other])
    return wanted


def check_target(target: Tensor | None, shape: tuple[int, ...], low: float, high: float, meaning: str) -> None:
    """Check a target's shape and range.

    Raises:
        ValueError: another shape, or a value outside [low, high]; the message says what the target means.
    """
    if not isinstance(target, Tensor) or target.shape != shape:
        got = tuple(target.shape) if isinstance(target, Tensor) else target
        raise ValueError(f"expected a target of shape {shape}, {meaning}, got {got}")
    if target.numel() and not ((target >= low) & (target <= high)).all():  # written so that NaN is refused
        raise ValueError(f"expected a target in [{low:g}, {high:g}], {meaning}, got {target.min().item():g} to {target.max().item():g}")


def tell(x: Tensor, condition: Tensor) -> Tensor:
    """Features concatenated with a condition, expanded over space: (B, C, h, w), (B, A) -> (B, C + A, h, w)."""
    return torch.cat([x, condition.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


def check_condition(condition: Tensor, shape: tuple[int, int], column: str) -> None:
    """Check the shape of a condition. Raises: ValueError: another shape."""
    if condition.shape != shape:
        raise ValueError(f"expected a condition of shape {shape}, one column per {column}, got {tuple(condition.shape)}")


def difference(target: Tensor | None, images: Tensor, attributes: int) -> Tensor:
    """STGAN's condition from a target: (B, A) unchanged, (B, 2, A) as first minus second, None as zeros. Raises as `STGANGenerator.manipulate`."""
    if target is None:
        return images.new_zeros(len(images), attributes)
    if target.ndim == 3:
        check_target(target, (len(images), 2, attributes), 0, 1, "the wanted and the present labels as 0 and 1 (CelebA's -1 means 0)")
        wanted, present = target.to(images.dtype).unbind(dim=1)
        return wanted - present
    meaning = "the change of each attribute (1 brings, -1 takes away, 0 leaves); or (B, 2, A): wanted labels, present labels"
    check_target(target, (len(images), attributes), -1, 1, meaning)
    return target.to(images.dtype)
