"""AttGAN's and STGAN's losses by hand: WGAN-GP with attribute classification and reconstruction."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from generators.attgan_losses import AttGANObjective, AttGANWeights, mean_attribute_loss
from generators.stgan_losses import STGANObjective
from malp_disc.target_kind import target_for
from tests.generators.test_stargan_losses import Plane
from tests.tiny import sample_images

LABELS, TARGET = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])


def batch() -> SimpleNamespace:
    return SimpleNamespace(images=sample_images(2, 4, 4), labels=LABELS, target=TARGET, noise=SimpleNamespace(uniform=lambda: torch.tensor([0.5, 0.2])))


def test_the_attribute_loss_is_the_mean_over_images_and_attributes():
    """Logit 0 costs ln 2, for any number of attributes; StarGAN's sums over them."""
    for attributes in (1, 5):
        assert mean_attribute_loss(torch.zeros(3, attributes), torch.ones(3, attributes)).item() == pytest.approx(math.log(2))


def test_the_discriminators_terms_by_hand():
    """Eq. 11 with D(x) = 2 mean(x), whose gradient has the norm 2 / √48, and the logit ½ for each attribute; three of four real labels are 1."""
    fake, given = sample_images(2, 4, 4, seed=1), batch()
    terms = AttGANObjective(Plane(2.0, 0.5), AttGANWeights(cls_d=3.0, gp=5.0))(fake, given)
    assert terms["adversarial"].item() == pytest.approx(2 * (fake.mean() - given.images.mean()).item(), rel=1e-4)
    assert terms["classification"].item() == pytest.approx(3 * (3 * math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 4, rel=1e-5)
    assert terms["penalty"].item() == pytest.approx(5 * (2 / math.sqrt(48) - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize(("objective", "kind", "asked"), [(AttGANObjective, "labels", LABELS), (STGANObjective, "change", torch.zeros(2, 2))], ids=["AttGAN", "STGAN"])
def test_the_generators_terms_by_hand(objective, kind, asked):
    """Eq. 10: one of four desired labels is 1. The reconstruction asks AttGAN for the image's own labels and STGAN for no change."""
    requests: list[Tensor] = []

    def edit(images: Tensor, desired: Tensor, current: Tensor) -> Tensor:
        requests.append(target_for(kind, desired, current))
        return images + 0.25

    fake, losses = sample_images(2, 4, 4, seed=1).requires_grad_(True), objective(Plane(2.0, 0.5), AttGANWeights(rec=7.0, cls=3.0))
    terms = losses.generator_loss(fake, batch(), edit)
    assert terms["adversarial"].item() == pytest.approx(-2 * fake.mean().item(), rel=1e-4)
    assert terms["classification"].item() == pytest.approx(3 * (math.log1p(math.exp(-0.5)) + 3 * math.log1p(math.exp(0.5))) / 4, rel=1e-5)
    assert terms["reconstruction"].item() == pytest.approx(7 * 0.25, rel=1e-5)
    assert torch.equal(torch.cat(requests), asked)
    sum(terms.values()).backward()
    assert fake.grad.any() and all(parameter.grad is None and parameter.requires_grad for parameter in losses.parameters())
