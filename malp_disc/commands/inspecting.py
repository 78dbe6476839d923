"""An image looked at by MaLP, with progress, and what was found as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from malp_disc.malp import MaLP
from malp_disc.tiling import Inspection, Window, count_windows, inspect_levels

_MANY_WINDOWS = 200  # from here on an image gets a progress bar of its own


def inspect_with_progress(malp: MaLP, levels: np.ndarray, name: str, *, with_map: bool = True) -> Inspection:
    """`inspect_levels`, with a bar over the windows of a large image."""
    count = count_windows(malp, *levels.shape[:2], with_map=with_map)
    with tqdm(total=count, desc=name, unit="window", leave=False, disable=count < _MANY_WINDOWS) as bar:
        return inspect_levels(malp, levels, with_map=with_map, progress=bar.update)


def describe(malp: MaLP, levels: np.ndarray, found: Inspection) -> dict[str, Any]:
    """Size, scores, and the worst window; similarity and template are None for a passive detector."""
    height, width = levels.shape[:2]
    return {
        "width": width,
        "height": height,
        "score": round(found.score, 5),
        "similarity": None if malp.passive else round(found.similarity, 5),
        "template": None if malp.passive else found.template,
        "windows": len(found.windows),
        "worst_window": describe_window(malp, found.worst),
    }


def describe_window(malp: MaLP, window: Window) -> dict[str, Any]:
    """Where it is and what was found there."""
    similarity = None if malp.passive else round(window.similarity, 5)
    return {"box": list(window.box), "score": round(window.score, 5), "similarity": similarity}
