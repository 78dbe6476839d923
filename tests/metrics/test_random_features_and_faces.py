"""The untrained extractor and the face embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.metrics.face_embedding import MobileFaceNet, identity_similarity
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.random_features import RandomExtractor
from tests.tiny import sample_images


def test_the_untrained_extractor_is_the_same_every_time_whatever_was_drawn_before():
    torch.manual_seed(5)
    first = RandomExtractor()
    torch.rand(3)
    second = RandomExtractor()
    images = sample_images(4)
    assert torch.equal(first(images), second(images))
    assert first.name == second.name and "sha" not in first.label
    assert first(images).shape == (4, first.dims) == (4, 96)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_fitting_whitens_the_reference_and_whatever_comes_later_alike():
    extractor, images = RandomExtractor(), torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whitened = extractor.fit(extractor(images).numpy())
    assert np.cov(whitened.T) == pytest.approx(np.eye(96), abs=0.02)
    assert extractor(images[:5]).numpy() == pytest.approx(whitened[:5], abs=1e-2)
    fewer = RandomExtractor()
    assert np.array_equal(fewer.fit(whitened[:300]), whitened[:300]), "too few for a covariance: nothing is whitened"
    assert fewer.name == RandomExtractor().name and torch.equal(fewer(images[:2]), RandomExtractor()(images[:2]))
    assert extractor.name.endswith("features), weights " + RandomExtractor().name[-8:] + ", whitened on the reference")


def test_the_untrained_extractor_sees_blur():
    extractor, images = RandomExtractor(), torch.rand(500, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = extractor(images).numpy()
    blurred = extractor(torch.nn.functional.avg_pool2d(images, 3, 1, 1)[250:]).numpy()
    assert frechet_distance(features[:250], blurred) > 10 * frechet_distance(features[:250], features[250:])


@pytest.mark.parametrize("shape", [(112, 96), (64, 64), (40, 90)])
def test_an_embedding_of_any_size_of_face_and_a_face_is_like_itself(shape):
    torch.manual_seed(0)
    net = MobileFaceNet().eval()
    images = sample_images(3, *shape)
    with torch.no_grad():
        assert net(images).shape == (3, 128)
    assert identity_similarity(net, images, images, batch=2) == pytest.approx(1, abs=1e-6)


def test_a_checkpoint_nested_as_published_loads_and_another_networks_does_not(tmp_path):
    torch.manual_seed(0)
    net = MobileFaceNet().eval()
    torch.save({"epoch": 68, "net_state_dict": net.state_dict()}, tmp_path / "068.ckpt")
    loaded = MobileFaceNet.load(tmp_path / "068.ckpt")
    images = sample_images(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), net(images))
    assert loaded.name.startswith("MobileFaceNet, weights sha256 ")
    torch.save({"net_state_dict": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of this MobileFaceNet"):
        MobileFaceNet.load(tmp_path / "other.ckpt")


def test_real_weights_know_a_person_again_and_strangers_apart(shared):
    net = MobileFaceNet.load(shared("weights/mobilefacenet/068.ckpt"))
    folder = shared("data/celeba_crop144")
    paths = sorted(path for path in (folder / "test").iterdir() if path.suffix in (".jpg", ".png"))[:12]
    faces = (
        torch.stack([torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths]).float() / 127.5 - 1
    )
    mirrored, strangers = faces.flip(3), faces.roll(1, 0)
    assert identity_similarity(net, faces, mirrored) > 0.8
    assert identity_similarity(net, faces, strangers) < 0.5
