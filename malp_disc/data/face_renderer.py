"""Renders the drawn faces: layers of antialiased signed-distance shapes, composited from back to front."""

from __future__ import annotations

import numpy as np

from .face_model import Face
from .shapes import bell, ellipse, mix, plateau, smoothstep


def render(face: Face) -> np.ndarray:
    """RGB (B, 3, N, N), nominally in [0, 1].

    Nothing in it is noise: whatever is random about a face extends over several pixels, so that a generator can see it in its input and keep it.

    The order of the layers is fixed: each consumes the next random numbers of `face`, and some store what later layers need
    (`outline` and `shade` of the head, position of the eyes).
    """
    image = _background(face)
    for layer in (_back_hair, _shoulders, _head, _eyes, _nose, _mouth, _front_hair, _glasses, _camera):
        image = layer(face, image)
    return image


def _backdrop(face: Face) -> np.ndarray:
    """A muted colour: after instance normalization a flat area is known only relative to the rest of the image, so generators reproduce saturated ones badly."""
    return face.uniform(0.30, 0.80) + face.colour((-0.10,) * 3, (0.10,) * 3)


def _background(face: Face) -> np.ndarray:
    top, bottom = _backdrop(face), _backdrop(face)
    angle = face.uniform(0, 6.28)
    ramp = 0.5 + 0.35 * (np.cos(angle) * face.x0 + np.sin(angle) * face.y0)
    image = mix(top, bottom, ramp)
    for _ in range(2):  # out-of-focus discs
        spot = _backdrop(face)
        disc = ellipse(face.x0, face.y0, face.uniform(-1, 1), face.uniform(-1, 1), face.uniform(0.2, 0.6), face.uniform(0.2, 0.6))
        image = mix(image, spot, 0.5 * smoothstep(-disc, -0.1, 0.1))
    return image


def _back_hair(face: Face, image: np.ndarray) -> np.ndarray:
    """Hair behind the head: a cap, and sides that fall to `hair_length`."""
    rx, ry = face.half_width + face.hair_x, face.half_height + face.hair_y
    cap = ellipse(face.x, face.y, 0, -0.06, rx, ry)
    cap = np.maximum(cap, face.y - 0.12)
    curtain = np.maximum(np.abs(face.x) - rx * (0.98 + 0.08 * np.sin(4 * face.y + face.strand_phase)), np.maximum(-face.y - 0.06, face.y - face.hair_length))
    return mix(image, face.hair_colour * 0.82, face.cover(np.minimum(cap, curtain)))


def _shoulders(face: Face, image: np.ndarray) -> np.ndarray:
    cloth, stripe = face.colour((0.08,) * 3, (0.95,) * 3), face.colour((0.08,) * 3, (0.95,) * 3)
    amount, rate = face.uniform(-0.6, 0.8), face.uniform(12, 22)
    pattern = np.clip(amount, 0, 1) * smoothstep(np.sin(rate * face.y0), -0.2, 0.2)
    neck = np.maximum(np.abs(face.x) - face.half_width * 0.52, np.maximum(0.2 - face.y, face.y - 1.2))
    shade = 0.72 + 0.12 * smoothstep(face.y, 0.65, 0.95)
    image = mix(image, face.skin * shade, face.cover(neck))
    slope = 0.86 + 0.30 * face.x**2
    body = slope - face.y + 0.10 * bell(face.x / 0.20)
    fold = 1 + 0.10 * np.sin(7 * face.x + face.strand_phase)
    return mix(image, mix(cloth, stripe, pattern) * fold, face.cover(body))


def _head(face: Face, image: np.ndarray) -> np.ndarray:
    """Ears and face: an ellipse with a narrowed jaw, shaded as an ellipsoid under one light, with flushed cheeks, freckles and, for Goatee, a beard."""
    light_x, light_y, ambient = face.light
    for side in (-1, 1):
        ear = ellipse(face.x, face.y, side * (face.half_width - 0.01) + 0.05 * face.yaw, 0.02, 0.085, 0.14)
        inner = ellipse(face.x, face.y, side * face.half_width + 0.05 * face.yaw, 0.02, 0.04, 0.08)
        image = mix(mix(image, face.skin * 0.88, face.cover(ear)), face.skin * 0.66, face.cover(inner, 3))
    width = face.half_width * (1 - face.jaw * np.clip(face.y, 0, 1) ** 1.5)
    face.outline = ellipse(face.x, face.y, 0.0, 0.0, width, face.half_height)
    nx, ny = face.x / face.half_width, face.y / face.half_height
    nz = np.sqrt(np.clip(1.05 - nx**2 - ny**2, 0.02, None))
    lamp = np.clip((light_x * nx + light_y * ny + 1.3 * nz) / np.sqrt(light_x**2 + light_y**2 + 1.69), 0, None)
    face.shade = 0.55 + ambient * 0.3 + (0.55 - 0.3 * ambient) * lamp
    skin = face.skin * face.shade
    flush, freckle = face.uniform(0.0, 0.10), face.uniform(-0.03, 0.03)
    for side in (-1, 1):
        cheek = bell((face.fx - side * 0.26) / 0.12) * bell((face.y - 0.16) / 0.10)
        skin = skin + cheek * flush * np.array([0.9, -0.5, -0.4], np.float32).reshape(1, 3, 1, 1)
    spots = np.clip(np.sin(40 * face.fx + face.strand_phase) * np.sin(40 * face.y), 0, 1)  # five pixels apart at 64x64
    skin = skin * (1 - 6 * np.clip(freckle, 0, 1) * spots * bell((face.y - 0.1) / 0.15))
    temple = smoothstep(-face.outline, 0.0, 0.10)
    lips = plateau(face.fx / 0.13) * plateau((face.y - 0.36) / 0.05)
    beard = plateau(face.fx / 0.20) * plateau((face.y - 0.47) / 0.15) * (1 - lips)
    moustache = plateau(face.fx / 0.17) * plateau((face.y - 0.255) / 0.035)
    bristle = 0.80 * np.maximum(beard, moustache)
    skin = mix(skin, face.hair * 0.62 * face.shade, bristle * face.label["Goatee"])
    return mix(image, skin * (0.86 + 0.14 * temple), face.cover(face.outline))


