"""What a MaLP says where no template is: one that looks, one that says the same of everything, one that has it the wrong way round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from malp_disc.data.faces import draw_faces
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.localize import score_unprotected
from malp_disc.fakeness import fakeness_map
from malp_disc.malp import MaLPOutput


class Localizer(nn.Module):
    """Knows the real images: its map is M_GT of what it is shown against them, its logit `sign` times the map's mean."""

    def __init__(self, images: torch.Tensor, sign: float) -> None:
        super().__init__()
        self.images, self.sign, self.shown = images, sign, 0

    def forward(self, shown: torch.Tensor) -> MaLPOutput:
        rows = torch.arange(self.shown, self.shown + len(shown)) % len(self.images)
        self.shown += len(shown)
        maps = fakeness_map(self.images[rows], shown)
        logit = 30 + self.sign * maps.mean((1, 2, 3))  # as large as those of a MaLP that is sure, where sigmoids tie
        return MaLPOutput(maps, torch.zeros_like(maps), logit, torch.zeros(len(maps)), logit.sigmoid(), None)


@pytest.fixture
def inputs() -> EvalSet:
    images, labels = draw_faces(range(40), 32)[:2]
    labels = labels[:, :2].float()
    return EvalSet(images, labels, labels, torch.zeros(40, dtype=torch.long), ("a", "b"))


def half_darker(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    changed = images.clone()
    changed[..., 16:] -= 0.3
    return changed.clamp(-1, 1)


@pytest.mark.parametrize(("sign", "auc"), [(1.0, 1.0), (0.0, 0.5), (-1.0, 0.0)])
def test_the_classifier_alone_is_ranked(inputs, sign, auc):
    found = score_unprotected(half_darker, inputs, Localizer(inputs.images, sign))
    assert found["auc"] == pytest.approx(auc)
    assert found["pearson"] > 0.95, "8 bits apart it is the truth"
    assert found["mean_real"] < 0.01 < found["mean_manipulated"]
