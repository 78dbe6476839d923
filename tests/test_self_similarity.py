"""The self-similarity loss: it sees what moved, hardly sees another colour, and leaves everything but the generator alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from malp_disc.backbones import create_backbone
from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.teachers import teachers_of
from malp_disc.self_similarity import SelfSimilarity, WithContentLoss
from tests.tiny import sample_images


@pytest.fixture(scope="module")
def similarity() -> SelfSimilarity:
    return SelfSimilarity(create_backbone())


def test_it_is_zero_for_the_same_image_and_larger_for_moved_content_than_for_other_colours(similarity):
    faces = ProceduralFaces(4, image_size=96)
    images = torch.stack([faces[i][0] for i in range(4)])
    assert similarity(images, images) == 0
    for recoloured in (0.6 * images + 0.1, images[:, [2, 0, 1]]):
        assert 0 < 3 * similarity(recoloured, images) < similarity(images.roll(8, 3), images) < 2


def test_it_is_the_mean_over_the_images_and_pools_large_ones(similarity):
    images, fake = sample_images(3, 80, 72), sample_images(3, 80, 72, seed=1)
    parts = [similarity(one, other) for one, other in zip(fake.split(1), images.split(1))]
    torch.testing.assert_close(similarity(fake, images), torch.stack(parts).mean())
    assert similarity._cosines(sample_images(1, 320, 80)).shape == (1, 32 * 10, 32 * 10)
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 3, 80, 72\) and \(2, 3, 80, 72\)"):
        similarity(fake, images[:2])


def test_gradients_reach_the_generators_images_alone_and_nothing_is_saved(similarity):
    images, fake = sample_images(2, 64, 64).requires_grad_(True), sample_images(2, 64, 64, seed=1).requires_grad_(True)
    similarity.train().requires_grad_(True)
    similarity(fake, images).backward()
    assert fake.grad.abs().sum() > 0 and images.grad is None
    assert not any(parameter.requires_grad for parameter in similarity.parameters())
    assert not any(part.training for part in similarity.backbone.modules())
    assert similarity.state_dict() == {}
    assert teachers_of(similarity)[0].backbone == "tf_efficientnet_lite0"


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)

    def generator_loss(self, fake, batch, edit):
        return {"adversarial": edit(fake).mean()}

    def forward(self, fake, batch):
        return {"real": self.backbone(fake[:, 0, 0, :1]).mean()}


def test_it_joins_a_generators_own_losses_or_stands_alone(similarity):
    images, fake = sample_images(2, 64, 64), sample_images(2, 64, 64, seed=1)
    batch = SimpleNamespace(images=images)
    both = WithContentLoss(Own(), similarity, weight=3.0)
    terms = both.generator_loss(fake, batch, lambda shown: 2 * shown)
    torch.testing.assert_close(terms["adversarial"], (2 * fake).mean())
    torch.testing.assert_close(terms["self_similarity"], 3 * similarity(fake, images))
    assert list(both(fake, batch)) == ["real"]
    assert set(both.state_dict()) == {"objective.backbone.weight", "objective.backbone.bias"}
    both.load_state_dict(both.state_dict())
    with pytest.raises(RuntimeError, match="Missing key.*objective.backbone.bias"):
        both.load_state_dict({"objective.backbone.weight": torch.zeros(1, 1)})
    alone = WithContentLoss(None, similarity, weight=3.0)
    assert set(alone.generator_loss(fake, batch, None)) == {"self_similarity"}
    assert not any(parameter.requires_grad for parameter in alone.parameters())
