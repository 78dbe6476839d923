"""Slow restatements of Eq. 7-10 in float64 loops, and what the tests of the losses share."""

from __future__ import annotations

import cmath
import dataclasses
import math

import numpy as np
import torch

from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import LossWeights

OFF = {field.name: 0.0 for field in dataclasses.fields(LossWeights)}


def only(**weights: float) -> LossWeights:
    """All terms off but the given ones."""
    return LossWeights(**{**OFF, **weights})


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cs(a: np.ndarray, b: np.ndarray) -> float:
    dot = aa = bb = 0.0
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist()):
        dot, aa, bb = dot + x * y, aa + x * x, bb + y * y
    return dot / math.sqrt(aa * bb)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 for a range of 1: Gaussian window 11×11 with σ 1.5, K = 0.01, 0.03, at every pixel, the borders mirrored."""
    a, b = np.pad(a, 5, mode="reflect"), np.pad(b, 5, mode="reflect")
    offsets = range(-5, 6)
    window = {(dy, dx): math.exp(-(dy * dy + dx * dx) / (2 * 1.5**2)) for dy in offsets for dx in offsets}
    total = sum(window.values())
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            ma = mb = aa = bb = ab = 0.0
            for (dy, dx), weight in window.items():
                w, p, q = weight / total, a[y + dy, x + dx], b[y + dy, x + dx]
                ma, mb, aa, bb, ab = ma + w * p, mb + w * q, aa + w * p * p, bb + w * q * q, ab + w * p * q
            va, vb, vab = aa - ma * ma, bb - mb * mb, ab - ma * mb
            values.append((2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))
    return sum(values) / len(values)


def low_pass_norm(templates: np.ndarray) -> float:
    """Root mean square of the discrete Fourier coefficients (divided by √(HW)) with |frequency| ≤ ⅛ per pixel, a quarter of Nyquist."""
    n, height, width = templates.shape
    squares = []
    for template in templates:
        for u in range(-(height // 2), (height + 1) // 2):
            for v in range(-(width // 2), (width + 1) // 2):
                if abs(u) / height <= 0.125 and abs(v) / width <= 0.125:
                    coefficient = 0j
                    for y in range(height):
                        for x in range(width):
                            coefficient += template[y, x] * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
                    squares.append(abs(coefficient) ** 2 / (height * width))
    return math.sqrt(sum(squares) / len(squares))


def j_t(templates: np.ndarray, w: LossWeights) -> float:
    n = len(templates)
    magnitude = sum(math.sqrt(sum(v * v for v in s.ravel().tolist()) / s.size) for s in templates)
    orthogonality = sum(cs(templates[i], templates[j]) for i in range(n) for j in range(n) if i != j) / max(1, n - 1)
    return w.magnitude * magnitude + w.orthogonality * orthogonality + w.high_frequency * low_pass_norm(templates)


def j_l_encrypted(maps: np.ndarray, truth: np.ndarray, w: LossWeights) -> float:
    terms = []
    for m, t in zip(maps, truth):
        floored = cs(m, t) * min(1, np.linalg.norm(m) / np.linalg.norm(t))  # a map fainter than the truth counts by its share
        terms.append(w.encrypted_zero * float(np.mean([v * v for v in m.ravel()])) + w.encrypted_cosine * floored)
    return sum(terms) / len(terms)


def j_l_manipulated(maps: np.ndarray, truth: np.ndarray, w: LossWeights) -> float:
    terms = []
    for m, t in zip(maps, truth):
        cosine = 1 - cs(m, t) if t.any() else 0.0
        pearson = 1 - np.corrcoef(m.ravel(), t.ravel())[0, 1] if t.any() else 0.0
        error = float(np.mean([(x - y) ** 2 for x, y in zip(m.ravel(), t.ravel())]))
        terms.append(w.manipulated_cosine * cosine + w.manipulated_ssim * (1 - ssim(m[0], t[0])) + w.map_correlation * pearson + w.map_error * error)
    return sum(terms) / len(terms)


def j_r(on_encrypted: np.ndarray, on_manipulated: np.ndarray, templates: np.ndarray, index: list[int], w: LossWeights) -> float:
    total = 0.0
    for recovered, i in zip(on_encrypted, index):
        if i == NO_TEMPLATE:
            total += w.recover_manipulated * sum(cs(s, recovered) ** 2 for s in templates)
        else:
            total += w.recover_encrypted * (1 - cs(templates[i], recovered))
    for recovered in on_manipulated:
        total += w.recover_manipulated * sum(cs(s, recovered) ** 2 for s in templates)
    return total / len(index)


def j_c(logits: list[float], similarities: list[float], manipulated: list[int], expected: list[bool], w: LossWeights) -> float:
    """Eq. 10 in the paper's own sense, y = 1 for encrypted, C the classifier's P(encrypted): BCE of [C + CS(S_R, S)] / 2."""
    total = 0.0
    for logit, similarity, changed, has_template in zip(logits, similarities, manipulated, expected):
        c = 1 / (1 + math.exp(logit))
        bracket = (c + min(1.0, max(0.0, similarity))) / 2 if has_template else c
        y = 1 - changed
        total -= y * math.log(bracket) + (1 - y) * math.log(1 - bracket)
    return w.classification * total / len(logits)
