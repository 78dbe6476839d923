"""MaLP's second branch with a pretrained backbone in place of the paper's transformer.

The paper trains MaLP with two branches, a shallow CNN for local and a transformer for global features, both from scratch (section 3.2.2). A generator learns
only fine texture from such a detector (docs/results/real-faces.md). Here the second branch is a frozen backbone, pretrained on ImageNet, with small trained
heads on its feature maps at several depths, as in vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021). The heads
answer MaLP's two questions: how much was each location changed (M_GT, Eq. 8), and was the image manipulated (Eq. 10)? What a generator learns from it, and what
it doesn't, is measured in docs/results/faces-without-mask.md and docs/results/horse2zebra.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.backbones import Backbone
from malp_disc.freezing import Float32Module
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.precision import full_precision

_WIDTH = 64
_START_BIAS = -2.0  # initial maps are about sigmoid(-2) = 0.12, as those of E_C
_OUTSIDE = "backbone."  # weights that aren't part of the state dict


@dataclass
class BranchOutput:
    """Predictions of a `FeatureBranch`.

    Attributes:
        map: fakeness map, (B, 1, H, W) in (0, 1); None if it wasn't asked for.
        logits: "manipulated" at every location and depth, positive for manipulated: a tuple of (B, 1, h, w), the finest first.
        features: the backbone's feature maps, (B, channels, h, w) each, detached.
    """

    map: Tensor | None
    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...] = ()

    @property
    def logit(self) -> Tensor:
        """"Manipulated" of the image, (B,): the mean over locations and depths."""
        return torch.stack([values.mean((1, 2, 3)) for values in self.logits]).mean(0)


class FeatureBranch(Float32Module):
    """Heads on the feature maps of a frozen backbone.

    The backbone's weights aren't in the state dict: they never change, and `malp_disc.malp.MaLP` finds them again by their name.

    Args:
        least_side: images whose shorter side is smaller are enlarged to it for the backbone, which was trained on larger ones.
    """

    def __init__(self, backbone: Backbone, *, least_side: int = 64) -> None:
        super().__init__()
        self.backbone, self.least_side = backbone, least_side
        self.map_heads = nn.ModuleList([_head(channels) for channels in backbone.channels])
        self.realness_heads = nn.ModuleList([_head(channels) for channels in backbone.channels])
        for head in self.map_heads:
            nn.init.constant_(head[-1].bias, _START_BIAS / len(self.map_heads))
        self.register_state_dict_post_hook(_without_backbone)
        self.register_load_state_dict_post_hook(_backbone_not_missing)
        self.float()  # also under another torch.set_default_dtype

    @full_precision
    def forward(self, images: Tensor, *, map: bool = True) -> BranchOutput:
        """Map and logits of images (B, 3, H, W) in [-1, 1]; with ``map=False`` the logits alone."""
        return self._answers(self.backbone(images.float(), least_side=self.least_side), images.shape[2:], map=map)

    def _answers(self, features: Sequence[Tensor], size: torch.Size, *, map: bool = True) -> BranchOutput:
        """Map, of this size, and logits from the backbone's feature maps."""
        logits = tuple(head(maps) for head, maps in zip(self.realness_heads, features))
        return BranchOutput(self._map(features, size) if map else None, logits, tuple(maps.detach() for maps in features))

    def _map(self, features: Sequence[Tensor], size: torch.Size) -> Tensor:
        """The sum of the heads' logits, each resized to the images, through a sigmoid."""
        logits = [head(maps) for head, maps in zip(self.map_heads, features)]
        return torch.sigmoid(sum(F.interpolate(values, size=size, mode="bilinear", align_corners=False) for values in logits))

    @full_precision
    def losses(
        self,
        encrypted: Tensor,
        manipulated: Tensor,
        truth: Tensor,
        weights: LossWeights,
        real: Tensor | None = None,
        features: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """J_L of Eq. 8 for the branch's map, and the cross-entropy of Eq. 10 at every location and depth; gradients reach the heads alone.

        Args:
            encrypted, manipulated, truth: as for `malp_disc.malp.MaLP.losses`.
            real: images (N, 3, H', W') that count as not manipulated in Eq. 10 instead of `encrypted`, for a generator whose results belong to another domain than its
                inputs.
            features: the backbone's feature maps of `manipulated`, where they are known (`BranchOutput.features`).

        Returns:
            J_L and J_C, two scalars.
        """
        count = len(encrypted)
        if not features:
            out = self(torch.cat([encrypted.detach(), manipulated.detach()]))
        else:
            own = self.backbone(encrypted.detach().float(), least_side=self.least_side)
            out = self._answers([torch.cat(pair) for pair in zip(own, features, strict=True)], encrypted.shape[2:])
        localization = localization_loss_encrypted(out.map[:count], truth, weights) + localization_loss_manipulated(out.map[count:], truth, weights)
        untouched = [values[:count] for values in out.logits] if real is None else self(real.detach(), map=False).logits
        entropies = [_entropy(logits, weights.label_smoothing) for logits in untouched], [_entropy(values[count:], 1.0) for values in out.logits]
        return localization, weights.classification * torch.stack([torch.stack(kind).mean() for kind in entropies]).sum()


def _entropy(logits: Tensor, label: float) -> Tensor:
    """The mean cross-entropy of logits with one label in [0, 1]. A scalar."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _head(channels: int) -> nn.Sequential:
    """Features (B, channels, h, w) -> logits (B, 1, h, w)."""
    return nn.Sequential(nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1))


def _without_backbone(module: nn.Module, state: dict[str, Any], prefix: str, _: Mapping[str, Any]) -> None:
    for key in [key for key in state if key.startswith(prefix + _OUTSIDE)]:
        del state[key]


def _backbone_not_missing(module: nn.Module, incompatible: Any) -> None:
    """The keys are those of the whole module that is loaded, so another part's "backbone" has to stay missing."""
    own = {_OUTSIDE + name for name in module.backbone.state_dict()}
    outside = tuple("." + name for name in own)
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if key not in own and not key.endswith(outside)]
