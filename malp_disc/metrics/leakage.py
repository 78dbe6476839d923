"""Leakage: attributes that nobody asked to change, and that changed all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Leakage:
    """Shares in [0, 1] of the entries that were to stay; None where none was to."""

    share: float | None  # over all attributes
    per_attribute: dict[str, float | None]


def leakage(before: Tensor, after: Tensor, requested: Tensor, *, attribute_names: Sequence[str]) -> Leakage:
    """How often a classifier reads an attribute differently after an edit that didn't ask for it.

    It is read twice, in the image and in its edit, so an attribute that the classifier reads wrongly both times is no leak.

    Args:
        before, after: (B, A), the classifier's logits of the images and of their edits; above 0 means present.
        requested: (B, A) bool, entries that were asked to change.

    Raises:
        ValueError: shapes that differ, names of another number, or logits that are not finite.
    """
    if (
        before.ndim != 2
        or not before.shape == after.shape == requested.shape
        or len(attribute_names) != before.shape[1]
        or len(before) == 0
    ):
        shapes = f"{tuple(before.shape)}, {tuple(after.shape)}, {tuple(requested.shape)} and {len(attribute_names)} names"
        raise ValueError(f"expected before, after and requested of one shape (B, A) and A names, got {shapes}")
    if not (before.isfinite().all() and after.isfinite().all()):
        raise ValueError("the classifier's logits are not finite; look at the edited images")
    changed, kept = (before > 0) != (after > 0), ~requested
    per_attribute = {name: _share(changed[:, i][kept[:, i]]) for i, name in enumerate(attribute_names)}
    return Leakage(_share(changed[kept]), per_attribute)


def _share(changed: Tensor) -> float | None:
    return changed.to(torch.float64).mean().item() if changed.numel() else None
