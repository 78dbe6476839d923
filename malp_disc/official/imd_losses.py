"""The losses of proactive image manipulation detection (Asnani et al., CVPR 2022), as in the authors' train.py (MIT)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.runtime.precision import full_precision

WEIGHTS = {"magnitude": 200.0, "orthogonality": 30.0, "recover_encrypted": 5.0, "low_frequency": 0.003, "recover_manipulated": 10.0}
_HALF = 50  # of the low-frequency square, whose side is 101
_EPSILON = 1e-4  # of the authors' cosine


@full_precision
def imd_losses(templates: Tensor, index: Tensor, strength: float, on_encrypted: Tensor, on_manipulated: Tensor) -> dict[str, Tensor]:
    """The five weighted terms by name, scalars.

    Args:
        templates: A, (n, 1, 128, 128).
        index: (B,), of the templates that were added.
        strength: m.
        on_encrypted, on_manipulated: recovered templates, (B, 1, 128, 128).

    Note:
        As in the authors' code, terms are sums over the batch, but that of the manipulated images, which is the largest of the batch; templates and those
        recovered from manipulated images are min-max normalized first. A constant one, 0/0 in their code, has cosine 0 here.
    """
    added, unit = templates[index], min_max(templates)
    pairs = [_cosine(a, b).sum() for a, b in itertools.combinations(unit.split(1), 2)]
    with_manipulated = torch.stack([_cosine(template.expand_as(on_manipulated), min_max(on_manipulated)) for template in unit], dim=1)  # (B, n)
    spectrum = torch.fft.fftshift(torch.fft.fft2(added[:, 0]), dim=(1, 2))
    rows, columns = (slice(side // 2 - _HALF, side // 2 + _HALF + 1) for side in spectrum.shape[1:])
    low = spectrum[:, rows, columns]
    terms = {
        "magnitude": added.square().mean(),
        "orthogonality": sum(pairs, torch.zeros((), device=templates.device)),
        "recover_encrypted": (1 - _cosine(strength * added, on_encrypted)).sum(),
        "low_frequency": (low.real.square() + low.imag.square()).mean(),
        "recover_manipulated": with_manipulated.sum(1).max(),
    }
    return {name: WEIGHTS[name] * term for name, term in terms.items()}


def min_max(values: Tensor) -> Tensor:
    """Each row scaled to [0, 1]; a constant row becomes 0."""
    rows = values.flatten(1)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return ((rows - low) / torch.where(high > low, high - low, 1.0)).view_as(values)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1, eps=_EPSILON)
