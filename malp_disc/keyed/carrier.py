"""V, the part of a template that no other image has: for each template number, phases that follow from the key and can't be told from random ones without it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LEVELS = 256  # phases, one byte each
_CACHED = 64  # calls of `carrier_phases`: of 64 templates on a grid of 128 pixels each, they take 256 MB; with more templates, each image computes them anew


@functools.lru_cache(maxsize=1)
def _circle() -> np.ndarray:
    """cos and sin of every phase, (2, 256)."""
    angle = 2 * np.pi * np.arange(_LEVELS) / _LEVELS
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


def phases(secret: bytes, number: int, size: int, tile: tuple[int, int] = (0, 0)) -> np.ndarray:
    """The phases of V in 256ths of a turn, (2 size, 2 size) uint8: SHAKE-256 of the key, the grid's size and the template's number. The same on every machine.

    Args:
        tile: (down, right), counted from that of the image's upper left corner. Images whose sides are as 4:1 or more need several, since a V that repeats would show what it was turned by.
    """
    side = 2 * size
    label = f"{size} {number} {tile[0]} {tile[1]}"
    return np.frombuffer(hashlib.shake_256(b"malp-disc carrier" + secret + label.encode()).digest(side * side), np.uint8).reshape(side, side)


@functools.lru_cache(maxsize=_CACHED)
def carrier_phases(secret: bytes, numbers: range | tuple[int, ...], size: int) -> np.ndarray:
    """`phases` of several numbers, (N, 2 size, 2 size), kept for the next image."""
    return np.stack([phases(secret, number, size) for number in numbers])


def on_circle(turns: np.ndarray) -> Tensor:
    """Phases (…, h, w) in 256ths of a turn -> their cosine and sine, (…, 2, h, w)."""
    return torch.from_numpy(np.stack([np.take(part, turns) for part in _circle()], axis=-3))


def carrier(secret: bytes, numbers: Sequence[int], size: int, shape: tuple[int, int], offset: tuple[int, int] = (0, 0)) -> Tensor:
    """V of each template at pixels (offset + 0, …, offset + shape - 1), its real and imaginary part: (N, 2, h, w), of absolute value 1."""
    return torch.stack([on_circle(_cut(secret, number, size, shape, offset)) for number in numbers])


def _cut(secret: bytes, number: int, size: int, shape: tuple[int, int], offset: tuple[int, int]) -> np.ndarray:
    """Phases at these pixels, (h, w) uint8."""
    found = np.empty(shape, np.uint8)
    spans = [_spans(start, length, 2 * size) for start, length in zip(offset, shape)]
    for row, above, rows in spans[0]:
        for column, left, columns in spans[1]:
            found[rows, columns] = phases(secret, number, size, (row, column))[above, left]
    return found


def _spans(start: int, length: int, side: int) -> list[tuple[int, slice, slice]]:
    """Tiles that pixels start, …, start + length - 1 lie in: number, pixels within the tile, and within the range."""
    tiles = range(start // side, (start + length - 1) // side + 1)
    ends = [(tile, max(start, tile * side), min(start + length, (tile + 1) * side)) for tile in tiles]
    return [(tile, slice(low - tile * side, high - tile * side), slice(low - start, high - start)) for tile, low, high in ends]
