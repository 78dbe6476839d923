"""The self-similarity loss: an edit may change colours and textures, and keeps what is where.

    similarity = SelfSimilarity(create_backbone())
    loss = similarity(fake, images)                                    # 0 for unchanged images
    objective = WithContentLoss(None, similarity, weight=8.0)          # a generator's own losses, for malp_disc.training

Features of a horse and of the zebra that was painted over it differ, but the parts of the horse resemble each other as those of the zebra do. The loss compares the
matrices of these resemblances, as the self-similarity loss of Kolkin et al. (STROTSS, CVPR 2019) and the spatially-correlative loss of Zheng et al. (CVPR 2021) do.
A translation that is fine-tuned against a stronger discriminator needs it: pixel by pixel its output must change, and without it edges move
(docs/results/horse2zebra.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.backbones import Backbone, leave_out_backbone
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.precision import full_precision

_STRIDE = 8  # of the feature map: parts of a few pixels, in which stripes are texture and legs are not
_MOST_SIDE = 32  # positions along a side; maps of larger images are pooled to that


class SelfSimilarity(Float32Module):
    """Mean absolute difference of two images' cosines between the features of every two positions.

    The features are those of a frozen backbone at stride 8, or the coarsest that it has, after subtraction of each image's mean. The backbone's weights aren't in the
    state dict, and nothing is trained.

    Args:
        least_side: images whose shorter side is smaller are enlarged to it for the backbone.
    """

    def __init__(self, backbone: Backbone, *, least_side: int = 64) -> None:
        super().__init__()
        self.backbone, self.least_side = backbone, least_side
        self.depth = min(range(len(backbone.strides)), key=lambda depth: abs(backbone.strides[depth] - _STRIDE))
        leave_out_backbone(self)

    @full_precision
    def forward(self, fake: Tensor, images: Tensor) -> Tensor:
        """The loss, a scalar in [0, 2], the mean over the images; gradients reach `fake` alone.

        Shapes: fake, images (B, 3, H, W) in [-1, 1].

        Raises:
            ValueError: the shapes differ.
        """
        if fake.shape != images.shape:
            raise ValueError(f"expected images of one shape, got {tuple(fake.shape)} and {tuple(images.shape)}")
        with torch.no_grad():
            wanted = self._cosines(images)
        return (self._cosines(fake) - wanted).abs().mean()

    def _cosines(self, images: Tensor) -> Tensor:
        """Cosines between the features of every two of n positions, (B, n, n)."""
        features = self.backbone(images.float(), least_side=self.least_side)[self.depth]
        size = [min(side, _MOST_SIDE) for side in features.shape[2:]]
        if max(features.shape[2:]) > _MOST_SIDE:
            features = F.adaptive_avg_pool2d(features, size)
        features = features.flatten(2)
        unit = F.normalize(features - features.mean(2, keepdim=True), dim=1)
        return unit.transpose(1, 2) @ unit


class WithContentLoss(nn.Module):
    """A generator's own losses, or none, and `weight` times the self-similarity loss between its images and their originals (a `GeneratorObjective`)."""

    def __init__(self, objective: nn.Module | None, similarity: SelfSimilarity, *, weight: float) -> None:
        super().__init__()
        self.objective, self.similarity, self.weight = objective, similarity, weight

    def generator_loss(self, fake: Tensor, batch: Any, edit: Callable[..., Tensor]) -> dict[str, Tensor]:
        own = {} if self.objective is None else dict(self.objective.generator_loss(fake, batch, edit))
        return {**own, "self_similarity": self.weight * self.similarity(fake, batch.images)}

    def forward(self, fake: Tensor, batch: Any) -> dict[str, Tensor]:
        return self.objective(fake, batch)
