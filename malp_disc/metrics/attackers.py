"""Attackers who estimate a template from encrypted images that were published, from naive to able.

    average                  the mean image, minus the mean of other, unencrypted images of the same kind
    residuals                the mean of high-pass residuals, what a small blur takes away; needs no other images
    weighted residuals       the same, each pixel weighted by 1 / (variance about it): smooth skin says more than hair
    clustered residuals      for sets of n > 1: residuals sorted by k-means into n heaps, each averaged
    aligned residuals        for templates shifted per image: registered on one image by FFT cross-correlation, averaged, and again

All know the scheme and the size of the set, not the templates. What they reach is a lower bound: a better attacker may exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from malp_disc.metrics.degradations import blurred
from malp_disc.metrics.features import quantize

_HIGH_PASS = 0.7  # σ in pixels of the blur that residuals leave out; 1 and 1.5 lost more of the template on faces of 64 pixels
_NEIGHBOURHOOD = 1.5  # σ in pixels of the window that a pixel's variance is taken in
_FLOOR = 1e-4  # variance about a flat pixel, (1.3 grey levels)²: no pixel counts for everything
_ROUNDS = 5  # of registration


@dataclass(frozen=True)
class Published:
    """Encrypted images as an attacker looks at them, (N, H, W) each: grey, its high-pass residual, and 1 / (variance about a pixel)."""

    grey: Tensor
    residual: Tensor
    weight: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Published:
        """From images (N, 3, H, W) in [-1, 1], rounded to 8 bits as published. Grey is the mean: all channels carry the same template."""
        grey = (quantize(images).float() / 127.5 - 1).mean(dim=1, keepdim=True)
        residual = grey - blurred(grey, _HIGH_PASS)
        weight = 1 / (blurred(residual.square(), _NEIGHBOURHOOD) + _FLOOR)
        return cls(grey[:, 0], residual[:, 0], weight[:, 0])

    def take(self, rows: Tensor) -> Published:
        return Published(self.grey[rows], self.residual[rows], self.weight[rows])


def average(published: Published, originals_mean: Tensor) -> Tensor:
    """Attacker "average": (1, H, W). originals_mean: (3, H, W), of other images."""
    return (published.grey.mean(dim=0) - originals_mean.mean(dim=0))[None]


def residual_average(published: Published) -> Tensor:
    """Attacker "residuals": (1, H, W)."""
    return published.residual.mean(dim=0, keepdim=True)


def weighted_average(published: Published) -> Tensor:
    """Attacker "weighted residuals": (1, H, W), the most likely template if residuals are independent and normal with the variances seen."""
    return (published.weight * published.residual).sum(dim=0, keepdim=True) / published.weight.sum(dim=0, keepdim=True)


def clustered_average(published: Published, set_size: int, seed: int = 0) -> Tensor:
    """Attacker "clustered residuals": (n, H, W), or fewer of fewer images; k-means on the leading principal components of residuals scaled to unit variance."""
    from sklearn.cluster import KMeans  # late: takes a second to import
    from sklearn.decomposition import PCA

    scaled = (published.residual * published.weight.sqrt()).flatten(1).numpy()
    heaps = min(set_size, len(scaled))
    if heaps == 1:
        return weighted_average(published)
    # n templates span n directions; twice as many leave room for what faces have in common
    leading = PCA(min(2 * set_size, *scaled.shape), random_state=seed).fit_transform(scaled)
    labels = torch.from_numpy(KMeans(heaps, n_init=10, random_state=seed).fit_predict(leading))
    return torch.cat([weighted_average(published.take(labels == heap)) for heap in labels.unique()])


def aligned_average(published: Published, set_size: int = 1) -> Tensor:
    """Attacker "aligned residuals": (1, H, W), a template up to a shift. Of a set the first image's: the N / n that match best are kept."""
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


def rolled(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Each of (B, …, H, W) rolled down and to the right by its row of `shifts` (B, 2)."""
    moved = [torch.roll(picture, shift, dims=(-2, -1)) for picture, shift in zip(pictures, map(tuple, shifts.tolist()))]
    return torch.stack(moved) if moved else pictures
