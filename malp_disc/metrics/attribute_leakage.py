"""Attribute leakage: how often an edit changes attributes that weren't requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Leakage:
    """Shares in [0, 1] of the entries not requested that changed; None if all were requested."""

    share: float | None  # over all attributes
    per_attribute: dict[str, float | None]


def leakage(before: Tensor, after: Tensor, requested: Tensor, *, attribute_names: Sequence[str]) -> Leakage:
    """Share of attributes, not requested by the edit, whose prediction by a classifier changes.

    The classifier is applied to the image and to its edit, so an attribute that it predicts wrongly in both isn't counted.

    Args:
        before, after: (B, A), logits of the images and of their edits; above 0 means present.
        requested: (B, A) bool, entries that the edit was requested to change.

    Raises:
        ValueError: different shapes, another number of names, or logits that are not finite.
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
        raise ValueError("the classifier's logits are not finite; check the edited images")
    changed, kept = (before > 0) != (after > 0), ~requested
    per_attribute = {name: _share(changed[:, i][kept[:, i]]) for i, name in enumerate(attribute_names)}
    return Leakage(_share(changed[kept]), per_attribute)


def _share(changed: Tensor) -> float | None:
    return changed.to(torch.float64).mean().item() if changed.numel() else None
