"""Gallery of surviving protection: protected, published, edited, and the region that was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from malp_disc.data.local_edits import LOCAL_EDITS, local_edit, random_masks
from malp_disc.degradations import jpeg, to_8bit
from malp_disc.keyed import KeyedMaLP
from malp_disc.serialization.files import atomic_path


@torch.no_grad()
def survival_gallery(malp: KeyedMaLP, images: Tensor, generated: Callable[[Tensor], Tensor], path: str | Path, *, seed: int = 0) -> None:
    """One row per image, each with another local edit: original, protected, published as JPEG 75, edited, the true region, and the one that is found."""
    from torchvision.utils import save_image  # late: takes as long as torch

    numbers = torch.arange(len(images))
    protected = to_8bit(malp.encrypt(images, numbers)[0])
    published = jpeg(protected, 75)
    regions = random_masks(images, [[seed, 13, i] for i in range(len(images))])
    sources = {"splice": images.roll(1, 0), "generated": generated(published)}
    edits = [LOCAL_EDITS[i % len(LOCAL_EDITS)] for i in range(len(images))]
    rows = [slice(i, i + 1) for i in range(len(images))]
    edited = torch.cat(
        [
            local_edit(published[row], regions[row], kind, sources=sources[kind][row] if kind in sources else None, seed=seed)
            for row, kind in zip(rows, edits)
        ]
    )
    found = malp(to_8bit(edited), numbers).edited
    columns = [images, protected, published, edited, (regions.float() * 2 - 1).expand_as(images), (found * 2 - 1).expand_as(images)]
    cells = torch.stack(columns, 1).flatten(0, 1)
    with atomic_path(Path(path)) as temporary:
        save_image((cells + 1) / 2, temporary, nrow=len(columns), padding=2, pad_value=1.0, format="png")
