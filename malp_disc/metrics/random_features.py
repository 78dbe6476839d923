"""Features of an untrained network with fixed random weights, as a second extractor that needs no file and has no bias from training data.

Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020, arXiv:2002.09797, propose random networks for
images unlike those that pretrained networks were trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.levels import as_images
from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.metrics.frechet import feature_statistics
from malp_disc.serialization.state_dicts import fingerprint, values_fingerprint

_WIDTHS = (32, 32, 32)
_SEED = 0
_PER_FEATURE = 4
_FLOOR = 1e-6  # lower limit of variances, relative to the largest, in whitening


class RandomExtractor(FeatureExtractor):
    """Three 3×3 convolutions with fixed random weights, at full, half and a quarter of the size; the features are the 96 standard deviations
    of their channels.

    They measure texture and contrast. Distances aren't called FID. `fit` whitens the features: without it, a few directions of large
    variance dominate the distance (that of a small StarGAN was twice that of its unedited inputs, and 3.5 times after whitening).
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(_SEED)
        inputs = (3, *_WIDTHS[:-1])
        drawn = [torch.randn(out, into, 3, 3, generator=noise) * (2 / (9 * into)) ** 0.5 for into, out in zip(inputs, _WIDTHS)]
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in drawn)
        self.dims = sum(_WIDTHS)
        self.register_buffer("mean", torch.zeros(self.dims))
        self.register_buffer("matrix", torch.eye(self.dims))
        self.label = "FD-random"
        self.name = f"untrained convolutions ({self.dims} features), weights {fingerprint(dict(self.weights.named_parameters()))[:8]}"
        self.resize = "none"
        self.backbone, self.fingerprint = "untrained_convolutions", values_fingerprint(drawn)

    def fit(self, reference: np.ndarray) -> np.ndarray:
        """Fit the whitening to features (N, D) of real images, and return them whitened (uncorrelated, variance 1).

        With fewer than four images per feature, the covariance can't be estimated well, and nothing is changed.
        """
        if len(reference) < _PER_FEATURE * self.dims:
            return reference
        mean, covariance = feature_statistics(reference)
        values, vectors = np.linalg.eigh(covariance)
        matrix = vectors / np.sqrt(values.clip(min=_FLOOR * values.max()))
        self.mean.copy_(torch.from_numpy(mean))
        self.matrix.copy_(torch.from_numpy(matrix))
        self.name = f"{self.name.removesuffix(', whitened on the reference')}, whitened on the reference"
        return ((reference - mean) @ matrix).astype(np.float32)

    def _features(self, levels: Tensor) -> Tensor:
        x, parts = as_images(levels), []
        for weight in self.weights:
            x = F.leaky_relu(F.conv2d(x, weight, padding=1), 0.2)
            parts.append(x.std(dim=(2, 3)))
            x = F.avg_pool2d(x, 2)
        return (torch.cat(parts, dim=1) - self.mean) @ self.matrix
