"""Shapes and compositing for the drawn faces: signed distances (negative inside), profiles and alpha blending, on arrays (B, C, H, W)."""

from __future__ import annotations

import numpy as np


def mix(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Alpha compositing: `above` over `below`; colours (B, 3, H, W), alpha (B, 1, H, W) in [0, 1]."""
    return below + (above - below) * alpha


def smoothstep(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Cubic step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse(x: np.ndarray, y: np.ndarray, cx, cy, rx, ry) -> np.ndarray:
    """Approximate signed distance to an ellipse."""
    u, v = (x - cx) / rx, (y - cy) / ry
    k = np.sqrt(u * u + v * v)
    return (k - 1) * np.minimum(rx, ry).astype(np.float32)  # np.minimum of two Python floats is a float64


def bell(t: np.ndarray) -> np.ndarray:
    """exp(-t²)."""
    return np.exp(-(t * t))


def plateau(t: np.ndarray) -> np.ndarray:
    """exp(-t⁴): nearly 1 for |t| < 1, nearly 0 outside."""
    return bell(t * t)
