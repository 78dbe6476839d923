"""Label maps, the input of semantic image synthesis (SPADE, SEAN): one-hot encoding, instance boundaries, checks."""

from __future__ import annotations

import torch
from torch import Tensor

UNKNOWN = 255
"""Value of unlabelled pixels in label images."""


def one_hot(labels: Tensor, count: int) -> Tensor:
    """One-hot encoding of a label map: (B, H, W) -> (B, count, H, W) float32.

    Raises:
        ValueError: a label that isn't an integer in 0 … count - 1.
    """
    whole = labels.long()
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= count:
        raise ValueError(
            f"expected labels that are whole numbers in 0 … {count - 1}, got {labels.min().item():g} … {labels.max().item():g}"
        )
    map_ = torch.zeros(len(whole), count, *whole.shape[1:], device=whole.device)
    return map_.scatter_(1, whole[:, None], 1.0)


def edges(instances: Tensor) -> Tensor:
    """Instance boundaries: 1 where a pixel's instance id differs from that of one of its four neighbours, else 0.

    Shape: (B, 1, H, W) -> the same, float32.
    """
    marked = torch.zeros_like(instances, dtype=torch.bool)
    across, down = instances[..., 1:] != instances[..., :-1], instances[..., 1:, :] != instances[..., :-1, :]
    for part, border in (
        (marked[..., 1:], across),
        (marked[..., :-1], across),
        (marked[..., 1:, :], down),
        (marked[..., :-1, :], down),
    ):
        part |= border
    return marked.float()


def check_label_map(images: Tensor, target: Tensor | None, why: str, maps: int) -> None:
    """Check that `target` consists of 1 … `maps` label maps of the images' size.

    Raises:
        ValueError: it doesn't, or is None; `why` begins the message in that case.
    """
    count, _, height, width = images.shape
    shapes = [(count, height, width)] + [(count, i + 1, height, width) for i in range(maps)]
    expected = " or ".join(map(str, shapes))
    if target is None:
        raise ValueError(f"{why}: give the labels of all pixels as the target, {expected}")
    if tuple(target.shape) not in shapes:
        raise ValueError(f"expected as the target a label map of the images' size, {expected}, got {tuple(target.shape)}")
