"""The discriminator on frozen features: it learns what it is asked, by its heads alone, and tells G by a gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc import FeatureDiscriminator, fakeness_map
from malp_disc.data.faces import draw_faces


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights: the layout is what matters here."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("squeezenet") / "weights.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return draw_faces(range(6), 32)[0]


def half_noise(images: torch.Tensor) -> torch.Tensor:
    """The right half becomes noise."""
    fake = images.clone()
    fake[..., 16:] = torch.rand(fake[..., 16:].shape, generator=torch.manual_seed(2)) * 2 - 1
    return fake


def learned(weights, target: str, images: torch.Tensor, fake: torch.Tensor, *, steps: int) -> tuple[FeatureDiscriminator, list[float]]:
    torch.manual_seed(0)
    disc = FeatureDiscriminator(weights, target=target, side=64).train()
    optimizer = torch.optim.Adam([p for p in disc.parameters() if p.requires_grad], lr=1e-2)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = disc.discriminator_loss(images, fake)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return disc, curve


def test_asked_for_realness_it_tells_the_classes_apart_by_its_heads_alone(weights, faces):
    fake = torch.rand(faces.shape, generator=torch.manual_seed(3)) * 2 - 1
    frozen = copy.deepcopy(FeatureDiscriminator(weights).network.state_dict())
    disc, curve = learned(weights, "realness", faces, fake, steps=40)
    assert curve[-1] < 0.7 * curve[0]
    assert all(torch.equal(value, frozen[name]) for name, value in disc.network.state_dict().items())
    assert not disc.network.training, "whatever mode the heads are in"
    with torch.no_grad():
        assert disc.generator_loss(faces) < 0.8 * disc.generator_loss(fake)


def test_asked_for_a_map_it_learns_where_and_how_much(weights, faces):
    fake = half_noise(faces)
    disc, _ = learned(weights, "map", faces, fake, steps=60)
    with torch.no_grad():
        finest = disc(fake)[0].sigmoid()
        columns = finest.shape[3]
        left, right = finest[..., : columns // 2 - 1].mean().item(), finest[..., columns // 2 + 1 :].mean().item()
        assert left < right / 3 and right > fakeness_map(faces, fake)[..., 16:].mean().item() / 3
        assert disc.generator_loss(faces) < disc.generator_loss(fake)


def test_gradients_reach_every_picture_in_gs_step_and_none_in_its_own(weights, faces):
    torch.manual_seed(0)
    disc = FeatureDiscriminator(weights, side=64)
    fake = half_noise(faces).requires_grad_(True)
    disc.generator_loss(fake).backward()
    assert fake.grad.abs().mean(dim=(1, 2, 3)).min() > 0
    fake.grad = None
    disc.discriminator_loss(faces, fake).backward()
    assert fake.grad is None and disc.heads["12"][0].weight.grad.abs().max() > 0


def logits_after(disc: FeatureDiscriminator, images: torch.Tensor, fake: torch.Tensor, *, generator: str, steps: int = 5) -> torch.Tensor:
    """The finest map after training the heads beside a generator's loss, taken `generator` ("before" or "after") each update, or "never"."""
    optimizer = torch.optim.Adam(disc.parameter_groups(lr=1e-2))
    for _ in range(steps):
        fake = fake.detach().requires_grad_(True)
        if generator == "before":
            (200 * disc.generator_loss(fake)).backward()
        disc.discriminator_loss(images, fake).backward()
        optimizer.step()
        optimizer.zero_grad()
        if generator == "after":
            (200 * disc.generator_loss(fake)).backward()
    with torch.no_grad():
        return disc(fake.detach())[0]


def test_the_generators_loss_leaves_nothing_in_the_heads_whatever_the_order(weights, faces):
    fake, found = half_noise(faces), {}
    for generator in ("never", "before", "after"):
        torch.manual_seed(0)
        found[generator] = logits_after(FeatureDiscriminator(weights, side=64), faces, fake, generator=generator)
    assert torch.equal(found["before"], found["never"]) and torch.equal(found["after"], found["never"])
    with torch.no_grad():
        torch.manual_seed(0)
        assert not torch.equal(FeatureDiscriminator(weights, side=64)(fake)[0], found["never"]), "the heads do learn"
    disc = FeatureDiscriminator(weights, side=64)
    disc.generator_loss(fake.requires_grad_(True)).backward()
    assert all(p.grad is None for p in disc.parameters()) and all(p.requires_grad for p in disc.heads.parameters())


def test_a_parent_that_sets_everything_learning_leaves_the_backbone_as_it_is(weights, faces):
    disc = FeatureDiscriminator(weights, side=64)
    disc.requires_grad_(True)
    assert not any(p.requires_grad for p in disc.network.parameters())
    parent = nn.ModuleList([disc]).requires_grad_(True).train()
    disc.discriminator_loss(faces, half_noise(faces)).backward()
    assert all(p.grad is None for p in disc.network.parameters()) and not disc.network.training and parent.training
    assert all(p.grad is not None for p in disc.heads.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_computes_in_float32_whatever_it_is_turned_into(weights, faces, dtype):
    disc = FeatureDiscriminator(weights, side=64)
    expected = disc.generator_loss(faces)
    assert torch.equal(nn.ModuleList([disc]).to(dtype)[0].generator_loss(faces), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(disc.generator_loss(faces), expected)
    torch.testing.assert_close(disc.generator_loss(faces.to(dtype)), expected, rtol=0.05, atol=0)


def test_images_of_another_scale_shape_or_type_are_refused_everywhere(weights, faces):
    disc = FeatureDiscriminator(weights, side=64)
    bad = [(faces + 1) * 127.5, faces[:, :1], faces[0], faces.mul(100).to(torch.uint8), torch.full_like(faces, torch.nan)]
    for images in bad:
        for call in (disc.generator_loss, disc, lambda x: disc.discriminator_loss(faces, x), lambda x: disc.discriminator_loss(x, faces), lambda x: disc.discriminator_loss(faces, faces, x)):
            with pytest.raises(ValueError, match="expected"):
                call(images)
    with pytest.raises(ValueError, match="one shape"):
        disc.discriminator_loss(faces, faces[..., :16])


def test_other_real_pictures_and_the_two_questions_give_other_losses(weights, faces):
    fake = half_noise(faces)
    torch.manual_seed(0)
    disc = FeatureDiscriminator(weights, side=64)
    plain, other = disc.discriminator_loss(faces, fake), disc.discriminator_loss(faces, fake, real=-faces)
    disc.target = "realness"
    asked = disc.discriminator_loss(faces, fake)
    assert len({round(loss.item(), 5) for loss in (plain, other, asked)}) == 3


def test_what_it_is_made_of_has_to_be_there(weights, tmp_path):
    with pytest.raises(ValueError, match="target out of .*'realness'.*, got 'real'"):
        FeatureDiscriminator(weights, target="real")
    for side in (0, 16, "128"):
        with pytest.raises(ValueError, match="side of at least 32"):
            FeatureDiscriminator(weights, side=side)
    assert len(FeatureDiscriminator(weights, side=32)(torch.zeros(1, 3, 8, 8))) == 3
    with pytest.raises(FileNotFoundError):
        FeatureDiscriminator(tmp_path / "none.pth")
