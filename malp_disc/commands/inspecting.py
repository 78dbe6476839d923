"""MaLP's predictions for one image of any size, with a progress bar, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from malp_disc.inspection import count_windows, inspect_levels, recognised
from malp_disc.malp import MaLP
from malp_disc.tiling import Inspection, Window

_MANY_WINDOWS = 200  # an image with at least this many gets its own progress bar
UNPROTECTED = "not protected with this key, or no template left"
"""What there is to say of an image whose record has ``protected: false``: it scores as an edited one does, whatever happened to it."""


def inspect_with_progress(malp: MaLP, levels: np.ndarray, name: str, *, with_map: bool = True) -> Inspection:
    """`inspect_levels`, with a bar over the windows of a large image."""
    count = count_windows(malp, *levels.shape[:2], with_map=with_map)
    with tqdm(total=count, desc=name, unit="window", leave=False, disable=count < _MANY_WINDOWS) as bar:
        return inspect_levels(malp, levels, with_map=with_map, progress=bar.update)


def describe(malp: MaLP, levels: np.ndarray, found: Inspection) -> dict[str, Any]:
    """Size, scores, and the window with the highest score; similarity and template are None for a passive detector.

    With keyed templates, also whether the template is present at all (`presence`, in standard deviations, and `protected`).
    """
    height, width = levels.shape[:2]
    ours = {} if found.presence is None else {"presence": round(found.presence, 2), "protected": recognised(malp, found)}
    return {
        "width": width,
        "height": height,
        "score": round(found.score, 5),
        "similarity": None if malp.passive else round(found.similarity, 5),
        "template": None if malp.passive else found.template,
        **ours,
        "windows": len(found.windows),
        "worst_window": describe_window(malp, found.worst),
    }


def count_unprotected(records: Sequence[dict[str, Any]]) -> str:
    """``"2 of 7 images not protected …"``; empty if there are none, and without keyed templates, whose absence can't be told."""
    count = sum(record.get("protected") is False for record in records)
    return f"{count} of {len(records)} image{'s' * (len(records) != 1)} not protected with this key, or without any of its template left" if count else ""


def describe_window(malp: MaLP, window: Window) -> dict[str, Any]:
    """Position and scores of a window."""
    similarity = None if malp.passive else round(window.similarity, 5)
    return {"box": list(window.box), "score": round(window.score, 5), "similarity": similarity}
