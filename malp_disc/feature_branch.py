"""MaLP's second branch with a pretrained backbone in place of the paper's transformer.

The paper trains MaLP with two branches, a shallow CNN for local and a transformer for global features, both from scratch (section 3.2.2). A generator learns
only fine texture from such a detector (docs/results/real-faces.md). Here the second branch is a frozen backbone, pretrained on ImageNet, with small trained
heads on its feature maps at several depths, as in vision-aided GANs (Kumari et al., CVPR 2022) and projected GANs (Sauer et al., NeurIPS 2021). The heads
answer MaLP's two questions: how much was each location changed (M_GT, Eq. 8), and was the image manipulated (Eq. 10)? What a generator learns from it, and what
it doesn't, is measured in docs/results/faces-without-mask.md and docs/results/horse2zebra.md.

With `labels`, the realness heads are told the attributes of an image, and the second question becomes "is this a real image with these attributes?": a
projection discriminator (Miyato and Koyama, ICLR 2018) that also sees real images with wrong attributes as negatives (Reed et al., ICML 2016). A generator
that is asked the first form alone may weaken a requested attribute that is hard to draw (docs/results/faces.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.backbones import Backbone, leave_out_backbone
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import looks_at_values
from malp_disc.runtime.precision import full_precision

_WIDTH = 64
_START_BIAS = -2.0  # initial maps are about sigmoid(-2) = 0.12, as those of E_C


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
        labels: number of attributes that the realness heads are told of each image; 0 for none.
    """

    def __init__(self, backbone: Backbone, *, least_side: int = 64, labels: int = 0) -> None:
        super().__init__()
        self.backbone, self.least_side, self.labels = backbone, least_side, labels
        self.map_heads = nn.ModuleList([_head(channels) for channels in backbone.channels])
        self.realness_heads = nn.ModuleList([_head(channels) for channels in backbone.channels])
        for head in self.map_heads:
            nn.init.constant_(head[-1].bias, _START_BIAS / len(self.map_heads))
        self.label_weights = nn.ParameterList([torch.zeros(labels, _WIDTH) for _ in backbone.channels] if labels else [])
        leave_out_backbone(self)
        self.float()  # also under another torch.set_default_dtype

    @full_precision
    def forward(self, images: Tensor, labels: Tensor | None = None, *, map: bool = True) -> BranchOutput:
        """Map and logits of images (B, 3, H, W) in [-1, 1]; with ``map=False`` the logits alone.

        Args:
            labels: the attributes that the images are meant to have, (B, `labels`) in [0, 1]. Without them the logits are about the images alone.
        """
        features = self.backbone(images.float(), least_side=self.least_side)
        logits = self._logits(self._hidden(features), labels)
        return BranchOutput(self._map(features, images.shape[2:]) if map else None, logits, tuple(maps.detach() for maps in features))

    def check_labels(self, labels: Tensor | None, count: int, name: str = "labels") -> Tensor | None:
        """The attributes of `count` images, (count, `labels`); None for a branch that isn't told any.

        Raises:
            ValueError: none although the branch needs them, or another shape or range.
        """
        if not self.labels:
            return None
        if labels is None or tuple(labels.shape) != (count, self.labels):
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise ValueError(f"the second branch of this MaLP is conditioned on the attributes of every image: expected {name} of shape ({count}, {self.labels}), got {got}")
        if looks_at_values(labels):
            low, high = torch.stack(torch.aminmax(labels.detach())).tolist()
            if not (low >= 0 and high <= 1):
                raise ValueError(f"expected {name} in [0, 1], got values from {low:.3g} to {high:.3g}")
        return labels

    def _hidden(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The realness heads' last hidden layers, (B, 64, h, w) each."""
        return [head[:-1](maps) for head, maps in zip(self.realness_heads, features)]

    def _logits(self, hidden: Sequence[Tensor], labels: Tensor | None) -> tuple[Tensor, ...]:
        """The realness logits, and with labels, whose 0 and 1 count as -1 and 1, their projections onto the hidden layers."""
        logits = tuple(head[-1](values) for head, values in zip(self.realness_heads, hidden))
        if labels is None:
            return logits
        signs = 2 * labels.float() - 1
        return tuple(
            plain + torch.einsum("bc,bchw->bhw", signs @ weights, values)[:, None] for plain, weights, values in zip(logits, self.label_weights, hidden, strict=True)
        )

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
        labels: Tensor | None = None,
        target: Tensor | None = None,
        *,
        map: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """J_L of Eq. 8 for the branch's map, and the cross-entropy of Eq. 10 at every location and depth; gradients reach the heads alone.

        With labels, half of an image's "manipulated" in Eq. 10 is the one of `encrypted` with the attributes of `target`, where these are others than its own.

        Args:
            encrypted, manipulated, truth: as for `malp_disc.malp.MaLP.losses`.
            real: images (N, 3, H', W') that count as not manipulated in Eq. 10 instead of `encrypted`, for a generator whose results belong to another domain than its
                inputs.
            features: the backbone's feature maps of `manipulated`, where they are known (`BranchOutput.features`).
            labels, target: attributes of `encrypted`, and those that `manipulated` was edited to, (B, `labels`); for a branch that is told them.
            map: whether the map heads learn. Without, they aren't run, J_L is 0, and so is their gradient.

        Returns:
            J_L and J_C, two scalars.

        Raises:
            ValueError: labels or targets are missing or have another shape, or images of another domain, whose attributes aren't known.
        """
        count = len(encrypted)
        labels, target = self.check_labels(labels, count), self.check_labels(target, count, "target")
        if labels is not None and real is not None:
            raise ValueError("the second branch of this MaLP is conditioned on the attributes of every image, but those of `real` aren't known; use a branch without labels")
        if not features:
            features = self.backbone(torch.cat([encrypted.detach(), manipulated.detach()]).float(), least_side=self.least_side)
        else:
            own = self.backbone(encrypted.detach().float(), least_side=self.least_side)
            features = [torch.cat(pair) for pair in zip(own, features, strict=True)]
        if map:
            maps = self._map(features, encrypted.shape[2:])
            localization = localization_loss_encrypted(maps[:count], truth, weights) + localization_loss_manipulated(maps[count:], truth, weights)
        else:
            localization = 0.0 * sum(p.sum() for p in self.map_heads.parameters())  # DDP requires every parameter in the graph
        hidden = self._hidden(features)
        logits = self._logits(hidden, None if labels is None else torch.cat([labels, target]))
        untouched = [values[:count] for values in logits] if real is None else self(real.detach(), map=False).logits
        changed = _entropy([values[count:] for values in logits], 1.0)
        if labels is not None:
            wrong = _entropy(self._logits([values[:count] for values in hidden], target), 1.0)
            changed = torch.where((labels != target).any(1), (changed + wrong) / 2, changed)  # image by image, so that batches add up
        return localization, weights.classification * (_entropy(untouched, weights.label_smoothing).mean() + changed.mean())


def _entropy(logits: Sequence[Tensor], label: float) -> Tensor:
    """The cross-entropy of the logits (B, 1, h, w) of every depth with one label in [0, 1], its mean over locations and depths, (B,)."""
    each = [F.binary_cross_entropy_with_logits(values, torch.full_like(values, label), reduction="none").mean((1, 2, 3)) for values in logits]
    return torch.stack(each).mean(0)


def _head(channels: int) -> nn.Sequential:
    """Features (B, channels, h, w) -> logits (B, 1, h, w)."""
    return nn.Sequential(nn.Conv2d(channels, _WIDTH, 3, padding=1), nn.GroupNorm(8, _WIDTH), nn.LeakyReLU(0.2), nn.Conv2d(_WIDTH, 1, 1))