def _eyes(face: Face, image: np.ndarray) -> np.ndarray:
    spread, height, size = face.uniform(0.17, 0.215), face.uniform(-0.13, -0.06), face.uniform(0.85, 1.15)
    opening = face.uniform(0.6, 1.05) * (1 - 0.18 * face.label["Smiling"])
    gaze_x, gaze_y = face.uniform(-0.022, 0.022), face.uniform(-0.010, 0.010)
    iris = face.colour((0.10, 0.15, 0.10), (0.45, 0.45, 0.55))
    brow_drop, brow_tilt = face.uniform(0.10, 0.15), face.uniform(-0.15, 0.25)
    face.eye_spread, face.eye_height = spread, height
    for side in (-1, 1):
        cx = side * spread
        socket = bell((face.fx - cx) / 0.13) * bell((face.y - height + 0.015) / 0.08)
        image = image * (1 - 0.16 * socket)
        ball = ellipse(face.fx, face.y, cx, height, 0.092 * size, 0.050 * size * opening)
        white = face.cover(ball, 1.2)
        image = mix(image, np.float32(0.93) * face.shade * np.ones((1, 3, 1, 1), np.float32), white)
        disc = ellipse(face.fx, face.y, cx + gaze_x, height + gaze_y, 0.043 * size, 0.043 * size)
        image = mix(image, iris, face.cover(disc) * white)
        pupil = ellipse(face.fx, face.y, cx + gaze_x, height + gaze_y, 0.020, 0.020)
        image = mix(image, np.float32(0.03), face.cover(pupil) * white)
        glint = ellipse(face.fx, face.y, cx + gaze_x + 0.014, height + gaze_y - 0.016, 0.012, 0.012)
        image = mix(image, np.float32(0.98), 0.9 * face.cover(glint) * white)
        lid = np.abs(ball) - 0.010 - np.float32(0.008) * (face.y < height)
        image = mix(image, face.skin * 0.25, 0.8 * face.cover(lid, 1.3))
        arch = face.y - (height - brow_drop + 6 * (face.fx - cx) ** 2 * 0.45 - side * brow_tilt * (face.fx - cx))
        brow = np.maximum(np.abs(arch) - 0.020, np.abs(face.fx - cx) - 0.115)
        image = mix(image, face.hair * 0.62 * face.shade, 0.85 * face.cover(brow, 1.6))
    return image


def _nose(face: Face, image: np.ndarray) -> np.ndarray:
    length, width = face.uniform(0.15, 0.21), face.uniform(0.055, 0.085)
    light_x, _, _ = face.light
    bridge = bell(face.fx / 0.035) * smoothstep(face.y, -0.15, 0.05) * (1 - smoothstep(face.y, length - 0.03, length + 0.02))
    side = np.tanh(face.fx / 0.03) * bell(face.fx / 0.075) * smoothstep(face.y, -0.12, 0.1) * (1 - smoothstep(face.y, length, length + 0.04))
    image = image * (1 + 0.10 * bridge + 0.13 * light_x * side)
    under = bell(face.fx / (1.2 * width)) * bell((face.y - length - 0.015) / 0.018)
    image = image * (1 - 0.28 * under)
    for s in (-1, 1):
        nostril = ellipse(face.fx, face.y, s * width * 0.62, length, 0.024, 0.015)
        image = mix(image, face.skin * 0.30, 0.75 * face.cover(nostril, 1.5))
    return image


