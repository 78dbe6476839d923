"""The losses to start from do what they say: content is a distance, and the adversary learns to tell and then to be told from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from generators.example_losses import PatchAdversary, identity, super_resolution, translation
from generators.stargan import stargan_discriminator
from generators.stargan_losses import StarGANObjective
from tests.tiny import Snapshot, sample_images


def batch(reference=None):
    return SimpleNamespace(images=sample_images(2), reference=reference)


def test_content_is_the_mean_difference_and_nothing_of_it_learns():
    losses = super_resolution()
    assert losses.generator_loss(sample_images(2), batch(), None)["content"] == 0
    assert losses.generator_loss(sample_images(2) + 0.1, batch(), None)["content"].item() == pytest.approx(1.0, rel=1e-4)
    assert list(losses.parameters()) == []


def test_identity_is_the_change_of_the_target_domains_images_and_reaches_the_generator():
    losses, real = identity(), sample_images(2, seed=1).requires_grad_(True)
    assert (
        losses.generator_loss(None, SimpleNamespace(reference=real, target=None), lambda images, desired, current: images)["identity"] == 0
    )
    changed = losses.generator_loss(None, SimpleNamespace(reference=real, target=None), lambda images, desired, current: 0.9 * images)[
        "identity"
    ]
    assert changed.item() == pytest.approx(0.5 * real.abs().mean().item(), rel=1e-4) and changed.requires_grad
    with pytest.raises(ValueError, match="--reference-root"):
        losses.generator_loss(None, batch(), None)


def test_the_adversary_learns_to_tell_references_from_fakes_and_says_so():
    torch.manual_seed(0)
    adversary, real, fake = PatchAdversary(width=4), sample_images(2, seed=1), sample_images(2, seed=2) * 0.3
    optimizer = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    values = []
    for _ in range(12):
        snapshot = Snapshot(adversary)
        terms = adversary(fake, batch(reference=real))
        values.append(sum(terms.values()).item())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        assert snapshot.moved() == snapshot.names
    assert values[-1] < 0.6 * values[0]
    of_fake, of_real = (adversary.generator_loss(images, batch(), None)["adversarial"].item() for images in (fake, real))
    assert of_fake > 1.5 * of_real


def test_the_batchs_own_images_stand_in_for_references():
    adversary = translation().eval()
    with torch.no_grad():
        assert adversary(sample_images(2), batch())["real"] == adversary(sample_images(2), batch(reference=sample_images(2)))["real"]


@pytest.mark.parametrize("kind", ["stargan", "patch"])
def test_the_generators_loss_leaves_no_gradient_in_a_discriminator_that_learns(kind):
    own = StarGANObjective(stargan_discriminator(c_dim=2, image_size=16, conv_dim=4, repeat_num=2)) if kind == "stargan" else translation()
    images = torch.rand(2, 3, 16, 16) * 2 - 1 if kind == "stargan" else torch.rand(2, 3, 64, 64) * 2 - 1
    fake, target = images.clone().requires_grad_(True), torch.ones(2, 2)
    batch = SimpleNamespace(images=images, labels=target, target=target, reference=None)
    sum(own.generator_loss(fake, batch, lambda images, desired, current: images).values()).backward()
    assert fake.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in own.parameters())
