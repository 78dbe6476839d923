"""The rows of the ablation table: what each removes or changes, named as in the paper's Tables 8 and 9 and Figure 6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc import MaLP
from malp_disc.localization import GlobalTransformer, ShallowCNN


@dataclass(frozen=True)
class Row:
    """One variant of MaLP, as a difference from the defaults."""

    text: str
    group: str
    malp: Mapping[str, Any] = field(default_factory=dict)  # of MaLPConfig
    weights: Mapping[str, float] = field(default_factory=dict)  # of LossWeights
    training: Mapping[str, Any] = field(default_factory=dict)  # of MaLPOptions
    surgery: Callable[[MaLP], None] | None = None  # a change of the network for which there is no flag


class GlobalResNet50(nn.Module):
    """ResNet-50 in place of the transformer (Table 8): (B, 3, H, W) -> map (B, 1, H, W), sides divisible by 32.

    Group norm as in E_C, and a linear layer from each of the last features to its 32×32 pixels, as E_T has for 8×8. Not pretrained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet50_gn", pretrained=False, num_classes=0, global_pool="")
        self.to_pixels = nn.Conv2d(self.backbone.num_features, 32**2, 1)
        nn.init.constant_(self.to_pixels.bias, -2.0)

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(F.pixel_shuffle(self.to_pixels(self.backbone(images)), 32))


class TransformerOnly(nn.Module):
    """E_T predicts the map, also in inference; a shallow CNN only recovers the template. Replaces `MaLP.cnn`."""

    def __init__(self, transformer: GlobalTransformer, cnn: ShallowCNN) -> None:
        super().__init__()
        self.transformer = transformer
        self.trunk, self.recovery = cnn.trunk, cnn.recovery

    def forward(self, images: Tensor, *, recovery: bool = True) -> tuple[Tensor, Tensor | None]:
        return self.transformer(images), self.recovery(self.trunk(images)) if recovery else None


class AuthorsHead(nn.Sequential):
    """The authors' output layers of E_C: convolution, batch norm of one channel, ReLU, clamp at 1, as logits for the sigmoid that follows."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, 1, 3, padding=1), nn.BatchNorm2d(1), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return torch.logit(super().forward(features).clamp(1e-6, 1 - 1e-6))


def with_resnet50(malp: MaLP) -> None:
    malp.branch = GlobalResNet50()


def with_transformer_only(malp: MaLP) -> None:
    malp.cnn, malp.branch = TransformerOnly(malp.branch, malp.cnn), None


def with_authors_head(malp: MaLP) -> None:
    malp.cnn.map_head = AuthorsHead(malp.config.width)


_NO_LOCALIZATION = {"encrypted_cosine": 0.0, "manipulated_cosine": 0.0, "manipulated_ssim": 0.0, "map_correlation": 0.0}
_NO_TEMPLATE_LOSS = {"magnitude": 0.0, "orthogonality": 0.0, "high_frequency": 0.0}
_NO_RECOVERY = {"recover_encrypted": 0.0, "recover_manipulated": 0.0}

ROWS: dict[str, Row] = {
    "default": Row("MaLP, defaults", "Proactive or passive"),
    "passive": Row("passive: no template, Eq. 2", "Proactive or passive", {"strength": 0.0}),
    "fixed-template": Row("fixed template", "Proactive or passive", training={"malp_template_learning_rate": 0.0}),
    "gradient-map": Row("template also learns from the map of G(T(I))", "Through the generator", training={"malp_generator_gradient": "map"}),
    "gradient-truth": Row("and from M_GT (Eq. 4, 5)", "Through the generator", training={"malp_generator_gradient": "truth"}),
    "gradient-truth-free": Row("and from M_GT, without J_R", "Through the generator", weights=_NO_RECOVERY, training={"malp_generator_gradient": "truth"}),
    "cnn-only": Row("CNN only", "Branches (Table 8)", {"branch": None}),
    "transformer-only": Row("transformer only", "Branches (Table 8)", surgery=with_transformer_only),
    "cnn-resnet50": Row("CNN + ResNet-50", "Branches (Table 8)", surgery=with_resnet50),
    "without-j-c": Row("without J_C", "Constraints (Table 9)", weights={"classification": 0.0}),
    "without-j-t": Row("without J_T", "Constraints (Table 9)", weights=_NO_TEMPLATE_LOSS),
    "without-j-l": Row("without J_L: squared errors only", "Constraints (Table 9)", weights=_NO_LOCALIZATION),
    "without-j-r": Row("without J_R", "Constraints (Table 9)", weights=_NO_RECOVERY),
    "without-correlation": Row("without our Pearson term", "Losses, heads, rates", weights={"map_correlation": 0.0}),
    "paper-losses": Row("Eq. 8 alone: no Pearson, no squared error", "Losses, heads, rates", weights={"map_correlation": 0.0, "map_error": 0.0}),
    "without-delay": Row("templates learn from the first step", "Losses, heads, rates", training={"malp_template_delay": 0.0}),
    "authors-head": Row("authors' head: batch norm and ReLU", "Losses, heads, rates", surgery=with_authors_head),
    "authors-rates": Row("authors' rates: 1e-5, templates 1e-6", "Losses, heads, rates", training={"malp_learning_rate": 1e-5, "malp_template_learning_rate": 1e-6}),
    "set-3": Row("3 templates", "Set size (Figure 6 a)", {"set_size": 3}),
    "set-5": Row("5 templates", "Set size (Figure 6 a)", {"set_size": 5}),
    "set-10": Row("10 templates", "Set size (Figure 6 a)", {"set_size": 10}),
    **{f"strength-{p}": Row(f"m = {p} %", "Strength (Figure 6 b)", {"strength": p / 100}, training={"malp_least_psnr": 0.0}) for p in (10, 20, 50, 100)},
}
