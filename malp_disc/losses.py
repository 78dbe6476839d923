"""The pretraining objective J = J_T + J_R + J_C + J_L (paper, Eq. 7-11).

Every ‖·‖₂ is computed as a root mean square (the norm divided by √count) and every sum over images as a mean, so that the weights λ don't
depend on image and batch size. The paper's values of λ are in its supplement only; `LossWeights` has the values used here, with reasons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.detection import correlation, cosine, manipulation_score, template_similarity
from malp_disc.encryption import NO_TEMPLATE, check_index
from malp_disc.runtime.input_checks import check_loss_weights, looks_at_values
from malp_disc.ssim import structural_similarity

_LOW_PASS_RADIUS = 0.25  # cut-off of L, in units of the Nyquist frequency
_PROBABILITY_MARGIN = 1e-6


@dataclass(frozen=True)
class LossWeights:
    """λ1 … λ10 of Eq. 7-10, and three values that aren't in the paper. A weight of 0 disables its term."""

    magnitude: float = 1.5  # λ1: the other terms favour strong templates; with 0.5 the PSNR of encrypted images fell below 30 dB (λ10 = 2)
    orthogonality: float = 0.5  # λ2
    high_frequency: float = 0.1  # λ3
    encrypted_zero: float = 100.0  # λ4: large, since the mean square of a map is small (0.003); see map_error
    encrypted_cosine: float = 0.5  # λ5
    manipulated_cosine: float = 2.0  # λ6
    manipulated_ssim: float = 0.5  # λ7
    recover_encrypted: float = 1.0  # λ8
    recover_manipulated: float = 1.0  # λ9
    classification: float = 2.0  # λ10: with 0.5 the maps of both classes became distinct later
    map_error: float = 100.0  # not in Eq. 8, but in the authors' code (loss 5): cosine and SSIM don't determine the map's scale. Equal to λ4:
    # with 10 for both, the minimum was one dim map for both classes (means 0.018 and 0.019, truth 0.055, 400 steps on real faces)
    label_smoothing: float = 0.1  # of a pretrained second branch, not in the paper: images that weren't manipulated have the label 0.1 instead of 0, one-sided
    # (Salimans et al., NeurIPS 2016). On drawn faces FD-faces was 2 and 3 % lower with it, FD-SqueezeNet 1 and 2 % higher (two weights, 200 steps, one seed)
    map_correlation: float = 2.0  # not in the paper: the cosine of non-negative maps is close to 1 even for a constant map, Pearson's is 0

    def __post_init__(self) -> None:
        check_loss_weights(self)
        if self.label_smoothing >= 1:
            raise ValueError(f"expected label_smoothing in [0, 1), got {self.label_smoothing}")


COTRAIN_WEIGHTS = {
    # On drawn faces, seed 0, FD-faces is 0.44 above the control, and with the weights of pretraining 3.83. On real faces MaLP stops localizing with them: it
    # predicts the same dim map for real and fake (docs/results/real-faces.md).
    "light": LossWeights(magnitude=0.5, encrypted_zero=10.0, classification=0.5, map_error=10.0, map_correlation=0.0),
    "pretraining": LossWeights(),
}
"""Weights of a co-trained MaLP's own losses, by the names of `--cotrain-losses`."""


@dataclass
class MaLPLosses:
    """J and its terms, each a scalar tensor. 0 unless used: `penalty`, a discriminator's R1 penalty, and `realness`, J_C of a pretrained second branch."""

    total: Tensor
    template: Tensor
    localization: Tensor
    recovery: Tensor
    classification: Tensor
    penalty: Tensor
    realness: Tensor


def template_loss(templates: Tensor, weights: LossWeights) -> Tensor:
    """J_T, Eq. 7: templates of low magnitude, orthogonal to each other, of high frequency.

    λ1 Σᵢ ‖Sᵢ‖₂ + λ2 Σ_{i≠j} CS(Sᵢ, Sⱼ) + λ3 ‖L(F(S))‖₂

    Shape: templates (n, H, W) -> scalar.

    Note:
        L passes frequencies up to a quarter of Nyquist on both axes, and F is orthonormal. The paper specifies neither (the authors' code
        modifies two rows of the spectrum). The sum over i ≠ j has both orders, as printed, and is divided by n - 1.
    """
    n = len(templates)
    templates = templates.float()
    magnitude = (templates.square().mean((1, 2)) + 1e-12).sqrt().sum()
    rows = templates.flatten(1)
    similarity = template_similarity(rows, rows)
    orthogonality = (similarity.sum() - similarity.diagonal().sum()) / max(1, n - 1)
    return weights.magnitude * magnitude + weights.orthogonality * orthogonality + weights.high_frequency * low_frequency(templates)


