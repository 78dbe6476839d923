"""The painter of the drawn faces: from a row of dice and its attributes to an image.

A face is a stack of signed distances: ``sd < 0`` is inside, and an edge is one pixel soft at every resolution.
Coordinates are x to the right and y down, the image spans [-1, 1] on both axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
_HAIR_RGB = np.array([[0.07, 0.06, 0.07], [0.86, 0.70, 0.40], [0.36, 0.22, 0.13]], np.float32)


def _mix(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay `above` over `below` where `alpha` is 1; colours (B, 3, H, W), alpha (B, 1, H, W)."""
    return below + (above - below) * alpha


def _smooth(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _ellipse(x: np.ndarray, y: np.ndarray, cx, cy, rx, ry) -> np.ndarray:
    """Approximate signed distance to an ellipse."""
    u, v = (x - cx) / rx, (y - cy) / ry
    k = np.sqrt(u * u + v * v)
    return (k - 1) * np.minimum(rx, ry).astype(np.float32)  # of two plain numbers NumPy makes a float64


def _bell(t: np.ndarray) -> np.ndarray:
    """exp(-t²)."""
    return np.exp(-(t * t))


def _plateau(t: np.ndarray) -> np.ndarray:
    """exp(-t⁴): flat inside 1, gone outside."""
    return _bell(t * t)


class Painter:
    """Paints one batch from back to front. Each method paints one part and says what it depends on.

    Args:
        dice: (B, at least 100) uniform in [0, 1): all that is random about the faces but the noise.
        label: (B, 1, 1, 1) in {0, 1} by the attribute's name.
        noise: (B, 4, N, N) standard normal, for pores, bristles and the camera.
        size: N, pixels.
    """

    def __init__(self, dice: np.ndarray, label: dict[str, np.ndarray], noise: np.ndarray, size: int) -> None:
        self._dice, self._next = dice, 0
        self.size, self.pixel, self.noise = size, 2.0 / size, noise
        self.label = label
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
        self.x0, self.y0 = axis.reshape(1, 1, 1, -1), axis.reshape(1, 1, -1, 1)

    def roll_dice(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """The next uniform number of every image, (B, 1, 1, 1)."""
        value = self._dice[:, self._next]
        self._next += 1
        return (low + (high - low) * value).reshape(-1, 1, 1, 1)

    def colour(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        return np.concatenate([self.roll_dice(a, b) for a, b in zip(low, high)], axis=1)

    def cover(self, sd: np.ndarray, soft: float = 1.0) -> np.ndarray:
        """Coverage in [0, 1] of a signed distance, `soft` pixels wide."""
        return np.clip(0.5 - sd / (soft * self.pixel), 0, 1)

    def paint(self) -> np.ndarray:
        """RGB in [0, 1], (B, 3, N, N)."""
        self.pose()
        self.materials()
        picture = self.background()
        picture = self.back_hair(picture)
        picture = self.shoulders(picture)
        picture = self.head(picture)
        picture = self.eyes(picture)
        picture = self.nose(picture)
        picture = self.mouth(picture)
        picture = self.front_hair(picture)
        picture = self.glasses(picture)
        return self.camera(picture)

    def pose(self) -> None:
        """Head coordinates: shift, scale, roll; yaw moves the inner features sideways and squeezes the far half."""
        shift_x, shift_y = self.roll_dice(-0.10, 0.10), self.roll_dice(-0.06, 0.08)
        scale, roll = self.roll_dice(1.00, 1.22), self.roll_dice(-0.20, 0.20)
        self.yaw = self.roll_dice(-1, 1)
        cos, sin = np.cos(roll), np.sin(roll)
        x, y = (self.x0 - shift_x) / scale, (self.y0 - shift_y) / scale
        self.x, self.y = cos * x + sin * y, cos * y - sin * x
        self.pixel = self.pixel / scale  # pixel pitch in head units
        self.half_width, self.half_height = self.roll_dice(0.43, 0.52), self.roll_dice(0.58, 0.66)
        self.jaw = self.roll_dice(0.05, 0.30)
        inner = self.x - 0.10 * self.yaw
        self.fx = inner * (1 + 0.22 * self.yaw * np.tanh(2 * inner))  # the inner features' x
        self.light = self.roll_dice(-1, 1), self.roll_dice(-0.9, 0.1), self.roll_dice(0.25, 0.55)

    def materials(self) -> None:
        tone = np.clip(self.roll_dice(0.05, 1.0) * (1 - 0.75 * self.label["Pale_Skin"]), 0, 1)
        dark = np.array([0.45, 0.29, 0.21], np.float32).reshape(1, 3, 1, 1)
        fair = np.array([0.93, 0.76, 0.66], np.float32).reshape(1, 3, 1, 1)
        pale = np.array([0.95, 0.85, 0.81], np.float32).reshape(1, 3, 1, 1)
        tan = _mix(fair, dark, tone)
        self.skin = _mix(tan, pale, 0.85 * self.label["Pale_Skin"]) + self.colour((-0.02,) * 3, (0.02,) * 3)
        colours = np.concatenate([self.label[name] for name in _HAIR], axis=1)[:, :, 0, 0] @ _HAIR_RGB
        self.hair = colours.reshape(-1, 3, 1, 1) * self.roll_dice(0.85, 1.12)
        self.hair_x, self.hair_y = self.roll_dice(0.07, 0.16), self.roll_dice(0.10, 0.20)
        self.hair_length = self.roll_dice(-0.35, 0.85)
        self.strand_phase, self.strand_rate = self.roll_dice(0, 6.28), self.roll_dice(26, 40)
        self.strand_wave = self.roll_dice(0.0, 0.9)

    def backdrop(self) -> np.ndarray:
        """A muted studio colour: instance norms see a flat colour only against the rest of the image, so a loud one is hard to redraw."""
        return self.roll_dice(0.30, 0.80) + self.colour((-0.10,) * 3, (0.10,) * 3)

    def background(self) -> np.ndarray:
        top, bottom = self.backdrop(), self.backdrop()
        angle = self.roll_dice(0, 6.28)
        ramp = 0.5 + 0.35 * (np.cos(angle) * self.x0 + np.sin(angle) * self.y0)
        picture = _mix(top, bottom, ramp)
        for _ in range(2):  # out-of-focus discs
            spot = self.backdrop()
            disc = _ellipse(self.x0, self.y0, self.roll_dice(-1, 1), self.roll_dice(-1, 1), self.roll_dice(0.2, 0.6), self.roll_dice(0.2, 0.6))
            picture = _mix(picture, spot, 0.5 * _smooth(-disc, -0.1, 0.1))
        return picture

    def strands(self) -> np.ndarray:
        """Hair texture about 1: strands run out from the crown, with their own wave and a broad sheen."""
        angle = np.arctan2(self.x, self.y + 1.1)
        radius = np.sqrt(self.x**2 + (self.y + 1.1) ** 2)
        phase = self.strand_rate * angle + self.strand_wave * np.sin(9 * radius + self.strand_phase) + self.strand_phase
        fine = 0.13 * np.sin(phase) + 0.09 * np.sin(2.3 * phase + 2)
        sheen = 0.22 * _bell((radius - 0.62) / 0.10) * (0.6 + 0.4 * np.sin(phase * 0.5))
        return 1 + fine + sheen

    def lit_hair(self) -> np.ndarray:
        texture = self.strands()
        light_x, _, _ = self.light
        return np.clip(self.hair * texture * (1 + 0.18 * light_x * self.x) + 0.05 * (texture - 1), 0, 1)

    def back_hair(self, picture: np.ndarray) -> np.ndarray:
        """Everything behind the head: a cap, and lengths that fall to `hair_length`."""
        self.hair_colour = self.lit_hair()
        rx, ry = self.half_width + self.hair_x, self.half_height + self.hair_y
        cap = _ellipse(self.x, self.y, 0, -0.06, rx, ry)
        cap = np.maximum(cap, self.y - 0.12)
        curtain = np.maximum(np.abs(self.x) - rx * (0.98 + 0.08 * np.sin(4 * self.y + self.strand_phase)), np.maximum(-self.y - 0.06, self.y - self.hair_length))
        return _mix(picture, self.hair_colour * 0.82, self.cover(np.minimum(cap, curtain)))

    def shoulders(self, picture: np.ndarray) -> np.ndarray:
        cloth, stripe = self.colour((0.08,) * 3, (0.95,) * 3), self.colour((0.08,) * 3, (0.95,) * 3)
        amount, rate = self.roll_dice(-0.6, 0.8), self.roll_dice(12, 22)
        pattern = np.clip(amount, 0, 1) * _smooth(np.sin(rate * self.y0), -0.2, 0.2)
        neck = np.maximum(np.abs(self.x) - self.half_width * 0.52, np.maximum(0.2 - self.y, self.y - 1.2))
        shade = 0.72 + 0.12 * _smooth(self.y, 0.65, 0.95)
        picture = _mix(picture, self.skin * shade, self.cover(neck))
        slope = 0.86 + 0.30 * self.x**2
        body = slope - self.y + 0.10 * _bell(self.x / 0.20)
        fold = 1 + 0.10 * np.sin(7 * self.x + self.strand_phase)
        return _mix(picture, _mix(cloth, stripe, pattern) * fold, self.cover(body))

    def head(self, picture: np.ndarray) -> np.ndarray:
        """Ears and face: an egg (narrow jaw), shaded as an ellipsoid under one lamp, with flush and pores."""
        light_x, light_y, ambient = self.light
        for side in (-1, 1):
            ear = _ellipse(self.x, self.y, side * (self.half_width - 0.01) + 0.05 * self.yaw, 0.02, 0.085, 0.14)
            inner = _ellipse(self.x, self.y, side * self.half_width + 0.05 * self.yaw, 0.02, 0.04, 0.08)
            picture = _mix(_mix(picture, self.skin * 0.88, self.cover(ear)), self.skin * 0.66, self.cover(inner, 3))
        width = self.half_width * (1 - self.jaw * np.clip(self.y, 0, 1) ** 1.5)
        self.face = _ellipse(self.x, self.y, 0.0, 0.0, width, self.half_height)
        nx, ny = self.x / self.half_width, self.y / self.half_height
        nz = np.sqrt(np.clip(1.05 - nx**2 - ny**2, 0.02, None))
        lamp = np.clip((light_x * nx + light_y * ny + 1.3 * nz) / np.sqrt(light_x**2 + light_y**2 + 1.69), 0, None)
        self.shade = 0.55 + ambient * 0.3 + (0.55 - 0.3 * ambient) * lamp
        skin = self.skin * self.shade
        flush, freckle = self.roll_dice(0.0, 0.10), self.roll_dice(-0.03, 0.03)
        for side in (-1, 1):
            cheek = _bell((self.fx - side * 0.26) / 0.12) * _bell((self.y - 0.16) / 0.10)
            skin = skin + cheek * flush * np.array([0.9, -0.5, -0.4], np.float32).reshape(1, 3, 1, 1)
        pores = self.noise[:, :1] * (0.018 + np.clip(freckle, 0, 1) * _bell((self.y - 0.1) / 0.15))
        skin = skin * (1 + pores)
        temple = _smooth(-self.face, 0.0, 0.10)
        lips = _plateau(self.fx / 0.13) * _plateau((self.y - 0.36) / 0.05)
        beard = _plateau(self.fx / 0.20) * _plateau((self.y - 0.47) / 0.15) * (1 - lips)
        moustache = _plateau(self.fx / 0.17) * _plateau((self.y - 0.255) / 0.035)
        bristle = np.clip(0.80 + 0.07 * self.noise[:, 1:2], 0, 1) * np.maximum(beard, moustache)
        skin = _mix(skin, self.hair * 0.62 * self.shade, bristle * self.label["Goatee"])
        return _mix(picture, skin * (0.86 + 0.14 * temple), self.cover(self.face))

    def eyes(self, picture: np.ndarray) -> np.ndarray:
        spread, height, size = self.roll_dice(0.17, 0.215), self.roll_dice(-0.13, -0.06), self.roll_dice(0.85, 1.15)
        opening = self.roll_dice(0.6, 1.05) * (1 - 0.18 * self.label["Smiling"])
        gaze_x, gaze_y = self.roll_dice(-0.022, 0.022), self.roll_dice(-0.010, 0.010)
        iris = self.colour((0.10, 0.15, 0.10), (0.45, 0.45, 0.55))
        brow_drop, brow_tilt = self.roll_dice(0.10, 0.15), self.roll_dice(-0.15, 0.25)
        self.eye_spread, self.eye_height = spread, height
        for side in (-1, 1):
            cx = side * spread
            socket = _bell((self.fx - cx) / 0.13) * _bell((self.y - height + 0.015) / 0.08)
            picture = picture * (1 - 0.16 * socket)
            ball = _ellipse(self.fx, self.y, cx, height, 0.092 * size, 0.050 * size * opening)
            white = self.cover(ball, 1.2)
            picture = _mix(picture, np.float32(0.93) * self.shade * np.ones((1, 3, 1, 1), np.float32), white)
            disc = _ellipse(self.fx, self.y, cx + gaze_x, height + gaze_y, 0.043 * size, 0.043 * size)
            picture = _mix(picture, iris, self.cover(disc) * white)
            pupil = _ellipse(self.fx, self.y, cx + gaze_x, height + gaze_y, 0.020, 0.020)
            picture = _mix(picture, np.float32(0.03), self.cover(pupil) * white)
            glint = _ellipse(self.fx, self.y, cx + gaze_x + 0.014, height + gaze_y - 0.016, 0.012, 0.012)
            picture = _mix(picture, np.float32(0.98), 0.9 * self.cover(glint) * white)
            lid = np.abs(ball) - 0.010 - np.float32(0.008) * (self.y < height)
            picture = _mix(picture, self.skin * 0.25, 0.8 * self.cover(lid, 1.3))
            arch = self.y - (height - brow_drop + 6 * (self.fx - cx) ** 2 * 0.45 - side * brow_tilt * (self.fx - cx))
            brow = np.maximum(np.abs(arch) - 0.020, np.abs(self.fx - cx) - 0.115)
            picture = _mix(picture, self.hair * 0.62 * self.shade, 0.85 * self.cover(brow, 1.6))
        return picture

    def nose(self, picture: np.ndarray) -> np.ndarray:
        length, width = self.roll_dice(0.15, 0.21), self.roll_dice(0.055, 0.085)
        light_x, _, _ = self.light
        bridge = _bell(self.fx / 0.035) * _smooth(self.y, -0.15, 0.05) * (1 - _smooth(self.y, length - 0.03, length + 0.02))
        side = np.tanh(self.fx / 0.03) * _bell(self.fx / 0.075) * _smooth(self.y, -0.12, 0.1) * (1 - _smooth(self.y, length, length + 0.04))
        picture = picture * (1 + 0.10 * bridge + 0.13 * light_x * side)
        under = _bell(self.fx / (1.2 * width)) * _bell((self.y - length - 0.015) / 0.018)
        picture = picture * (1 - 0.28 * under)
        for s in (-1, 1):
            nostril = _ellipse(self.fx, self.y, s * width * 0.62, length, 0.024, 0.015)
            picture = _mix(picture, self.skin * 0.30, 0.75 * self.cover(nostril, 1.5))
        return picture

    def mouth(self, picture: np.ndarray) -> np.ndarray:
        """Smiling: wide, corners up, parted over teeth. Otherwise: narrow, corners level or down, closed."""
        smile = self.label["Smiling"]
        bend = (1 - smile) * self.roll_dice(-0.55, 0.15) + smile * self.roll_dice(1.3, 2.2)
        half = self.roll_dice(0.125, 0.165) + smile * 0.055
        centre = self.roll_dice(0.335, 0.375) + 0.02 * smile
        gape = smile * self.roll_dice(0.022, 0.050)
        lips = self.colour((0.55, 0.22, 0.22), (0.85, 0.42, 0.42))
        full = self.roll_dice(0.020, 0.034)
        t = np.clip(self.fx / half, -1, 1)
        middle = centre - bend * (self.fx**2) + 0.004 * np.cos(6 * t)
        taper = np.sqrt(np.clip(1 - t**2, 0, 1))
        distance = self.y - middle
        above, below = (gape + full) * taper, (1.15 * gape + 1.35 * full) * taper
        ends = np.abs(self.fx) - half
        outer = np.maximum(np.maximum(-distance - above, distance - below), ends)
        colour = _mix(lips, self.skin * 0.8, np.float32(0.25)) * self.shade * (1 + 0.10 * np.cos(60 * distance))
        picture = _mix(picture, colour, 0.9 * self.cover(outer, 1.4))
        inner = np.maximum(np.maximum(-distance - gape * taper, distance - 1.15 * gape * taper), ends + 0.01)
        teeth = _mix(np.float32(0.30) * np.ones((1, 3, 1, 1), np.float32), np.float32(0.95) * self.shade * np.ones((1, 3, 1, 1), np.float32), 1 - _smooth(distance, 0.2 * gape, gape + 1e-3))
        picture = _mix(picture, teeth, self.cover(inner, 1.2) * smile)
        line = np.maximum(np.abs(distance) - 0.006, ends)
        picture = _mix(picture, self.skin * 0.25, 0.7 * self.cover(line, 1.5) * (1 - smile))
        for s in (-1, 1):  # the fold beside a smile
            fold = _bell((self.fx - s * (half + 0.035)) / 0.022) * _bell((self.y - centre + 0.07) / 0.07)
            picture = picture * (1 - 0.20 * smile * fold)
        return picture

    def front_hair(self, picture: np.ndarray) -> np.ndarray:
        """The hairline, with a parting, and bangs over the forehead."""
        parting, line, bang = self.roll_dice(-0.25, 0.25), self.roll_dice(-0.50, -0.40), self.roll_dice(-0.27, -0.20)
        rx, ry = self.half_width + self.hair_x, self.half_height + self.hair_y
        cap = _ellipse(self.x, self.y, 0, -0.06, rx, ry)
        hairline = line + 0.9 * (self.x - parting) ** 2
        fringe = bang + 0.02 * np.sin(self.strand_rate * 0.7 * self.x + self.strand_phase) + 0.25 * self.x**2
        edge = hairline + (np.maximum(fringe, hairline) - hairline) * self.label["Bangs"]
        locks = np.maximum(cap, self.y - edge)
        sides = np.maximum(np.maximum(cap, self.half_width * 0.90 - np.abs(self.x)), self.y - 0.02)
        shadow = np.exp(-np.clip(self.y - edge, 0, None) / 0.04) * (self.y > edge) * (self.face < 0)
        picture = picture * (1 - 0.22 * shadow)
        return _mix(picture, self.hair_colour, self.cover(np.minimum(locks, sides), 1.3))

    def glasses(self, picture: np.ndarray) -> np.ndarray:
        colour = self.colour((0.03,) * 3, (0.45, 0.30, 0.30))
        rx, ry, power = self.roll_dice(0.125, 0.15), self.roll_dice(0.085, 0.125), self.roll_dice(2.0, 4.0)
        thick, tint = self.roll_dice(0.014, 0.022), self.roll_dice(0.05, 0.28)
        worn = self.label["Eyeglasses"]
        frame = np.full_like(self.fx, 9.0)
        for side in (-1, 1):
            u, v = np.abs(self.fx - side * self.eye_spread) / rx, np.abs(self.y - self.eye_height - 0.01) / ry
            lens = ((u**power + v**power + 1e-6) ** (1 / power) - 1) * np.minimum(rx, ry)
            picture = _mix(picture, picture * (1 - tint) + 0.06, self.cover(lens) * worn)
            glare = _bell((self.fx - side * self.eye_spread + self.y - self.eye_height + 0.05) / 0.035)
            picture = picture + 0.10 * glare * self.cover(lens, 2) * worn
            frame = np.minimum(frame, np.abs(lens) - thick)
        gap = self.eye_spread - rx
        bridge = np.maximum(np.abs(self.y - self.eye_height + 0.02 - 2 * self.fx**2) - thick, np.abs(self.fx) - gap)
        temple = np.maximum(np.abs(self.y - self.eye_height + 0.01) - thick, np.maximum(self.eye_spread + rx - np.abs(self.fx), np.abs(self.x) - self.half_width - 0.02))
        frame = np.minimum(frame, np.minimum(bridge, temple))
        return _mix(picture, colour, self.cover(frame, 1.2) * worn)

    def camera(self, picture: np.ndarray) -> np.ndarray:
        """Exposure, white balance, and noise that is stronger in the shadows."""
        exposure, balance = self.roll_dice(0.85, 1.12), self.colour((0.96,) * 3, (1.04,) * 3)
        grain = self.roll_dice(0.006, 0.016)
        picture = np.clip(picture * exposure * balance, 0, 1)
        return picture + self.noise[:, 1:4] * grain * (1.2 - 0.6 * picture)
