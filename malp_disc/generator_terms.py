"""The terms of the generator's part of Eq. 12, and the scale that makes their weights comparable between generators.

    L_G = Σ_k w_k v_k / s_k,   k in (map, classifier, template, branch_map, realness)

v_k is the plain value of a term, w_k its weight, and s_k the value that it had at the first step (1 with ``relative=False``, and always for realness, which is
a GAN's usual loss and needs no other scale). The functions here are pure: the scale itself is a buffer of `MaLPDiscriminator`, so that it is saved with the
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.detection import template_similarity
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.fakeness import average_pool
from malp_disc.feature_branch import FeatureBranch
from malp_disc.malp import MaLP, MaLPOutput

TERMS = ("map", "classifier", "template", "branch_map", "realness")
CNN_TERMS = TERMS[:3]
"""Those that E_C, E_E and C answer; the others are the second branch's."""
_NEGLIGIBLE = 1e-6  # a first value that is no larger doesn't fix the scale


@dataclass
class GeneratorLosses:
    """The generator's part of Eq. 12. `total` is what to add to the generator's own loss; the others are the plain terms v_k, for curves."""

    total: Tensor
    map: Tensor
    classifier: Tensor
    template: Tensor
    branch_map: Tensor
    realness: Tensor


def called(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """``module(*inputs, **options)``, the plain counterpart of `malp_disc.freezing.called_on_copies`."""
    return module(*inputs, **options)


def cnn_values(malp: MaLP, fake: Tensor, index: Tensor, *, scales: Sequence[int], call: Callable[..., Any]) -> Tensor:
    """v of map, classifier and template, (3,), the mean over the scales.

    Args:
        call: `called`, or `malp_disc.freezing.called_on_copies`.
    """
    values = []
    for scale in scales:
        out = call(malp, average_pool(fake, scale))
        templates = malp.encryption.at(out.template.shape[2:])
        values.append(torch.stack([*image_terms(out).mean(1), template_term(out.template, templates, index)]))
    return torch.stack(values).mean(0)


def branch_values(branch: FeatureBranch, fake: Tensor, *, map: bool, call: Callable[..., Any]) -> Tensor:
    """v of branch_map and realness, (2,); branch_map is 0 unless `map`."""
    out = call(branch, fake, map=map)
    fooling = torch.stack([F.softplus(logits).mean() for logits in out.logits]).mean()  # -log P(not manipulated)
    return torch.stack([out.map.square().mean() if map else torch.zeros_like(fooling), fooling])


def image_terms(out: MaLPOutput) -> Tensor:
    """Per image, the mean square ‖M̂‖² of the map and -log P(not manipulated) = softplus(logit) of the classifier, (2, B)."""
    return torch.stack([out.map.square().mean((1, 2, 3)), F.softplus(out.logit)])


def template_term(recovered: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """1 - CS(S_i, S_R), the mean over all images of the batch; 0 for an image without a template. A scalar.

    Shapes: recovered (B, 1, H, W), templates (n, 1, H, W), index (B,). The mean counts images without a template too, so that batches add up.
    """
    has_template = (index != NO_TEMPLATE).float()
    own = template_similarity(recovered, templates).gather(1, index.clamp(min=0)[:, None])[:, 0]
    return ((1 - own) * has_template).mean()


def weighted_losses(values: Tensor, weights: Tensor, scale: Tensor | None) -> GeneratorLosses:
    """Σ_k w_k v_k / s_k and the plain terms; values, weights and scale (5,). A `scale` of None stands for 1."""
    scaled = values if scale is None else values / divisor(scale)
    return GeneratorLosses(total=(weights * scaled).sum(), **dict(zip(TERMS, values.detach())))


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
