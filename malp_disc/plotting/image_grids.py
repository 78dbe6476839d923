"""Grids of images, each input pixel drawn as a square of whole screen pixels, so that nothing is smoothed.

Drawn with matplotlib's objects, never pyplot: no backend is chosen and no global figure is left behind in the caller's process.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from malp_disc.levels import to_pixels
from malp_disc.plotting.mpl import Figure, FigureCanvasAgg, in_default_style, matplotlib
from malp_disc.runtime.input_checks import check_images
from malp_disc.serialization.files import atomic_path

PINK_VMAX = 0.5
"""Upper end of the fakeness scale. A constant, so that the maps of two runs are comparable."""

_DPI = 128  # a power of two, so that converting pixels to inches and back is exact
_GAP = 4
_MARGIN = 12
_LINE = 17  # pixels, the height of a line of text
_CHARACTER = 7.9  # pixels, the approximate width of a character
_NARROWEST = 72  # columns of smaller images are spread, so that their headings don't run into each other
_BAR = 12
_BAR_TEXT = "change per pixel, one scale for all maps"
_INK = "#222222"


def sample_grid(columns: Mapping[str, Tensor], path: str | Path, *, zoom: int = 2, captions: Sequence[str] | None = None) -> None:
    """Draw images into a PNG: one column per entry under its name, one row per image.

    Args:
        columns: (B, 3, H, W) in [-1, 1] by heading (real, encrypted, before, control …), all of one shape.
        zoom: screen pixels per pixel.
        captions: one per row, to the left of it, for example the edited attribute.

    Raises:
        ValueError: no columns, shapes that differ, values outside [-1, 1], or another number of captions than rows.
    """
    for name, images in columns.items():
        check_images(images, f"column {name!r}")
    draw_grid({name: to_pixels(images) for name, images in columns.items()}, path, zoom=zoom, captions=captions)


def fakeness_grid(
    real: Tensor,
    encrypted: Tensor,
    manipulated: Tensor,
    truth: Tensor,
    predicted_encrypted: Tensor,
    predicted_manipulated: Tensor,
    path: str | Path,
    *,
    zoom: int = 2,
    vmax: float = PINK_VMAX,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw the paper's Figure 3, one row per image: real, encrypted, manipulated, M_GT, map of the encrypted and of the manipulated image.

    Maps have matplotlib's colour map "pink", as in the paper, with one scale for all: 0 is dark, `vmax` and above white. A colour bar is
    drawn below.

    Shapes: images (B, 3, H, W) in [-1, 1], maps (B, 1, H, W) in [0, 1].

    Raises:
        ValueError: shapes that don't match, values outside their range, or vmax outside (0, 1].
    """
    if not 0 < vmax <= 1:
        raise ValueError(f"expected vmax in (0, 1], got {vmax}")
    images_of = {"real": real, "encrypted": encrypted, "manipulated": manipulated}
    maps = {"M_GT, ground truth": truth, "map of encrypted": predicted_encrypted, "map of manipulated": predicted_manipulated}
    for name, images in images_of.items():
        check_images(images, name)
    columns = {name: to_pixels(images) for name, images in images_of.items()}
    columns |= {name: _checked_pink(values, name, vmax) for name, values in maps.items()}
    draw_grid(columns, path, zoom=zoom, captions=captions, vmax=vmax)


