"""SEAN: styles by region, noise, and the interface."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.label_maps import one_hot
from generators.sean import LABELS, SEANGenerator
from tests.generators.contract import GeneratorContract
from tests.generators.test_spade import quarters
from tests.tiny import sample_images

SMALL = {"label_nc": 4, "ngf": 2, "style_length": 16, "zencoder_ngf": 3}


@pytest.fixture
def generator() -> SEANGenerator:
    torch.manual_seed(0)
    generator = create_generator("sean", **SMALL).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_var"):
            torch.nn.init.constant_(parameter, 0.1)  # training would
    return generator


class TestContract(GeneratorContract):
    name = "sean"
    config = SMALL
    size = (64, 64)
    untouched = tuple(f"up_3.ace_{i}.blending" for i in "01s")

    @pytest.fixture(autouse=True)
    def narrow(self, monkeypatch):
        """As in test_spade.py."""
        monkeypatch.setattr("generators.spade_layers.HIDDEN", 8)

    def target(self, count: int) -> Tensor:
        return quarters(count)


def test_a_labels_style_is_the_mean_over_its_pixels_and_zero_where_there_are_none(generator):
    images = sample_images(1, 64, 64)
    labels = (torch.arange(64) >= 32).long().expand(1, 64, 64) * 2  # 0 left, 2 right
    features = generator.Zencoder.model(images)  # at half the size
    codes = generator.encode(images, labels)
    assert codes.shape == (1, 4, 16)
    assert torch.allclose(codes[:, 0], features[..., :16].mean(dim=(2, 3)), atol=1e-5)
    assert torch.allclose(codes[:, 2], features[..., 16:].mean(dim=(2, 3)), atol=1e-5)
    assert not codes[:, [1, 3]].any()


def test_the_style_of_a_region_that_isnt_there_doesnt_matter(generator):
    semantics, codes = one_hot(quarters(1) % 3, 4), torch.randn(1, 4, 16)
    other = codes.clone()
    with torch.no_grad():
        painted = generator(semantics, codes, silence, size=(64, 64))
        other[:, 3] += 5
        assert torch.equal(generator(semantics, other, silence, size=(64, 64)), painted)
        other[:, 2] += 5
        assert not torch.allclose(generator(semantics, other, silence, size=(64, 64)), painted, atol=1e-3)


def test_an_edit_of_shapes_takes_the_styles_from_where_the_image_has_them(generator):
    images, own, wanted = sample_images(1, 64, 64), quarters(1), quarters(1).flip(-1)
    seen: list[Tensor] = []
    generator.Zencoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    generator.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        edited = generator.manipulate(images, torch.stack([wanted, own], dim=1))
        assert torch.equal(seen[0].argmax(1), own) and torch.equal(seen[1].argmax(1), wanted[:, ::32, ::32])
        assert not torch.allclose(edited, generator.manipulate(images, wanted), atol=1e-3)
        assert not torch.allclose(edited, generator.manipulate(images, own), atol=1e-3)
        assert torch.equal(generator.manipulate(images, torch.stack([own, own], dim=1)), generator.manipulate(images, own))


def test_noise_is_drawn_per_image_and_call_in_forward_and_fixed_in_manipulate(generator):
    images, labels = sample_images(1, 64, 64).expand(2, -1, -1, -1), quarters(1).expand(2, -1, -1)
    semantics, codes = one_hot(labels, 4), generator.encode(images, labels)
    with torch.no_grad():
        first, second = generator(semantics, codes, size=(64, 64))
        assert not torch.allclose(first, second, atol=1e-3)
        first, second = generator.manipulate(images, labels)
        assert torch.allclose(first, second, atol=1e-4)
        assert not torch.allclose(generator(semantics, codes, silence, size=(64, 64))[0], first, atol=1e-3)


def test_the_order_in_which_noise_is_asked_for_is_the_authors(generator):
    asked: list[int] = []

    def draw(height: int, width: int) -> Tensor:
        asked.append(width)
        return silence(height, width)

    with torch.no_grad():
        generator(one_hot(quarters(1), 4), torch.zeros(1, 4, 16), draw)  # paints crop_size
    assert asked == [8, 8, 16, 16, 16, 16, *[side for side in (32, 64, 128, 256) for _ in range(3)]]


def test_the_published_network_has_the_published_size():
    with torch.device("meta"):
        generator = SEANGenerator()
    assert sum(parameter.numel() for parameter in generator.parameters()) == 266907367
    assert len(LABELS) == generator.label_nc == 19


def test_sizes_are_read_from_a_file_and_checked(tmp_path, generator):
    state = {key: value for key, value in generator.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "latest_net_G.pth")
    loaded = create_generator("sean", tmp_path / "latest_net_G.pth").eval()
    assert loaded.config == generator.config
    with torch.no_grad():
        images = sample_images(1, 64, 64)
        assert torch.equal(loaded.manipulate(images, quarters(1)), generator.manipulate(images, quarters(1)))
    with pytest.raises(ValueError, match="label_nc is 4 in the file and 19 was asked for"):
        create_generator("sean", tmp_path / "latest_net_G.pth", label_nc=19)


def test_spades_file_is_refused(tmp_path):
    spade = create_generator("spade", label_nc=4, contain_dontcare_label=False, no_instance=True, ngf=2)
    torch.save(spade.state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(ValueError, match="is not a checkpoint of SEANGenerator: expected fc.weight, head_0.ace_0.fc_mu0.weight"):
        create_generator("sean", tmp_path / "latest_net_G.pth")


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        ((64, 64), None, r"where in the image what is: give the labels of all pixels as the target, \(1, 64, 64\)"),
        ((64, 40), quarters(1), "sides divisible by 32, got 64x40"),
        ((64, 64), quarters(1, 32), r"of the images' size, .* got \(1, 32, 32\)"),
        ((64, 64), quarters(1) + 1, r"whole numbers in 0 … 3, got 1 … 4"),
    ],
)
def test_wrong_input_is_refused(generator, size, target, message):
    with pytest.raises(ValueError, match=message):
        generator.manipulate(sample_images(1, *size), target)


def silence(height: int, width: int) -> Tensor:
    return torch.zeros(1, 1, height, width)
