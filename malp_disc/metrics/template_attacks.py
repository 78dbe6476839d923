"""Attacks that estimate the template from published encrypted images, from the simplest to the strongest.

    average                  mean image, minus the mean of other, unencrypted images of the same kind
    residuals                mean of high-pass residuals (image minus its blur); needs no other images
    weighted residuals       the same, each pixel weighted by 1 / (local variance): smooth regions reveal more than textured ones
    clustered residuals      for sets of n > 1 templates: k-means with n clusters on the residuals, one mean per cluster
    aligned residuals        for templates shifted per image: iterative registration by FFT cross-correlation, then the mean

All attacks know the size of the set, but not the templates. Their success is a lower bound: on keyed templates, attacks that use how these are made are stronger
(`malp_disc.evaluation.template_copy`, and `malp_disc.evaluation.key_search` where several images have the same one).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from malp_disc.degradations import blurred
from malp_disc.levels import as_images, quantize

_HIGH_PASS = 0.7  # σ in pixels of the blur subtracted from the image; 1 and 1.5 gave worse estimates on faces of 64 pixels
_NEIGHBOURHOOD = 1.5  # σ in pixels of the window of the local variance
_FLOOR = 1e-4  # added to the local variance, (1.3 grey levels)²: bounds the weight of flat pixels
_ROUNDS = 5  # iterations of the registration


@dataclass(frozen=True)
class Published:
    """Inputs of the attacks, (N, H, W) each: grey images, their high-pass residuals, and 1 / (local variance of the residual)."""

    grey: Tensor
    residual: Tensor
    weight: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Published:
        """From images (N, 3, H, W) in [-1, 1], rounded to 8 bits. Grey is the mean of the channels, which carry the same template."""
        grey = as_images(quantize(images)).mean(dim=1, keepdim=True)
        residual = grey - blurred(grey, _HIGH_PASS)
        weight = 1 / (blurred(residual.square(), _NEIGHBOURHOOD) + _FLOOR)
        return cls(grey[:, 0], residual[:, 0], weight[:, 0])

    def take(self, rows: Tensor) -> Published:
        return Published(self.grey[rows], self.residual[rows], self.weight[rows])


def average(published: Published, originals_mean: Tensor) -> Tensor:
    """Attack "average": (1, H, W). `originals_mean` (3, H, W) is the mean of other, unencrypted images."""
    return (published.grey.mean(dim=0) - originals_mean.mean(dim=0))[None]


def residual_average(published: Published) -> Tensor:
    """Attack "residuals": (1, H, W)."""
    return published.residual.mean(dim=0, keepdim=True)


def weighted_average(published: Published) -> Tensor:
    """Attack "weighted residuals": (1, H, W), the maximum-likelihood template for independent normal residuals of these variances."""
    return (published.weight * published.residual).sum(dim=0, keepdim=True) / published.weight.sum(dim=0, keepdim=True)


def clustered_average(published: Published, set_size: int, seed: int = 0) -> Tensor:
    """Attack "clustered residuals": (n, H, W), at most one per image; k-means on the leading principal components of the normalized residuals."""
    from sklearn.cluster import KMeans  # late: takes a second to import
    from sklearn.decomposition import PCA

    scaled = (published.residual * published.weight.sqrt()).flatten(1).numpy()
    clusters = min(set_size, len(scaled))
    if clusters == 1:
        return weighted_average(published)
    # n templates span n directions; as many again for the variation that the images share
    leading = PCA(min(2 * set_size, *scaled.shape), random_state=seed).fit_transform(scaled)
    labels = torch.from_numpy(KMeans(clusters, n_init=10, random_state=seed).fit_predict(leading))
    return torch.cat([weighted_average(published.take(labels == cluster)) for cluster in labels.unique()])


def aligned_average(published: Published, set_size: int = 1) -> Tensor:
    """Attack "aligned residuals": (1, H, W), the template of the first image up to a shift, from the N / n images that match it best."""
    scaled = published.residual * published.weight.sqrt()
    spectra = torch.fft.rfft2(scaled)
    kept = -(-len(scaled) // set_size)
    estimate = scaled[0]
    for _ in range(_ROUNDS):
        correlation = torch.fft.irfft2(spectra * torch.fft.rfft2(estimate).conj(), s=scaled.shape[1:]).flatten(1)
        peak, place = correlation.max(dim=1)
        rows = peak.topk(kept).indices
        back = torch.stack([-(place[rows] // scaled.shape[2]), -(place[rows] % scaled.shape[2])], dim=1)
        estimate = rolled(scaled[rows], back).mean(dim=0)
    return weighted_average(Published(*(rolled(part[rows], back) for part in (published.grey, published.residual, published.weight))))


def rolled(images: Tensor, shifts: Tensor) -> Tensor:
    """Each of (B, …, H, W) rolled circularly down and to the right by its row of `shifts` (B, 2)."""
    moved = [torch.roll(image, shift, dims=(-2, -1)) for image, shift in zip(images, map(tuple, shifts.tolist()))]
    return torch.stack(moved) if moved else images