def _mouth(face: Face, image: np.ndarray) -> np.ndarray:
    """Smiling: wide, corners up, teeth visible. Otherwise: narrow, corners level or down, closed."""
    smile = face.label["Smiling"]
    bend = (1 - smile) * face.uniform(-0.55, 0.15) + smile * face.uniform(1.3, 2.2)
    half = face.uniform(0.125, 0.165) + smile * 0.055
    centre = face.uniform(0.335, 0.375) + 0.02 * smile
    gape = smile * face.uniform(0.022, 0.050)
    lips = face.colour((0.55, 0.22, 0.22), (0.85, 0.42, 0.42))
    full = face.uniform(0.020, 0.034)
    t = np.clip(face.fx / half, -1, 1)
    middle = centre - bend * (face.fx**2) + 0.004 * np.cos(6 * t)
    taper = np.sqrt(np.clip(1 - t**2, 0, 1))
    distance = face.y - middle
    above, below = (gape + full) * taper, (1.15 * gape + 1.35 * full) * taper
    ends = np.abs(face.fx) - half
    outer = np.maximum(np.maximum(-distance - above, distance - below), ends)
    colour = mix(lips, face.skin * 0.8, np.float32(0.25)) * face.shade * (1 + 0.10 * np.cos(60 * distance))
    image = mix(image, colour, 0.9 * face.cover(outer, 1.4))
    inner = np.maximum(np.maximum(-distance - gape * taper, distance - 1.15 * gape * taper), ends + 0.01)
    teeth = mix(np.float32(0.30) * np.ones((1, 3, 1, 1), np.float32), np.float32(0.95) * face.shade * np.ones((1, 3, 1, 1), np.float32), 1 - smoothstep(distance, 0.2 * gape, gape + 1e-3))
    image = mix(image, teeth, face.cover(inner, 1.2) * smile)
    line = np.maximum(np.abs(distance) - 0.006, ends)
    image = mix(image, face.skin * 0.25, 0.7 * face.cover(line, 1.5) * (1 - smile))
    for s in (-1, 1):  # smile lines
        fold = bell((face.fx - s * (half + 0.035)) / 0.022) * bell((face.y - centre + 0.07) / 0.07)
        image = image * (1 - 0.20 * smile * fold)
    return image


def _front_hair(face: Face, image: np.ndarray) -> np.ndarray:
    """The hairline with a parting, and bangs over the forehead for Bangs."""
    parting, line, bang = face.uniform(-0.25, 0.25), face.uniform(-0.50, -0.40), face.uniform(-0.27, -0.20)
    rx, ry = face.half_width + face.hair_x, face.half_height + face.hair_y
    cap = ellipse(face.x, face.y, 0, -0.06, rx, ry)
    hairline = line + 0.9 * (face.x - parting) ** 2
    fringe = bang + 0.02 * np.sin(face.strand_rate * 0.7 * face.x + face.strand_phase) + 0.25 * face.x**2
    edge = hairline + (np.maximum(fringe, hairline) - hairline) * face.label["Bangs"]
    locks = np.maximum(cap, face.y - edge)
    sides = np.maximum(np.maximum(cap, face.half_width * 0.90 - np.abs(face.x)), face.y - 0.02)
    shadow = np.exp(-np.clip(face.y - edge, 0, None) / 0.04) * (face.y > edge) * (face.outline < 0)
    image = image * (1 - 0.22 * shadow)
    return mix(image, face.hair_colour, face.cover(np.minimum(locks, sides), 1.3))


def _glasses(face: Face, image: np.ndarray) -> np.ndarray:
    colour = face.colour((0.03,) * 3, (0.45, 0.30, 0.30))
    rx, ry, power = face.uniform(0.125, 0.15), face.uniform(0.085, 0.125), face.uniform(2.0, 4.0)
    thick, tint = face.uniform(0.014, 0.022), face.uniform(0.05, 0.28)
    worn = face.label["Eyeglasses"]
    frame = np.full_like(face.fx, 9.0)
    for side in (-1, 1):
        u, v = np.abs(face.fx - side * face.eye_spread) / rx, np.abs(face.y - face.eye_height - 0.01) / ry
        lens = ((u**power + v**power + 1e-6) ** (1 / power) - 1) * np.minimum(rx, ry)
        image = mix(image, image * (1 - tint) + 0.06, face.cover(lens) * worn)
        glare = bell((face.fx - side * face.eye_spread + face.y - face.eye_height + 0.05) / 0.035)
        image = image + 0.10 * glare * face.cover(lens, 2) * worn
        frame = np.minimum(frame, np.abs(lens) - thick)
    gap = face.eye_spread - rx
    bridge = np.maximum(np.abs(face.y - face.eye_height + 0.02 - 2 * face.fx**2) - thick, np.abs(face.fx) - gap)
    temple = np.maximum(np.abs(face.y - face.eye_height + 0.01) - thick, np.maximum(face.eye_spread + rx - np.abs(face.fx), np.abs(face.x) - face.half_width - 0.02))
    frame = np.minimum(frame, np.minimum(bridge, temple))
    return mix(image, colour, face.cover(frame, 1.2) * worn)


def _camera(face: Face, image: np.ndarray) -> np.ndarray:
    """Exposure and white balance."""
    return np.clip(image * face.uniform(0.85, 1.12) * face.colour((0.96,) * 3, (1.04,) * 3), 0, 1)
