"""A sample grid of an attribute editor: one row per image, one column per edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid, save_image

from malp_disc.metrics.editing import one_attribute_targets
from malp_disc.serialization.files import atomic_path


@torch.no_grad()
def attribute_grid(generator: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, names: Sequence[str], path: Path) -> None:
    """Save a grid: every image, its reconstruction with its own labels, and an edit of every attribute (hair colours are set, others flipped).

    Args:
        generator: (images, desired labels) -> images, all (B, 3, H, W) in [-1, 1].
        images, labels: (B, 3, H, W) in [-1, 1] and (B, A) in {0, 1}.
        names: of the A attributes.
    """
    targets = [labels, *(one_attribute_targets(labels, names, name) for name in names)]
    columns = [images, *(generator(images, target) for target in targets)]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    with atomic_path(path) as temporary:
        save_image(make_grid((rows.clamp(-1, 1) + 1) / 2, nrow=len(columns), padding=1), temporary)
