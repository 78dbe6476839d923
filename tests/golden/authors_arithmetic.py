"""The authors' arithmetic, literally: the losses and metrics of their released code, not the paper's and not ours.

A reference to compare with, slow and quirks included; nothing of the library uses it. MaLP (github.com/vishal3477/pro_loc, train_loc_det.py) has
13 terms. "released" is what that code computes, two index slips included; "intended" is the same without those two. Their method of CVPR 2022
(github.com/vishal3477/proactive_IMD, STGAN/train.py) has 5. All sums run over the batch, so they grow with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.fakeness import GREY_WEIGHTS

MALP_WEIGHTS = {"loss1": 100, "loss2": 15, "loss3": 4, "loss4": 20, "loss5": 60, "loss6": 25, "loss7": 25, "loss8": 150, "loss9": 50, "loss10": 50}
MALP_WEIGHTS |= {"loss11": 5, "loss12": 50, "loss13": 50}
IMD_WEIGHTS = {"loss1": 200, "loss2": 30, "loss3": 5, "loss4": 0.003, "loss5": 10}

_WINDOW = 50  # frequencies on either side of 0 that their low-pass keeps
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of multi-scale SSIM


# --- shared by both ----------------------------------------------------------------------------------------------------------------------


def min_max(x: Tensor) -> Tensor:
    """Every row (B, …) stretched to [0, 1]; a constant one becomes NaN, as theirs does."""
    rows = x.flatten(1)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return ((rows - low) / (high - low)).view_as(x)


def cosine(a: Tensor, b: Tensor, eps: float = 1e-4) -> Tensor:
    """Cosine per row over everything else: (B, …) × (B, …) -> (B,)."""
    return F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1, eps=eps)


def cosines_with_set(templates: Tensor, on_fake: Tensor, on_encrypted: Tensor) -> Tensor:
    """(n, …) × (B, …) -> (B, n, 2): every template with what was recovered from the fake (0) and from the encrypted image (1)."""
    return torch.stack([torch.stack([cosine(t.expand_as(x[:, 0]), x[:, 0]) for t in templates], dim=1) for x in (on_fake, on_encrypted)], dim=2)


def centred_square(x: Tensor) -> Tensor:
    """Magnitudes of the low frequencies, 0 in the middle: (B, H, W) -> (B, 101, 101)."""
    height, width = (side // 2 for side in x.shape[1:])
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(1, 2)).abs()
    return spectrum[:, height - _WINDOW : height + _WINDOW + 1, width - _WINDOW : width + _WINDOW + 1]


# --- MaLP --------------------------------------------------------------------------------------------------------------------------------


def ground_truth(images: Tensor, fake: Tensor) -> Tensor:
    """Grey fake − grey image, signed, (B, H, W) in [-2, 2]."""
    weights = torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
    return ((fake - images) * weights).sum(1)


def two_rows(x: Tensor) -> Tensor:
    """What the released code takes for the low-pass spectrum: (B, H, W) -> (B, 101, 2).

    The spectrum is stored as (B, H, W, real/imaginary), and they index its second dimension for real and imaginary part: image row 0 and
    row 1. Both shifted parts are then assigned to row 0, where the second stays. The shift also swaps what really is real and
    imaginary, which no sum of squares can tell.
    """
    spectrum = torch.view_as_real(torch.fft.fft2(x))
    row = spectrum[:, 1]  # (B, W, 2)
    half = x.shape[2] // 2
    shifted = row.roll((half, 1), dims=(1, 2))
    return (shifted.square() + row.square() + 1e-10).sqrt()[:, half - _WINDOW : half + _WINDOW + 1]


def multiscale_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean multi-scale SSIM of (B, H, W) in [0, 1] as pytorch-msssim 0.1 has it with nonnegative_ssim=True, after a nearest resize to 256.

    Windows lie wholly inside the image. torchmetrics, which mirrors the border, gives other numbers (0.057 instead of 0.077 on
    the golden of batch 4).
    """
    a, b = (F.interpolate(x[:, None], (256, 256), mode="nearest") for x in (a, b))
    line = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    factors = []
    for scale in range(len(_SCALES)):
        mean_a, mean_b = F.conv2d(a, window), F.conv2d(b, window)
        variances = F.conv2d(a * a, window) - mean_a**2 + F.conv2d(b * b, window) - mean_b**2
        contrast = (2 * (F.conv2d(a * b, window) - mean_a * mean_b) + c2) / (variances + c2)
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        last = scale == len(_SCALES) - 1
        factors.append((luminance * contrast if last else contrast).mean((1, 2, 3)).relu() ** _SCALES[scale])
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return torch.stack(factors).prod(0).mean()


