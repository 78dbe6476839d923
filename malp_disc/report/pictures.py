"""The page's images: strips as data in the style sheet, each once, and the blocks that show parts of them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from malp_disc.plotting.image_grids import PINK_VMAX, pink
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.strips import Strip

Table = Mapping[tuple[str, str | None], Strip]


def strip_styles(strips: Iterable[Strip]) -> str:
    """A CSS class for every strip; ``--row`` says which of its images is seen."""
    return "\n".join(_style(strip) for strip in strips)


def comparison_block(strips: Sequence[Strip]) -> str:
    """Two arms over each other with a slider, for the same inputs, and their fakeness maps; empty without two arms."""
    table = {(strip.kind, strip.arm): strip for strip in strips}
    arms = [arm for arm in ARMS if ("edited", arm) in table]
    if len(arms) < 2:
        return ""
    left, right = arms[0], next((arm for arm in ("cotrain", "frozen", "passive") if arm in arms), arms[-1])
    faces = table["edited", left]
    seen = "real-" if ("real", None) in table else f"edited-{left}"
    thumbs = "".join(
        f'<button type="button" data-row="{row}" aria-label="input {row + 1}" aria-pressed="{str(row == 0).lower()}">'
        f'<span class="strip {seen}" style="--row:{row}"></span></button>'
        for row in range(len(faces.pictures))
    )
    captions = escape(json.dumps(faces.captions), quote=True)
    return f"""<div id="compare" data-captions="{captions}">
<div class="pick"><label>left {_select("left", arms, left)}</label><label>right {_select("right", arms, right)}</label>
<button id="flip" type="button">flip</button></div>
<div class="compare"><div>
<div class="stage" style="--cut:50%"><span class="strip edited-{left}" data-kind="edited" data-side="left"></span>
<span class="strip edited-{right} over" data-kind="edited" data-side="right" data-over="over"></span><span class="edge"></span>
<b class="left" data-name="left">{left}</b><b class="right" data-name="right">{right}</b></div>
<input id="cut" type="range" min="0" max="100" value="50" aria-label="how much of the left generator is seen">
</div><div>
<p>asked for: <strong id="asked">{escape(faces.captions[0] or "")}</strong></p>
<div class="thumbs">{thumbs}</div>
{_maps(table, arms, left, right)}
</div></div></div>"""


def extremes_block(strips: Sequence[Strip]) -> str:
    """The images that MaLP is surest of, and least sure, by arm; empty if there are none."""
    table = {(strip.kind, strip.arm): strip for strip in strips}
    arms = [arm for arm in ARMS if ("worst", arm) in table]
    if not arms:
        return ""
    chosen = next((arm for arm in ("cotrain", "frozen") if arm in arms), arms[-1])
    blocks = []
    for arm in arms:
        rows = [("worst", "Worst: MaLP is surest that these are manipulated"), ("best", "Best: MaLP is least sure")]
        shown = [f"<h3>{text}</h3>{_tiles(table[kind, arm])}" for kind, text in rows if (kind, arm) in table]
        blocks.append(f'<div data-arm="{arm}"{"" if arm == chosen else " hidden"}>{"".join(shown)}</div>')
    return f'<div id="extremes"><div class="pick"><label>generator {_select("which", arms, chosen)}</label></div>{"".join(blocks)}</div>'


def _maps(table: Table, arms: Sequence[str], left: str, right: str) -> str:
    """Below the thumbnails: the encrypted input through either arm, what changed, and what MaLP says changed."""
    if any(("map", arm) not in table or ("truth", arm) not in table for arm in arms):
        return ""
    cells = []
    for side, arm in (("left", left), ("right", right)):
        for kind, text in {"manipulated": "", "truth": "what it changed (M_GT)", "map": "what MaLP says"}.items():
            caption = f'<span data-name="{side}">{arm}</span>, encrypted input' if kind == "manipulated" else text
            cells.append(
                f'<figure><span class="strip {kind}-{arm}" data-kind="{kind}" data-side="{side}"></span>'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    ramp = ",".join(f"rgb({','.join(map(str, pink(np.array([[share * PINK_VMAX]]))[0, 0]))})" for share in np.linspace(0, 1, 9))
    return (
        f'<div class="pairs">{"".join(cells)}</div><div class="scale" style="background:linear-gradient(90deg,{ramp})"></div>'
        f'<div class="ends"><span>0</span><span>change per pixel, one scale for all maps</span><span>{PINK_VMAX:g} or more</span></div>'
    )


def _tiles(strip: Strip) -> str:
    tiles = [
        f'<figure><span class="strip {strip.kind}-{strip.arm or ""}" style="--row:{row}"></span>'
        f"<figcaption>{escape(caption or '')}</figcaption></figure>"
        for row, caption in enumerate(strip.captions)
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _select(name: str, arms: Sequence[str], chosen: str) -> str:
    options = "".join(f"<option{' selected' if arm == chosen else ''}>{arm}</option>" for arm in arms)
    return f'<select id="{name}">{options}</select>'


def _style(strip: Strip) -> str:
    count, height, width = strip.pictures.shape[:3]
    picture = Image.fromarray(strip.pictures.reshape(count * height, *strip.pictures.shape[2:]))
    if strip.pictures.ndim == 3:  # a map: a palette takes a third of the bytes
        picture.putpalette(pink(np.arange(256)[None] / 255).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f".{strip.kind}-{strip.arm or ''} {{ aspect-ratio: {width} / {height}; background-image: url(data:image/png;base64,{data}); "
        f"background-size: 100% {100 * count}%; background-position: 0 calc(100% * var(--row, 0) / {max(count - 1, 1)}); }}"
    )
