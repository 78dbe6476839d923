"""The page's images: every strip once, as a data URI for the style sheet, and the two parts of the page that show them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from malp_disc.plotting.image_grids import PINK_VMAX, pink
from malp_disc.run_folder.arms import ARMS, CANDIDATES
from malp_disc.run_folder.strips import Strip


@dataclass(frozen=True)
class PageImage:
    """A strip of `count` images below each other as a CSS class: a PNG as a data URI. ``--row`` selects the image that is shown."""

    name: str
    count: int
    width: int
    height: int
    data: str


@dataclass(frozen=True)
class Comparison:
    """Two arms over each other with a slider; `ramp` has the colours of the maps' scale, empty without maps."""

    arms: Sequence[str]
    left: str
    right: str
    captions: Sequence[str | None]
    thumbnails: str
    ramp: Sequence[str]
    ramp_end: str
    of_seed: str

    @property
    def captions_json(self) -> str:
        return json.dumps(self.captions)


@dataclass(frozen=True)
class Extremes:
    """The images with the highest and lowest score of the detector: captions by kind ("worst", "best") by arm."""

    strips: Mapping[str, Mapping[str, Sequence[str | None]]]
    chosen: str
    of_seed: str


def page_images(strips: Sequence[Strip]) -> list[PageImage]:
    """Every strip as a CSS class."""
    return [_page_image(strip) for strip in strips]


def comparison_of(strips: Sequence[Strip], of_seed: str = "") -> Comparison | None:
    """What the slider shows; None without images of two arms."""
    table = {(strip.kind, strip.arm): strip for strip in strips}
    arms = [arm for arm in ARMS if ("edited", arm) in table]
    if len(arms) < 2:
        return None
    left, right = arms[0], next((arm for arm in ("cotrain", *CANDIDATES) if arm in arms), arms[-1])
    has_maps = all((kind, arm) in table for kind in ("map", "truth") for arm in arms)
    return Comparison(
        arms=arms,
        left=left,
        right=right,
        captions=table["edited", left].captions,
        thumbnails="real-" if ("real", None) in table else f"edited-{left}",
        ramp=[f"rgb({','.join(map(str, pink(np.array([[share * PINK_VMAX]]))[0, 0]))})" for share in np.linspace(0, 1, 9)] if has_maps else [],
        ramp_end=f"{PINK_VMAX:g}",
        of_seed=of_seed,
    )


def extremes_of(strips: Sequence[Strip], of_seed: str = "") -> Extremes | None:
    """The images with the detector's highest and lowest scores; None if there are none."""
    table = {(strip.kind, strip.arm): strip.captions for strip in strips}
    arms = [arm for arm in ARMS if ("worst", arm) in table]
    if not arms:
        return None
    shown = {arm: {kind: table[kind, arm] for kind in ("worst", "best") if (kind, arm) in table} for arm in arms}
    return Extremes(shown, next((arm for arm in ("cotrain", *CANDIDATES) if arm in arms), arms[-1]), of_seed)


def _page_image(strip: Strip) -> PageImage:
    count, height, width = strip.images.shape[:3]
    image = Image.fromarray(strip.images.reshape(count * height, *strip.images.shape[2:]))
    if strip.images.ndim == 3:  # a map: a palette takes a third of the bytes
        image.putpalette(pink(np.arange(256)[None] / 255).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return PageImage(f"{strip.kind}-{strip.arm or ''}", count, width, height, f"data:image/png;base64,{data}")