def map_metric(truth: Tensor, on_fake: Tensor, on_encrypted: Tensor) -> Tensor:
    """(B, 2): cosine of the min-max normalised truth and map, of the fake (0; the number the paper reports) and of the encrypted image (1)."""
    return torch.stack([cosine(min_max(truth), min_max(maps)) for maps in (on_fake, on_encrypted)], dim=1)


def template_metric(templates: Tensor, on_fake: Tensor, on_encrypted: Tensor) -> Tensor:
    """(B, n, 2): cosine of each template (n, H, W) and the min-max normalised recovered one (B, 1, H, W)."""
    return cosines_with_set(templates, min_max(on_fake), min_max(on_encrypted))


def malp_losses(
    variant: str,
    *,
    templates: Tensor,
    added: Tensor,
    truth: Tensor,
    map_fake: Tensor,
    signal_encrypted: Tensor,
    signal_fake: Tensor,
    transformer_map_fake: Tensor,
    classified: Tensor,
    classified_transformer: Tensor,
) -> dict[str, Tensor]:
    """The 13 terms of train_loc_det.py, weighted, and their total.

    Shapes: templates (n, H, W); added m·A_i (B, H, W); truth (B, H, W); map_fake and both signals (B, 1, H, W); transformer_map_fake (B, H, W);
    both classified (2B, 2), the encrypted images first: sigmoids that then go through a softmax.
    """
    labels = torch.arange(2).repeat_interleave(len(truth))
    pairs = itertools.combinations(min_max(templates).split(1), 2)
    terms = {
        "loss1": templates.square().mean(),
        "loss2": (1 - cosine(added, min_max(signal_encrypted))).sum(),
        "loss3": low_frequencies(variant, added).square().mean(),
        "loss4": cosine(added, min_max(signal_fake)).sum(),
        # released: (B, 1, H, W) against (B, H, W), each map against every truth of the batch
        "loss5": ((map_fake if variant == "released" else map_fake[:, 0]) - truth).square().mean(),
        "loss6": (1 - cosine(min_max(truth), min_max(map_fake))).sum(),
        "loss7": (transformer_map_fake - truth).square().mean(),
        "loss8": (1 - cosine(min_max(truth), min_max(transformer_map_fake))).sum(),
        "loss9": F.cross_entropy(classified, labels),
        "loss10": F.cross_entropy(classified_transformer, labels),
        "loss11": sum((cosine(a, b, eps=1e-6).sum() for a, b in pairs), torch.zeros(())),
        "loss12": 1 - multiscale_ssim(min_max(truth), min_max(map_fake[:, 0])),
        "loss13": 1 - multiscale_ssim(min_max(truth), min_max(transformer_map_fake)),
    }
    return weighted(terms, MALP_WEIGHTS)


def low_frequencies(variant: str, added: Tensor) -> Tensor:
    if variant not in ("released", "intended"):
        raise ValueError(f"the arithmetic is 'released' or 'intended', got {variant!r}")
    return two_rows(added) if variant == "released" else centred_square(added)


# --- proactive image manipulation detection ----------------------------------------------------------------------------------------------


def imd_losses(*, templates: Tensor, index: Tensor, strength: float, signal_encrypted: Tensor, signal_fake: Tensor) -> dict[str, Tensor]:
    """The 5 terms of proactive_IMD's train.py, weighted, and their total. Shapes: templates (n, 1, H, W), index (B,), signals (B, 1, H, W)."""
    chosen, normalised = templates[index], min_max(templates)
    pairs = itertools.combinations(normalised.split(1), 2)
    with_fake = torch.stack([cosine(t.expand_as(signal_fake), min_max(signal_fake)) for t in normalised], dim=1)  # (B, n)
    terms = {
        "loss1": chosen.square().mean(),
        "loss2": sum((cosine(a, b).nan_to_num(0).sum() for a, b in pairs), torch.zeros(())),
        "loss3": (1 - cosine(strength * chosen, signal_encrypted)).sum(),
        "loss4": centred_square(chosen[:, 0]).square().mean(),
        "loss5": with_fake.sum(1).max(),  # the largest of the batch
    }
    return weighted(terms, IMD_WEIGHTS)


def imd_metric(templates: Tensor, strength: float, on_fake: Tensor, on_encrypted: Tensor) -> Tensor:
    """(B, n, 2): cosine of m·A_i (n, 1, H, W) and the recovered template (B, 1, H, W) as it is."""
    return cosines_with_set(strength * templates[:, 0], on_fake, on_encrypted)


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    losses = {name: weights[name] * term for name, term in terms.items()}
    return {**losses, "total": sum(losses.values())}
