"""A feature discriminator beside any own losses, or none; with references, and behind an augmentation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc import FeatureDiscriminator
from malp_disc.data.faces import draw_faces
from malp_disc.data.sampling import StepRandom
from malp_disc.training.batches import Batch
from malp_disc.training.diff_augment import augment
from malp_disc.training.generator_losses import VisionAidedObjective


@pytest.fixture(scope="module")
def discriminator(tmp_path_factory) -> FeatureDiscriminator:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("squeezenet") / "weights.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), path)
    return FeatureDiscriminator(path, side=64)


@pytest.fixture
def batch() -> Batch:
    faces = draw_faces(range(6), 32)[0]
    labels = torch.zeros(6, 2)
    return Batch(faces, labels, labels, None, StepRandom(0, 0, batch_size=6), numbers=torch.rand(6, 5, generator=torch.manual_seed(1)))


class Own(nn.Module):
    """One weight, and a loss of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def generator_loss(self, fake, batch, edit):
        return {"own": fake.mean()}

    def forward(self, fake, batch):
        return {"own": self.weight * fake.mean()}


class Content(nn.Module):
    """Nothing to learn, and so no `forward`."""

    def generator_loss(self, fake, batch, edit):
        return {"content": (fake - batch.images).abs().mean()}


def test_own_losses_stay_and_their_parameters_learn_along(discriminator, batch):
    losses, fake = VisionAidedObjective(Own(), discriminator, 1.0), batch.images.roll(1, 0)
    assert set(losses(fake, batch)) == set(losses.generator_loss(fake, batch, None)) == {"own", "vision_aided"}
    sum(losses(fake, batch).values()).backward()
    assert losses.own.weight.grad is not None


def test_own_losses_without_parameters_are_not_asked_to_learn(discriminator, batch):
    losses = VisionAidedObjective(Content(), discriminator, 1.0)
    assert set(losses(batch.images, batch)) == {"vision_aided"}
    assert set(VisionAidedObjective(None, discriminator, 1.0).generator_loss(batch.images, batch, None)) == {"vision_aided"}


def test_g_is_told_with_the_weight_asked_for(discriminator, batch):
    told = VisionAidedObjective(None, discriminator, 3.0).generator_loss(batch.images, batch, None)["vision_aided"]
    torch.testing.assert_close(told, 3 * discriminator.generator_loss(batch.images))


def test_pictures_of_the_domain_are_what_is_real_where_there_are_some(discriminator, batch):
    losses, fake = VisionAidedObjective(None, discriminator, 1.0), batch.images.roll(1, 0)
    torch.testing.assert_close(losses(fake, batch)["vision_aided"], discriminator.discriminator_loss(batch.images, fake))
    batch.reference = -batch.images
    torch.testing.assert_close(losses(fake, batch)["vision_aided"], discriminator.discriminator_loss(batch.images, fake, batch.reference))


def test_all_of_a_picture_are_augmented_alike(discriminator, batch):
    pytest.importorskip("kornia")
    losses, fake = VisionAidedObjective(None, discriminator, 1.0, ("color", "translation")), batch.images.roll(1, 0)
    batch.reference = -batch.images
    seen = [augment(pictures, batch.numbers, ("color", "translation")) for pictures in (batch.images, fake, batch.reference)]
    assert (seen[0] - batch.images).abs().max() > 0.1
    torch.testing.assert_close(losses(fake, batch)["vision_aided"], discriminator.discriminator_loss(*seen))
