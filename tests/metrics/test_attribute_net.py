"""The attribute network: shapes, what it saves, and whether the two that ship can do their job."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from malp_disc.data import ProceduralFaces
from malp_disc.data.faces import ATTRIBUTES, DEFAULT_SELECTION
from malp_disc.metrics.attribute_net import AttributeNet, shipped_weights
from malp_disc.serialization.state_dicts import fingerprint, save_tensors

SHIPPED = ("faces_features", "faces_classifier")


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    faces = ProceduralFaces(150, selected_attributes=ATTRIBUTES, first_index=15_000_000)
    images, labels = zip(*faces.__getitems__(range(150)))
    return torch.stack(images), torch.stack(labels)


def small_net() -> AttributeNet:
    torch.manual_seed(0)
    return AttributeNet(("Smiling", "Eyeglasses"), width=4).eval()


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (48, 80), (30, 30)])
def test_any_image_size_goes_in(size):
    net, images = small_net(), torch.rand(3, 3, *size) * 2 - 1
    assert net.features(images).shape == (3, 16)
    assert net(images).shape == (3, 2)


def test_larger_images_are_antialiased():
    """Columns +, −, −, + at 256 average to 0 at 64. Plain bilinear interpolation would look at the middle two only: −1 throughout."""
    columns = torch.tensor([1.0, -1, -1, 1]).repeat(64).expand(1, 3, 256, 256)
    net = small_net()
    net.body = Square()
    assert net.features(columns).max() < 0.05


class Square(torch.nn.Module):
    """In place of the convolutions: features become the mean squares of the resized image."""

    def forward(self, images):
        return images**2


def test_every_parameter_gets_a_gradient():
    net = small_net().train()
    net(torch.rand(4, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_saving_and_loading_gives_the_same_outputs(tmp_path):
    net, images = small_net(), torch.rand(2, 3, 64, 64)
    net.load_state_dict({key: value.half().float() if value.is_floating_point() else value for key, value in net.state_dict().items()})
    net.save(tmp_path / "net.safetensors")
    loaded = AttributeNet.load(tmp_path / "net.safetensors")
    assert loaded.attribute_names == ("Smiling", "Eyeglasses") and loaded.width == 4
    assert torch.equal(loaded(images), net(images))
    assert not loaded.training and all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())


def test_whitened_features_have_variance_one_and_the_logits_stay(tmp_path):
    """Cov(W(f − μ)) = 1 on the images it was fitted on, and head∘W⁻¹∘W = head."""
    net, images = small_net(), torch.rand(120, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = images * torch.linspace(0.1, 1, 120).view(-1, 1, 1, 1)
    with torch.no_grad():
        white = net.whiten(net.pooled(images))
        white.save(tmp_path / "w.safetensors")
        features = white.features(images).double()
        assert torch.allclose(features.mean(dim=0), torch.zeros(16, dtype=torch.float64), atol=1e-2)
        # Directions below a millionth of the largest variance are left small, so that rounding isn't blown up.
        assert torch.allclose(features.T.cov(), torch.diag(features.var(dim=0)), atol=0.05)
        assert features.var(dim=0).max() == pytest.approx(1, abs=0.02)
        assert torch.allclose(white(images), net(images), atol=1e-4)
        assert torch.allclose(AttributeNet.load(tmp_path / "w.safetensors").features(images), white.features(images), atol=0.1)


def test_whitening_needs_enough_images():
    with pytest.raises(ValueError, match="at least 64 images to whiten 16 features, got 10"):
        small_net().whiten(torch.zeros(10, 16))


def test_another_networks_file_is_refused(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="not an AttributeNet; train one with recipes/train_attribute_classifier.py"):
        AttributeNet.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("names", [(), ("Smiling", "Smiling")])
def test_names_must_be_there_and_distinct(names):
    with pytest.raises(ValueError, match="distinct attribute names"):
        AttributeNet(names)


def test_an_unknown_shipped_network_is_named():
    with pytest.raises(ValueError, match="no shipped network 'nose'; there are"):
        shipped_weights("nose")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_small(name):
    assert shipped_weights(name).stat().st_size <= 700_000


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_read_faces_they_never_saw(name, held_out):
    """At least 0.97 for each default attribute; 150 faces, so up to 4 wrong."""
    images, labels = held_out
    net = AttributeNet.load(shipped_weights(name))
    right = ((net(images) > 0) == (labels > 0.5)).double().mean(dim=0)
    accuracy = dict(zip(net.attribute_names, right.tolist()))
    assert net.attribute_names == ATTRIBUTES
    assert min(accuracy[attribute] for attribute in DEFAULT_SELECTION) >= 0.97, accuracy


def test_the_classifier_of_edits_is_not_fooled_by_blur_noise_or_size(held_out):
    images, labels = held_out
    net = AttributeNet.load(shipped_weights("faces_classifier"))
    columns = [ATTRIBUTES.index(name) for name in DEFAULT_SELECTION]
    blurred = F.interpolate(F.interpolate(images, 40, mode="bilinear", antialias=True), 64, mode="bilinear")
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    larger = F.interpolate(images, 128, mode="bilinear")
    for degraded in (blurred, noisy, larger):
        right = ((net(degraded) > 0) == (labels > 0.5)).double().mean(dim=0)[columns]
        assert right.min() >= 0.95


def test_classifier_and_features_are_two_networks():
    """A generator tuned with one of them in sight must not be scored by it."""
    features, classifier = (AttributeNet.load(shipped_weights(name)) for name in SHIPPED)
    assert features.width != classifier.width
    assert fingerprint(features.state_dict()) != fingerprint(classifier.state_dict())
