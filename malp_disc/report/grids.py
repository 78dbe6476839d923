"""``samples.png`` and ``fakeness.png``, from the strips in a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from malp_disc.plotting.image_grids import PINK_VMAX, draw_grid, pink
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.strips import Strip

_SHOWN = 128  # pixels, the least size of an image on the page


def samples_figure(strips: Sequence[Strip], path: str | Path) -> bool:
    """Draw the same inputs through every arm, and the perfect edits where they are known; False, and nothing drawn, without any strips."""
    table = {(strip.arm, strip.kind): strip for strip in strips}
    edited = {arm: table[arm, "edited"] for arm in ARMS if (arm, "edited") in table}
    inputs = {kind: table[None, kind] for kind in ("real", "encrypted") if (None, kind) in table}
    if not edited:
        return False
    perfect = {"perfect edit": table[None, "perfect"]} if (None, "perfect") in table else {}
    columns = {name: strip.images for name, strip in {**inputs, **edited, **perfect}.items()}
    return _draw(columns, next(iter(edited.values())), path)


def fakeness_figure(strips: Sequence[Strip], path: str | Path) -> bool:
    """Draw the paper's Figure 3 for the first arm that has maps; False, and nothing drawn, without any."""
    table = {(strip.arm, strip.kind): strip for strip in strips}
    arm = next((arm for arm in ARMS if (arm, "map") in table), None)
    wanted = [(None, "real"), (None, "encrypted"), (arm, "manipulated"), (arm, "truth"), (None, "map_encrypted"), (arm, "map")]
    if arm is None or any(key not in table for key in wanted):
        return False
    headings = ("real", "encrypted", f"{arm}: manipulated", "M_GT, ground truth", "map of encrypted", "map of manipulated")
    columns = {heading: table[key].images for heading, key in zip(headings, wanted)}
    columns = {heading: pink(levels / 255) if levels.ndim == 3 else levels for heading, levels in columns.items()}
    return _draw(columns, table[arm, "map"], path, vmax=PINK_VMAX)


def _draw(columns: dict[str, np.ndarray], captioned: Strip, path: str | Path, *, vmax: float | None = None) -> bool:
    captions = [caption or "" for caption in captioned.captions]
    draw_grid(columns, path, zoom=max(1, _SHOWN // captioned.images.shape[2]), captions=captions if any(captions) else None, vmax=vmax)
    return True