def low_frequency(templates: Tensor) -> Tensor:
    """‖L(F(S))‖₂ of Eq. 7: root mean square of the low frequencies of the spectrum, (n, H, W) -> scalar."""
    spectrum = torch.fft.fft2(templates.float(), norm="ortho")
    vertical = torch.fft.fftfreq(templates.shape[1], device=templates.device).abs() <= _LOW_PASS_RADIUS / 2
    horizontal = torch.fft.fftfreq(templates.shape[2], device=templates.device).abs() <= _LOW_PASS_RADIUS / 2
    power = spectrum.real.square() + spectrum.imag.square()
    return (power[:, vertical][:, :, horizontal].mean() + 1e-12).sqrt()


def localization_loss_encrypted(maps: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """J_L for encrypted images, Eq. 8 (first case): λ4 ‖M̂‖² + λ5 CS(M̂, M_GT); maps and truth (B, 1, H, W) in [0, 1].

    Note:
        The first term drives the map towards zero. For such maps, the printed cosine is lowest if a single bright spot remains where little
        changes, and this artefact was indeed learned (visible in the images, not in the scores). Therefore the map's norm in the
        denominator is at least that of M_GT: then the term vanishes with the map, and a spot lowers nothing.
    """
    _check_one_shape(maps, truth)
    flat, target = maps.float().flatten(1), truth.float().flatten(1)
    norms = [(rows.square().sum(1) + 1e-6).sqrt() for rows in (flat, target)]
    similarity = (flat * target).sum(1) / (torch.maximum(*norms) * norms[1])
    return weights.encrypted_zero * flat.square().mean() + weights.encrypted_cosine * similarity.mean()


def localization_loss_manipulated(maps: Tensor, truth: Tensor, weights: LossWeights) -> Tensor:
    """J_L for manipulated images, Eq. 8 (second case): λ6 (1 - CS) + λ7 (1 - SSIM), and our λ (M̂ - M_GT)² + λ (1 - Pearson); (B, 1, H, W) in [0, 1].

    Note:
        If the generator didn't change an image (M_GT zero everywhere), its cosine and correlation are undefined; these terms are 0 then, and
        SSIM and squared error remain.
    """
    _check_one_shape(maps, truth)
    maps, truth = maps.float(), truth.float()
    changed = (truth.flatten(1).amax(1) > 0).float()
    total = weights.manipulated_cosine * ((1 - cosine(maps, truth)) * changed).mean()
    if weights.map_correlation:
        total = total + weights.map_correlation * ((1 - correlation(maps, truth)) * changed).mean()
    if weights.manipulated_ssim:
        # Images as channels: same mean, but depthwise convolution, which is ten times as fast on a CPU as convolving single channels.
        similarity = structural_similarity(maps.transpose(0, 1), truth.transpose(0, 1), data_range=1.0).mean()
        total = total + weights.manipulated_ssim * (1 - similarity)
    return total + weights.map_error * (maps - truth).square().mean()


def recovery_loss(on_encrypted: Tensor, on_manipulated: Tensor, templates: Tensor, index: Tensor, weights: LossWeights) -> Tensor:
    """J_R, Eq. 9: encrypted λ8 (1 - CS(S, S_R)), manipulated λ9 Σᵢ CS(Sᵢ, S_R)².

    Shapes: recovered templates (B, 1, H, W) each, templates (n, 1, H, W) at the same size, index (B,) of the template that was added.

    Raises:
        ValueError: shapes that don't fit together, or an index outside the set.

    Note:
        Eq. 9 has Σ CS, whose minimum -1 rewards recovering the negative of the template; the square rewards recovering none of it.
        Unprotected images (index -1) are treated like manipulated ones, since there is no template to recover.
    """
    if on_encrypted.shape != on_manipulated.shape or on_encrypted.shape[1:] != templates.shape[1:]:
        shapes = ", ".join(str(tuple(values.shape)) for values in (on_encrypted, on_manipulated, templates))
        raise ValueError(f"expected recovered templates (B, 1, H, W) twice and templates (n, 1, H, W), got {shapes}; use Encryption.at for their size")
    index = check_index(index, len(on_encrypted), len(templates), on_encrypted.device)
    kept = index != NO_TEMPLATE
    similarity = template_similarity(on_encrypted, templates)
    own = similarity.gather(1, index.clamp(min=0)[:, None])[:, 0]
    none = similarity.square().sum(1)
    encrypted = torch.where(kept, weights.recover_encrypted * (1 - own), weights.recover_manipulated * none).mean()
    return encrypted + weights.recover_manipulated * template_similarity(on_manipulated, templates).square().sum(1).mean()


def classification_loss(logit: Tensor, similarity: Tensor, manipulated: Tensor, template_expected: Tensor | bool, weights: LossWeights) -> Tensor:
    """J_C, Eq. 10: λ10 · binary cross-entropy of `manipulation_score`, the average of classifier and template score.

    Shapes: logit, similarity (B,); manipulated (B,) in {0, 1}; template_expected (B,) bool or one for all.

    Raises:
        ValueError: logit, similarity and manipulated aren't of one shape (B,).

    Note:
        The printed equation has a minus before (1 - y), with which the second class would be trained in the wrong direction; this is the
        standard cross-entropy. It is written out because torch refuses `binary_cross_entropy` under CUDA autocast. Within 1e-6 of 0 and 1, where a
        probability is too coarse, its logarithm is computed from the logit, so that an image that C is certain and wrong about is still learned from.
    """
    if manipulated.shape != logit.shape:
        raise ValueError(f"expected a label for each logit (B,), got {tuple(manipulated.shape)} for {tuple(logit.shape)}")
    probability = manipulation_score(logit, similarity, template_expected)
    clamped = probability.clamp(_PROBABILITY_MARGIN, 1 - _PROBABILITY_MARGIN)
    found = similarity.detach().float().clamp(0, 1)
    log_yes = torch.where(probability <= _PROBABILITY_MARGIN, _log_average(logit.float(), 1 - found, template_expected), clamped.log())
    log_no = torch.where(probability >= 1 - _PROBABILITY_MARGIN, _log_average(-logit.float(), found, template_expected), (1 - clamped).log())
    manipulated = manipulated.float()
    return -weights.classification * (manipulated * log_yes + (1 - manipulated) * log_no).mean()


def _log_average(logit: Tensor, by_template: Tensor, template_expected: Tensor | bool) -> Tensor:
    """log([sigmoid(logit) + by_template] / 2), or log sigmoid(logit) where no template is expected, with a gradient to the logit for any logit."""
    by_map = F.logsigmoid(logit)
    both = torch.logaddexp(by_map, by_template.log()) - math.log(2)
    if isinstance(template_expected, bool):
        return both if template_expected else by_map
    return torch.where(template_expected, both, by_map)


def check_maps(maps: Tensor, *, like: Tensor) -> None:
    """Raise ValueError unless `maps` are fakeness maps (B, 1, H, W) in [0, 1] for the images `like`."""
    expected = (len(like), 1, *like.shape[2:])
    if not isinstance(maps, Tensor) or tuple(maps.shape) != expected or not maps.is_floating_point() or maps.device != like.device:
        found = f"{maps.dtype} {tuple(maps.shape)} on {maps.device}" if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"expected a map {expected} in floating point on {like.device}, one per image, got {found}; make it with fakeness_map(images, fake)")
    if looks_at_values(maps):
        low, high = torch.stack(torch.aminmax(maps.detach().float())).tolist()
        if not (low >= 0 and high <= 1):  # written so that NaN fails
            raise ValueError(f"expected a map in [0, 1], got min {low:.4g} max {high:.4g}; make it with fakeness_map(images, fake)")


def _check_one_shape(maps: Tensor, truth: Tensor) -> None:
    if maps.ndim != 4 or maps.shape != truth.shape or maps.numel() == 0:
        raise ValueError(f"expected predicted maps and M_GT of one shape (B, 1, H, W), at least one each, got {tuple(maps.shape)} and {tuple(truth.shape)}")
