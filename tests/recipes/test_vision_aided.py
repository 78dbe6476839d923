"""The discriminator on frozen features: it tells noise from faces after a few steps, only its heads learn, and it stands beside any own losses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.data.faces import draw_faces
from malp_disc.data.sampling import StepRandom
from malp_disc.fakeness import fakeness_map
from recipes.stepping import Batch
from recipes.vision_aided import AidedLosses, FeatureDiscriminator


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights: the layout is what matters here."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("squeezenet") / "weights.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Half the side is a quarter of the time."""
    monkeypatch.setattr("recipes.vision_aided._SIDE", 64)


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


def test_it_learns_to_tell_noise_from_faces_by_its_heads_alone(weights, batch):
    torch.manual_seed(0)
    losses = AidedLosses(None, FeatureDiscriminator(weights), weight=2.0).train()
    frozen = copy.deepcopy(losses.discriminator.network.state_dict())
    optimizer = torch.optim.Adam([p for p in losses.parameters() if p.requires_grad], lr=1e-2)
    noise = torch.rand(batch.images.shape, generator=torch.manual_seed(2)) * 2 - 1
    curve = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = losses(noise, batch)["aided"]
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[-1] < 0.7 * curve[0]
    assert all(torch.equal(value, frozen[name]) for name, value in losses.discriminator.network.state_dict().items())
    with torch.no_grad():
        told = [float(losses.generator_loss(images, batch, None)["aided"]) for images in (batch.images, noise)]
    assert told[0] < 0.8 * told[1], "G is told that noise looks worse than faces"


def test_g_is_told_by_a_gradient_and_with_the_weight_asked_for(weights, batch):
    torch.manual_seed(0)
    discriminator = FeatureDiscriminator(weights)
    fake = batch.images.clone().requires_grad_(True)
    one, three = (AidedLosses(None, discriminator, weight=weight).generator_loss(fake, batch, None)["aided"] for weight in (1.0, 3.0))
    assert three.item() == pytest.approx(3 * one.item())
    one.backward()
    assert fake.grad.abs().mean(dim=(1, 2, 3)).min() > 0


def test_own_losses_stay_and_their_parameters_learn_along(weights, batch):
    losses = AidedLosses(Own(), FeatureDiscriminator(weights), weight=1.0)
    fake = batch.images.roll(1, 0)
    assert set(losses(fake, batch)) == set(losses.generator_loss(fake, batch, None)) == {"own", "aided"}
    sum(losses(fake, batch).values()).backward()
    assert losses.own.weight.grad is not None


def test_own_losses_without_parameters_are_not_asked_to_learn(weights, batch):
    class Content(nn.Module):
        def generator_loss(self, fake, batch, edit):
            return {"content": (fake - batch.images).abs().mean()}

    losses = AidedLosses(Content(), FeatureDiscriminator(weights), weight=1.0)
    assert set(losses(batch.images, batch)) == {"aided"}


def test_asked_for_a_map_it_learns_where_a_picture_was_changed(weights, batch):
    torch.manual_seed(0)
    losses = AidedLosses(None, FeatureDiscriminator(weights), 1.0, "map").train()
    fake = batch.images.clone()
    fake[..., 16:] = torch.rand(fake[..., 16:].shape, generator=torch.manual_seed(2)) * 2 - 1  # the right half is noise
    optimizer = torch.optim.Adam([p for p in losses.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        losses(fake, batch)["aided"].backward()
        optimizer.step()
    with torch.no_grad():
        finest = losses.discriminator(fake)[0].sigmoid()
        columns = finest.shape[3]
        left, right = finest[..., : columns // 2 - 1].mean().item(), finest[..., columns // 2 + 1 :].mean().item()
        truth = fakeness_map(batch.images, fake)[..., 16:].mean().item()
        assert left < right / 3 and right == pytest.approx(truth, rel=0.4), "as bright as the change was"
        told = [losses.generator_loss(images, batch, None)["aided"].item() for images in (batch.images, fake)]
        assert told[0] < told[1]


def test_pictures_of_the_domain_are_what_is_real_where_there_are_some(weights, batch):
    torch.manual_seed(0)
    losses = AidedLosses(None, FeatureDiscriminator(weights), weight=1.0)
    fake = batch.images.roll(1, 0)
    plain = losses(fake, batch)["aided"].item()
    batch.reference = -batch.images
    assert losses(fake, batch)["aided"].item() != pytest.approx(plain, rel=1e-4)


def test_the_augmentation_of_the_run_is_what_it_sees(weights, batch):
    pytest.importorskip("kornia")
    torch.manual_seed(0)
    discriminator = FeatureDiscriminator(weights)
    plain, moved = (
        AidedLosses(None, discriminator, 1.0, augmentation=kinds).generator_loss(batch.images, batch, None) for kinds in ((), ("translation",))
    )
    assert plain["aided"].item() != pytest.approx(moved["aided"].item(), rel=1e-5)