@in_default_style
def draw_grid(
    columns: Mapping[str, np.ndarray], path: str | Path, *, zoom: int, captions: Sequence[str] | None, vmax: float | None = None, maps: int = 3
) -> None:
    """Draw columns (B, H, W, 3) uint8 by heading. `vmax`: also draw the colour bar of the maps, which are the last `maps` columns."""
    if not columns or zoom < 1:
        raise ValueError(f"expected at least one column and a zoom of at least 1, got {len(columns)} and {zoom}")
    shapes = {name: array.shape for name, array in columns.items()}
    count, height, width, _ = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or count == 0:
        found = ", ".join(f"{name} {shape[:3]}" for name, shape in shapes.items())
        raise ValueError(f"expected at least one row, and columns of one (B, H, W), got {found}")
    if captions is not None and len(captions) != count:
        raise ValueError(f"expected {count} captions, one per row, got {len(captions)}")

    step_x, step_y = max(width * zoom, _NARROWEST) + _GAP, height * zoom + _GAP
    headings = [_wrap(name, step_x) for name in columns]
    labels = [_wrap(caption, 110) for caption in captions or ()]
    left = _MARGIN + int(_CHARACTER * max((len(line) for lines in labels for line in lines), default=0)) + (_GAP * 2 if labels else 0)
    top = _MARGIN + _LINE * max(len(lines) for lines in headings)
    bottom = _MARGIN + (0 if vmax is None else _GAP + _BAR + 2 * _LINE)
    page = _Page(left + step_x * len(columns) + _MARGIN - _GAP, top + step_y * count + bottom - _GAP)
    for x, (heading, array) in enumerate(zip(headings, columns.values())):
        page.write(heading, left + x * step_x + (step_x - _GAP) / 2, top - 7, horizontal="center", vertical="baseline")
        for y in range(count):
            inset = (step_x - _GAP - width * zoom) // 2
            page.paste(array[y].repeat(zoom, 0).repeat(zoom, 1), left + x * step_x + inset, top + y * step_y)
    for y, lines in enumerate(labels):
        page.write(lines, left - 2 * _GAP, top + y * step_y + (step_y - _GAP) / 2, horizontal="right", vertical="center")
    if vmax is not None:
        bar = max(1, min(maps, 3))  # columns wide
        page.scale(left + (len(columns) - maps) * step_x, top + count * step_y + _GAP, bar * step_x - _GAP, vmax)
    page.save(path)


class _Page:
    """A white canvas in pixel coordinates; x to the right and y down from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.width = width

    def paste(self, rgb: np.ndarray, x: int, y: int) -> None:
        self.figure.figimage(rgb, xo=x, yo=self.height - y - len(rgb), origin="upper")

    def write(self, lines: Sequence[str], x: float, y: float, *, horizontal: str, vertical: str) -> None:
        self.figure.text(
            x / self.width, 1 - y / self.height, "\n".join(lines), ha=horizontal, va=vertical, ma=horizontal,
            fontsize=7.5, color=_INK, linespacing=1.15, family="DejaVu Sans", parse_math=False,
        )  # fmt: skip

    def scale(self, x: int, y: int, width: int, vmax: float) -> None:
        """The colour bar of the maps, from 0 to `vmax`. A narrow one has no number in the middle, and its text starts to the left of it."""
        ramp = np.linspace(0, vmax, width)[None].repeat(_BAR, 0)
        self.paste(pink(ramp, vmax), x, y)
        middle, end = f"{vmax / 2:g}", f"{vmax:g} or more" if vmax < 1 else "1"
        labels = [(0, "0", "left"), (1, end, "right")]
        if _CHARACTER * (len(middle) / 2 + len(end) + 1) < width / 2:
            labels.append((0.5, middle, "center"))
        for share, text, side in labels:
            self.write([text], x + share * width, y + _BAR + 3, horizontal=side, vertical="top")
        place, side = (x + width / 2, "center") if _CHARACTER * len(_BAR_TEXT) < width else (x + width, "right")
        self.write([_BAR_TEXT], place, y + _BAR + 3 + _LINE, horizontal=side, vertical="top")

    def save(self, path: str | Path) -> None:
        with atomic_path(path) as temporary:
            self.canvas.print_png(str(temporary))


def _checked_pink(maps: Tensor, name: str, vmax: float) -> np.ndarray:
    """(B, 1, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"expected {name} of shape (B, 1, H, W), got {tuple(maps.shape)}")
    values = maps.detach().float().cpu().numpy()
    if values.size and not (values.min() >= 0 and values.max() <= 1):  # written so that NaN fails
        raise ValueError(f"expected {name} in [0, 1], got min {values.min():.4g} max {values.max():.4g}")
    return pink(values[:, 0], vmax)


def pink(values: np.ndarray, vmax: float = PINK_VMAX) -> np.ndarray:
    """Maps (…, H, W) in [0, 1] -> (…, H, W, 3) uint8 in the colour map "pink"."""
    return matplotlib.colormaps["pink"](np.clip(values / vmax, 0, 1), bytes=True)[..., :3]


def _wrap(text: str, pixels: int) -> list[str]:
    """`text` with underscores as spaces, wrapped to lines of at most `pixels`; words aren't broken."""
    plain = text.replace("_", " ") if "M_GT" not in text else text
    return textwrap.wrap(plain, max(1, int(pixels / _CHARACTER)), break_long_words=False) or [""]
