"""MaLP's predictions for one image of any size, with a progress bar, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from malp_disc.data.listing import printable
from malp_disc.inspection import count_windows, inspect_levels
from malp_disc.keyed.issued import Issued
from malp_disc.malp import MaLP
from malp_disc.tiling import Inspection, Window

_MANY_WINDOWS = 200  # an image with at least this many gets its own progress bar
UNPROTECTED = "not protected with this key, or no template left"
"""What there is to say of an image whose record has ``protected: false``: it scores as an edited one does, whatever happened to it."""


def inspect_with_progress(malp: MaLP, levels: np.ndarray, name: str, *, with_map: bool = True, issued: Issued | None = None) -> Inspection:
    """`inspect_levels`, with a bar over the windows of a large image."""
    count = count_windows(malp, *levels.shape[:2], with_map=with_map)
    with tqdm(total=count, desc=name, unit="window", leave=False, disable=count < _MANY_WINDOWS) as bar:
        return inspect_levels(malp, levels, with_map=with_map, progress=bar.update, issued=issued)


def describe(malp: MaLP, levels: np.ndarray, found: Inspection, issued: Issued | None = None) -> dict[str, Any]:
    """Size, scores, and the window with the highest score; similarity and template are None for a passive detector.

    With keyed templates, also whether one of those that were issued is present (`presence`, in standard deviations, and `protected`), the `original` that got it, the one that the
    image `resembles`, whether it has its template or not, and how many templates were `tried`, with a fingerprint of these (`issued`). Without one that is present, template and original are None.
    What was done to the image as a whole, and undone before it was examined, is told by `mirrored`, `stretched` (ratio of width to height, in relation to the original's) and `tone`.
    """
    height, width = levels.shape[:2]
    ours, own = {}, not malp.passive
    if issued is not None:
        own = bool(found.protected)
        names = {"original": issued.names.get(found.template) if own else None, "resembles": issued.names.get(found.resembles)}
        ours = {"presence": round(found.presence, 2), "protected": own, **names, "tried": len(issued.numbers), "issued": issued.fingerprint}
        ours |= {"mirrored": found.mirrored, "stretched": round(found.stretched, 3), "tone": found.tone}
    return {
        "width": width,
        "height": height,
        "score": round(found.score, 5),
        "similarity": None if malp.passive else round(found.similarity, 5),
        "template": found.template if own else None,
        **ours,
        "windows": len(found.windows),
        "worst_window": describe_window(malp, found.worst),
    }


def count_unprotected(records: Sequence[dict[str, Any]]) -> str:
    """``"2 of 7 images not protected …"``; empty if there are none, and without keyed templates, whose absence can't be told."""
    found = [record for record in records if record.get("protected") is False]
    known = sum(record["resembles"] is not None for record in found)
    also = f" ({known} of them resemble{'s' * (known == 1)} an image that was)" if known else ""
    return f"{len(found)} of {len(records)} image{'s' * (len(records) != 1)} not protected with this key, or without any of its template left{also}" if found else ""


def of_original(record: Mapping[str, Any]) -> str:
    """``", protected as photos/a.jpg, mirrored since"`` or, without a template, ``", resembles photos/a.jpg"`` where that is known, for the line of an image."""
    if record.get("protected"):
        seen = {"mirrored": record.get("mirrored"), "stretched": record.get("stretched", 1) != 1, "changed in tone": record.get("tone") is not None}  # not in the records of former versions
        changes = [change for change, there in seen.items() if there]
        name = f", protected as {printable(record['original'])}" if record.get("original") else ""
        return name + (f", {' and '.join(changes)} since" if changes else "")
    return f", resembles {printable(record['resembles'])}" if record.get("resembles") else ""


def describe_window(malp: MaLP, window: Window) -> dict[str, Any]:
    """Position and scores of a window."""
    similarity = None if malp.passive else round(window.similarity, 5)
    return {"box": list(window.box), "score": round(window.score, 5), "similarity": similarity}
