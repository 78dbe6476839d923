"""The terms of the generator's part of Eq. 12, and the scale that makes their weights comparable between generators.

    L_G = Σ_k w_k v_k / s_k,   k in (map, classifier, template, branch_map, realness)

v_k is the plain value of a term, w_k its weight, and s_k the value that it had at the first step (1 with ``relative=False``, and always for realness, which is
a GAN's usual loss and needs no other scale). The functions here are pure: the scale itself is a buffer of `MaLPDiscriminator`, so that it is saved with the
weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.detection import template_similarity
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.feature_branch import FeatureBranch
from malp_disc.malp import MaLP

TERMS = ("map", "classifier", "template", "branch_map", "realness")
CNN_TERMS = TERMS[:3]
"""Those that E_C, E_E and C answer; the others are the second branch's."""
NEEDS_BRANCH = "need a MaLP with a pretrained second branch (malp_disc.malp.with_pretrained_branch adds one)"
_NEGLIGIBLE = 1e-6  # a first value that is no larger doesn't fix the scale


@dataclass
class GeneratorLosses:
    """The generator's part of Eq. 12. `total` is what to add to the generator's own loss; the others are the plain terms v_k, for curves.

    For `malp_disc.discriminator.MaLPDiscriminator.discriminator_loss` on the same images: `features`, a pretrained second branch's feature maps; and `known_map`, E_C's
    map with a graph to its weights, where it was asked for.
    """

    total: Tensor
    map: Tensor
    classifier: Tensor
    template: Tensor
    branch_map: Tensor
    realness: Tensor
    features: tuple[Tensor, ...] = ()
    known_map: Tensor | None = None


def term_weights(malp: MaLP, weights: Mapping[str, float | None]) -> dict[str, float]:
    """The weights w_k by term, in the order of `TERMS`. A map or realness of None is 1 or 0: with a pretrained second branch realness is asked, otherwise E_C's map.

    Raises:
        ValueError: a weight that is negative or not finite, none above 0, or a term that this MaLP doesn't have.
    """
    pretrained = isinstance(malp.branch, FeatureBranch)
    defaults = {"map": float(not pretrained), "realness": float(pretrained)}
    found = {name: defaults[name] if weights[name] is None else weights[name] for name in TERMS}
    if not all(0 <= weight < math.inf for weight in found.values()) or not any(found.values()):  # written so that NaN fails
        raise ValueError(f"expected finite weights >= 0, one of them > 0, got {', '.join(f'{name} {weight}' for name, weight in found.items())}")
    if not pretrained and (found["branch_map"] or found["realness"]):
        raise ValueError(f"branch_map_weight and realness_weight {NEEDS_BRANCH}")
    if malp.passive and found["template"]:
        raise ValueError("a passive MaLP (strength 0) has no template that could survive; set template_weight=0")
    return found


def called(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """``module(*inputs, **options)``, the plain counterpart of `malp_disc.runtime.freezing.called_on_copies`."""
    return module(*inputs, **options)


def cnn_values(
    malp: MaLP, fake: Tensor, index: Tensor, *, classifier: bool, template: bool, report_template: bool, call: Callable[..., Any], known_map: Tensor | None = None
) -> Tensor:
    """v of map, classifier and template, (3,).

    Args:
        classifier, template: whether these values get a graph. Without, a backward pass leaves out C, and the layers of E_E alone.
        report_template: whether its value is needed without a graph too. Where it isn't, or no image has a template, E_E isn't run, and the value is 0.
        call: `called`, or `malp_disc.runtime.freezing.called_on_copies`.
        known_map: E_C's map of `fake`, if it is known; E_E isn't run then.
    """
    malp.check_weights()
    recovery = known_map is None and (template or report_template) and bool((index != NO_TEMPLATE).any())
    maps, recovered = (known_map, None) if known_map is not None else call(malp.cnn, fake, recovery=recovery)
    values = image_terms(maps.clamp(0, 1), call(malp.classifier, maps if classifier else maps.detach())).mean(1)  # as `MaLP.forward`
    if not recovery:
        return torch.cat([values, torch.zeros_like(values[:1])])
    return torch.cat([values, template_term(recovered if template else recovered.detach(), malp.encryption.at(recovered.shape[2:]), index)[None]])


def branch_values(
    branch: FeatureBranch, fake: Tensor, labels: Tensor | None = None, *, map: bool, call: Callable[..., Any]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """v of branch_map and realness, (2,), branch_map 0 unless `map`; and the backbone's feature maps of `fake`, which is meant to have the attributes `labels`."""
    out = call(branch, fake, labels, map=map)
    fooling = torch.stack([F.softplus(logits).mean() for logits in out.logits]).mean()  # -log P(not manipulated)
    return torch.stack([out.map.square().mean() if map else torch.zeros_like(fooling), fooling]), out.features


def image_terms(maps: Tensor, logit: Tensor) -> Tensor:
    """Per image, the mean square ‖M̂‖² of the map and -log P(not manipulated) = softplus(logit) of the classifier, (2, B)."""
    return torch.stack([maps.square().mean((1, 2, 3)), F.softplus(logit)])


def template_term(recovered: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """1 - CS(S_i, S_R), the mean over all images of the batch; 0 for an image without a template. A scalar.

    Shapes: recovered (B, 1, H, W), templates (n, 1, H, W), index (B,). The mean counts images without a template too, so that batches add up.
    """
    has_template = (index != NO_TEMPLATE).float()
    own = template_similarity(recovered, templates).gather(1, index.clamp(min=0)[:, None])[:, 0]
    return ((1 - own) * has_template).mean()


def weighted_losses(values: Tensor, weights: Tensor, scale: Tensor | None, features: tuple[Tensor, ...] = ()) -> GeneratorLosses:
    """Σ_k w_k v_k / s_k and the plain terms; values, weights and scale (5,). A `scale` of None stands for 1."""
    scaled = values if scale is None else values / divisor(scale)
    return GeneratorLosses(total=(weights * scaled).sum(), **dict(zip(TERMS, values.detach())), features=features)


def undetermined(scale: Tensor, weights: Tensor) -> Tensor:
    """The terms that count (w_k > 0) and have no scale yet (s_k = 0), (5,) of bool; never realness."""
    return (scale == 0) & (weights > 0) & (torch.arange(len(TERMS), device=scale.device) != TERMS.index("realness"))


def completed_scale(scale: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """The scale with `values` in the places that are undetermined, (5,).

    A value that is practically 0 is left out: the template term has to wait for the first batch with a template.
    """
    return torch.where(undetermined(scale, weights) & (values > _NEGLIGIBLE), values, scale)


def divisor(scale: Tensor) -> Tensor:
    """The scale to divide by: 1 where it isn't determined yet."""
    return torch.where(scale == 0, 1.0, scale)
