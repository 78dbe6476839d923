"""The network of FFD (Dang, Liu, Stehouwer, Liu, Jain: On the detection of digital face manipulation, CVPR 2020): Xception with an attention map.

State-dict keys are those of github.com/JStehouwer/FFD_CVPR2020 (no licence); written from a description.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from malp_disc.benchmark.xception import FFD, Block, SeparableConv, Xception

MapForm = Literal["reg", "tmp"]
TEMPLATES = 10
_BEFORE_MAP = 7  # blocks
_WIDTH = 728


class FFDOutput(NamedTuple):
    """What `FFDNetwork` returns: its decision, its map, and the coefficients that the map was combined with."""

    logits: Tensor
    """(B, 2), class 1 is fake."""
    mask: Tensor
    """The attention map (B, 1, h, w), 19×19 for images of 299×299. In [0, 1] for "reg", unbounded for "tmp"."""
    coefficients: Tensor | None
    """(B, 10) of the templates for "tmp", otherwise None."""


class RegressedMap(nn.Module):
    """The map from the features by a separable convolution and a sigmoid: (B, 728, h, w) -> (B, 1, h, w) in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.c = SeparableConv(_WIDTH, 1, names=FFD)

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.c(features))


class TemplateCoefficients(nn.Module):
    """The coefficients of the templates, from the features: (B, 728, h, w) -> (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.c = Block(_WIDTH, _WIDTH // 2, 2, stride=2, grow_last=True, names=FFD)
        self.l = nn.Linear(_WIDTH // 2, TEMPLATES)

    def forward(self, features: Tensor) -> Tensor:
        return self.l(self.c(features).relu().mean((2, 3)))


class FFDNetwork(Xception):
    """Xception whose features after block 7 are multiplied by a map that it estimates from them.

    Args:
        map_form: "reg" regresses the map, "tmp" combines templates linearly.

    Shape:
        images (B, 3, H, W) in [-1, 1], and for "tmp" templates (10, h, w) -> `FFDOutput`.
    """

    def __init__(self, map_form: MapForm = "reg") -> None:
        super().__init__(2, names=FFD)
        self.map_form = map_form
        self.map = RegressedMap() if map_form == "reg" else TemplateCoefficients()

    def forward(self, images: Tensor, templates: Tensor | None = None) -> FFDOutput:
        features, mask, coefficients = self.attend(images, templates)
        return FFDOutput(self.classify(self.last_features(self.features(features, first=_BEFORE_MAP + 1))), mask, coefficients)

    def attend(self, images: Tensor, templates: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The features after block 7, already multiplied by the map; the map; the coefficients or None."""
        features = self.features(images, last=_BEFORE_MAP)
        if self.map_form == "reg":
            mask, coefficients = self.map(features), None
        else:
            if templates is None or tuple(templates.shape) != (TEMPLATES, *features.shape[2:]):
                found = "none" if templates is None else tuple(templates.shape)
                raise ValueError(f"expected templates {(TEMPLATES, *features.shape[2:])} for images of {images.shape[3]}x{images.shape[2]}, got {found}")
            coefficients = self.map(features)
            mask = torch.einsum("bt,thw->bhw", coefficients, templates)[:, None]
        return features * mask, mask, coefficients
