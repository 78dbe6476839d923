"""Random masks of local edits: rectangles, ellipses and brush strokes that cover a given share of an image."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

MaskShape = Literal["rectangle", "ellipse", "brush"]
MASK_SHAPES: tuple[MaskShape, ...] = get_args(MaskShape)
SHARES = (0.05, 0.4)
"""Default range of the share that a mask covers."""


def random_mask(
    height: int, width: int, random: np.random.Generator, *, shape: MaskShape | None = None, shares: tuple[float, float] = SHARES
) -> np.ndarray:
    """A mask (H, W) of bool that covers a share drawn uniformly from `shares`, up to rounding to pixels.

    Args:
        shape: drawn uniformly from `MASK_SHAPES` if None.

    Raises:
        ValueError: an unknown shape, or shares that aren't an interval in (0, 0.6]; an ellipse that covers more doesn't fit into the image.
    """
    low, high = shares
    if not 0 < low <= high <= 0.6:
        raise ValueError(f"expected shares of the image as an interval in (0, 0.6], got {low} … {high}")
    if shape is not None and shape not in MASK_SHAPES:
        raise ValueError(f"expected a mask shape out of {', '.join(MASK_SHAPES)}, got {shape!r}")
    shape = shape or MASK_SHAPES[random.integers(len(MASK_SHAPES))]
    share = random.uniform(low, high)
    if shape == "brush":
        return _brush(height, width, share, random)
    full = share if shape == "rectangle" else share * 4 / np.pi  # of the bounding box
    tall = np.clip(np.sqrt(full) * np.exp(random.uniform(-0.4, 0.4)), full, 1.0)  # share of the height; the width's is full / tall
    box = np.array([tall * height, full / tall * width])
    top, left = random.uniform(0, 1, 2) * (np.array([height, width]) - box)
    y, x = np.arange(height)[:, None] + 0.5 - top - box[0] / 2, np.arange(width) + 0.5 - left - box[1] / 2
    if shape == "rectangle":
        return (np.abs(y) <= box[0] / 2) & (np.abs(x) <= box[1] / 2)
    return (2 * y / box[0]) ** 2 + (2 * x / box[1]) ** 2 <= 1


def _brush(height: int, width: int, share: float, random: np.random.Generator) -> np.ndarray:
    """Smooth strokes of a round brush, until they cover `share`."""
    mask = np.zeros((height, width), bool)
    radius = np.sqrt(height * width) * random.uniform(0.05, 0.1)
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    place, angle = random.uniform(0.2, 0.8, 2) * (height, width), random.uniform(0, 2 * np.pi)
    while mask.mean() < share:
        mask |= (rows - place[0]) ** 2 + (columns - place[1]) ** 2 <= radius**2
        angle += random.normal(0, 0.4)
        place = place + radius / 2 * np.array([np.sin(angle), np.cos(angle)])
        if not (0 <= place[0] < height and 0 <= place[1] < width):  # lifted, and put down elsewhere
            place, angle = random.uniform(0, 1, 2) * (height, width), random.uniform(0, 2 * np.pi)
    return mask
