"""Geometry and materials of the drawn faces, computed from uniform random numbers and attributes.

Coordinates: x to the right and y down, the image spans [-1, 1] on both axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shapes import bell, mix

_HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
_HAIR_RGB = np.array([[0.07, 0.06, 0.07], [0.86, 0.70, 0.40], [0.36, 0.22, 0.13]], np.float32)


class Face:
    """One batch of faces: pose, proportions, light, skin and hair, and the random numbers that remain for the other features.

    Args:
        uniforms: (B, at least 100) uniform in [0, 1), consumed in a fixed order: all random properties of the faces.
        label: by attribute name, (B, 1, 1, 1) in {0, 1}.
        size: N, pixels.
    """

    def __init__(self, uniforms: np.ndarray, label: dict[str, np.ndarray], size: int) -> None:
        self._uniforms, self._next = uniforms, 0
        self.size, self.pixel = size, 2.0 / size
        self.label = label
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
        self.x0, self.y0 = axis.reshape(1, 1, 1, -1), axis.reshape(1, 1, -1, 1)
        self._set_pose()
        self._set_materials()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """The next random number of every image, uniform in [low, high), (B, 1, 1, 1)."""
        value = self._uniforms[:, self._next]
        self._next += 1
        return (low + (high - low) * value).reshape(-1, 1, 1, 1)

    def colour(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """A random colour, uniform per channel, (B, 3, 1, 1)."""
        return np.concatenate([self.uniform(a, b) for a, b in zip(low, high)], axis=1)

    def cover(self, sd: np.ndarray, soft: float = 1.0) -> np.ndarray:
        """Coverage in [0, 1] of a signed distance: an antialiased edge, `soft` pixels wide."""
        return np.clip(0.5 - sd / (soft * self.pixel), 0, 1)

    def _set_pose(self) -> None:
        """Head coordinates (shift, scale, roll), proportions and light. Yaw shifts eyes, nose and mouth sideways and compresses the far half."""
        shift_x, shift_y = self.uniform(-0.10, 0.10), self.uniform(-0.06, 0.08)
        scale, roll = self.uniform(1.00, 1.22), self.uniform(-0.20, 0.20)
        self.yaw = self.uniform(-1, 1)
        cos, sin = np.cos(roll), np.sin(roll)
        x, y = (self.x0 - shift_x) / scale, (self.y0 - shift_y) / scale
        self.x, self.y = cos * x + sin * y, cos * y - sin * x
        self.pixel = self.pixel / scale  # in head coordinates
        self.half_width, self.half_height = self.uniform(0.43, 0.52), self.uniform(0.58, 0.66)
        self.jaw = self.uniform(0.05, 0.30)
        inner = self.x - 0.10 * self.yaw
        self.fx = inner * (1 + 0.22 * self.yaw * np.tanh(2 * inner))  # x of eyes, nose and mouth
        self.light = self.uniform(-1, 1), self.uniform(-0.9, 0.1), self.uniform(0.25, 0.55)

    def _set_materials(self) -> None:
        """Colours of skin and hair, and the extent and texture of the hair."""
        tone = np.clip(self.uniform(0.05, 1.0) * (1 - 0.75 * self.label["Pale_Skin"]), 0, 1)
        dark = np.array([0.45, 0.29, 0.21], np.float32).reshape(1, 3, 1, 1)
        fair = np.array([0.93, 0.76, 0.66], np.float32).reshape(1, 3, 1, 1)
        pale = np.array([0.95, 0.85, 0.81], np.float32).reshape(1, 3, 1, 1)
        tan = mix(fair, dark, tone)
        self.skin = mix(tan, pale, 0.85 * self.label["Pale_Skin"]) + self.colour((-0.02,) * 3, (0.02,) * 3)
        colours = np.concatenate([self.label[name] for name in _HAIR], axis=1)[:, :, 0, 0] @ _HAIR_RGB
        self.hair = colours.reshape(-1, 3, 1, 1) * self.uniform(0.85, 1.12)
        self.hair_x, self.hair_y = self.uniform(0.07, 0.16), self.uniform(0.10, 0.20)
        self.hair_length = self.uniform(-0.35, 0.85)
        self.strand_phase, self.strand_rate = self.uniform(0, 6.28), self.uniform(26, 40)
        self.strand_wave = self.uniform(0.0, 0.9)
        self.hair_colour = self._shaded_hair()

    def _strands(self) -> np.ndarray:
        """Hair texture with mean about 1: strands radiate from the crown in waves, with a broad highlight."""
        angle = np.arctan2(self.x, self.y + 1.1)
        radius = np.sqrt(self.x**2 + (self.y + 1.1) ** 2)
        phase = self.strand_rate * angle + self.strand_wave * np.sin(9 * radius + self.strand_phase) + self.strand_phase
        fine = 0.13 * np.sin(phase) + 0.09 * np.sin(2.3 * phase + 2)
        sheen = 0.22 * bell((radius - 0.62) / 0.10) * (0.6 + 0.4 * np.sin(phase * 0.5))
        return 1 + fine + sheen

    def _shaded_hair(self) -> np.ndarray:
        texture = self._strands()
        light_x, _, _ = self.light
        return np.clip(self.hair * texture * (1 + 0.18 * light_x * self.x) + 0.05 * (texture - 1), 0, 1)
