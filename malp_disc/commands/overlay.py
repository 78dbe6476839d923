"""A fakeness map as a heat map over its image."""

from __future__ import annotations

import numpy as np

_STRIP = 256  # rows at a time: floats of a whole large image take twelve times its memory
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_OPAQUE = 0.85  # where the map is full; a little of the image stays visible


def overlay(levels: np.ndarray, fakeness: np.ndarray, *, full: float) -> np.ndarray:
    """The image in grey with the map in matplotlib's "inferno" over it, more opaque where the map is higher.

    Args:
        levels: (H, W, 3) uint8.
        fakeness: (H, W) uint16, 65535 for 1.
        full: map value in (0, 1] that gets the brightest colour and the full opacity; higher ones look the same.

    Returns:
        (H, W, 3) uint8.
    """
    import matplotlib

    colours = (matplotlib.colormaps["inferno"](np.linspace(0.3, 1, 256))[:, :3] * 255).astype(np.float32)  # what lies below is too dark to see
    page = np.empty_like(levels)
    for top in range(0, len(levels), _STRIP):
        share = (fakeness[top : top + _STRIP].astype(np.float32) / (65535 * full)).clip(0, 1)
        grey = (levels[top : top + _STRIP] @ _GREY)[..., None]
        opacity = _OPAQUE * np.sqrt(share)[..., None]  # small changes count too
        page[top : top + _STRIP] = np.rint(grey * (1 - opacity) + colours[(share * 255).astype(np.uint8)] * opacity)
    return page
