"""Detection (paper, section 3.2.3): was this image manipulated? The average of two scores: a classifier of the fakeness map, and the
cosine similarity of the recovered template."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.precision import full_precision

_EPSILON = 1e-6  # added to squared norms, for a finite gradient of the cosine at zero vectors (about 4e7 was measured without)


class MapClassifier(Float32Module):
    """C: classifies an image as manipulated from its fakeness map, of any size. Pooled by mean and maximum, so that small regions count.

    Shape:
        map (B, 1, H, W) in [0, 1] -> logit (B,), positive for "manipulated".
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for outputs in (width // 2, width, width):
            layers += [nn.Conv2d(channels, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            channels = outputs
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.LeakyReLU(0.2, inplace=True), nn.Linear(width, 1))

    @full_precision
    def forward(self, maps: Tensor) -> Tensor:
        features = self.layers(maps.float())
        return self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))[:, 0]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """CS(a, b) of each row over all other dimensions, (B, …) × (B, …) -> (B,); 0, with a finite gradient, if a or b is zero."""
    a, b = a.float().flatten(1), b.float().flatten(1)
    norm = (a.square().sum(1) + _EPSILON).sqrt() * (b.square().sum(1) + _EPSILON).sqrt()
    return (a * b).sum(1) / norm


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row over all other dimensions, (B, …) × (B, …) -> (B,): the cosine after subtracting the means."""
    a, b = a.float().flatten(1), b.float().flatten(1)
    return cosine(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))


@full_precision
def template_similarity(recovered: Tensor, templates: Tensor) -> Tensor:
    """CS of every recovered template with every template of the set: (B, 1, H, W) × (n, 1, H, W) -> (B, n)."""
    recovered, templates = recovered.float().flatten(1), templates.float().flatten(1)
    recovered = recovered / (recovered.square().sum(1, keepdim=True) + _EPSILON).sqrt()
    templates = templates / (templates.square().sum(1, keepdim=True) + _EPSILON).sqrt()
    return recovered @ templates.T


def manipulation_score(logit: Tensor, similarity: Tensor, template_expected: Tensor | bool = True) -> Tensor:
    """P(manipulated): the average of classifier and template score, the bracket of Eq. 10; (B,), (B,) -> (B,) in [0, 1].

    Args:
        logit: (B,), output of `MapClassifier`.
        similarity: (B,), CS(S_R, S), clamped to [0, 1], since a negative one means no template, as 0 does.
        template_expected: (B,) or one for all. Where False (passive detector or unprotected image), a missing template is no evidence of
            manipulation, and the classifier's probability is returned.

    Raises:
        ValueError: `logit` and `similarity` aren't of one shape (B,).

    Note:
        In Eq. 10, y = 1 for encrypted images, so C and CS are added there. Here the positive class is "manipulated", and both enter as
        1 minus their value.
    """
    if logit.ndim != 1 or logit.shape != similarity.shape:
        raise ValueError(f"expected logit and similarity of one shape (B,), got {tuple(logit.shape)} and {tuple(similarity.shape)}")
    by_map = torch.sigmoid(logit.float())
    both = (by_map + 1 - similarity.float().clamp(0, 1)) / 2
    if isinstance(template_expected, bool):
        return both if template_expected else by_map
    return torch.where(template_expected, both, by_map)
