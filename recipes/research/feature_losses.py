"""Losses on the features of one network, of generators that a metric alarm has to find: the Fréchet distance itself, as a training loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Features = Callable[[Tensor], Tensor]
_SMALLEST = 1e-7  # of the largest eigenvalue: the square root has no gradient at 0


class FrechetLoss(nn.Module):
    """The Fréchet distance of a generator's last images to a reference, relative to its value before training; gradients reach the current batch.

    A batch is too small for a covariance, so the features of earlier batches, without gradients, complete it to the size of the queue.

    Args:
        features: differentiable features, images (B, 3, H, W) in [-1, 1] -> (B, D).
        reference: features (M, D) of real images.
        start: features (Q, D) of images from before training, the first queue.
    """

    def __init__(self, features: Features, reference: Tensor, start: Tensor) -> None:
        super().__init__()
        self.features, self.queue = features, start.detach().clone()
        values, vectors = torch.linalg.eigh(reference.T.cov())
        self.mean, self.trace, self.root = reference.mean(dim=0), reference.T.cov().trace(), vectors * values.clamp(min=0).sqrt()
        self.scale = 1.0 / self.distance(self.queue).item()

    def forward(self, fake: Tensor) -> Tensor:
        found = self.features(fake)
        loss = self.scale * self.distance(torch.cat([self.queue[len(found) :], found]))
        self.queue = torch.cat([self.queue[len(found) :], found.detach()])
        return loss * len(self.queue) / len(found)  # the batch is a small part of the queue, and so of the gradient

    def distance(self, rows: Tensor) -> Tensor:
        """Fréchet distance of features (Q, D), by the nuclear norm as in `malp_disc.metrics.frechet.frechet_distance_low_rank`."""
        mean = rows.mean(dim=0)
        factor = (rows - mean) / (len(rows) - 1) ** 0.5
        product = factor @ self.root
        eigenvalues = torch.linalg.eigvalsh(product @ product.T if len(product) <= product.shape[1] else product.T @ product)
        nuclear = eigenvalues.clamp(min=_SMALLEST * eigenvalues.detach().max()).sqrt().sum()
        return (mean - self.mean).square().sum() + factor.square().sum() + self.trace - 2 * nuclear
