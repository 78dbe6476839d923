"""SPADE: label maps and borders of instances by hand, the published layouts, and the interface."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.label_maps import edges, one_hot
from generators.spade import CHANNELS, DATA_SETS, SPADEGenerator
from generators.spade_layers import SPADE, spectral_norm
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

SMALL = {"label_nc": 3, "contain_dontcare_label": True, "no_instance": False, "ngf": 2}


def small(**config) -> SPADEGenerator:
    torch.manual_seed(0)
    return create_generator("spade", **{**SMALL, **config}).eval()


def quarters(count: int, side: int = 64) -> Tensor:
    """A label in each quarter, and in each image others."""
    map_ = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(side // 2, 0).repeat_interleave(side // 2, 1)
    return torch.stack([(map_ + i) % 4 for i in range(count)])


class TestContract(GeneratorContract):
    name = "spade"
    config = SMALL
    size = (64, 64)
    trains_input = False
    uses_image = False

    @pytest.fixture(autouse=True)
    def narrow(self, monkeypatch):
        """The layers that predict γ and β have 128 channels in every network; the golden outputs and the published sizes are tested with those."""
        monkeypatch.setattr("generators.spade_layers.HIDDEN", 8)

    def target(self, count: int) -> Tensor:
        return quarters(count)


class TestContractMost(TestContract):
    config = {
        "label_nc": 4,
        "contain_dontcare_label": False,
        "no_instance": True,
        "ngf": 2,
        "num_upsampling_layers": "most",
        "norm_G": "spadebatch3x3",
    }
    size = (128, 128)

    def target(self, count: int) -> Tensor:
        return quarters(count, 128)[:, None].float()


def test_both_sides_of_a_border_are_marked():
    instances = torch.tensor([[7, 7, 7, 7], [7, 7, 9, 7], [7, 7, 7, 7]])[None, None]
    expected = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0]])[None, None]
    assert torch.equal(edges(instances), expected.float())
    assert not edges(torch.full((1, 1, 4, 5), 3)).any()


def test_a_label_map_becomes_ones_unknown_pixels_a_label_of_their_own_and_borders_the_last_channel():
    labels = torch.tensor([[0, 2], [255, 1]], dtype=torch.uint8).repeat(32, 32)[None]
    semantics = small().semantics(labels)
    assert semantics.shape == (1, 5, 64, 64) and semantics[:, :4].sum(1).eq(1).all()
    assert semantics[0, :4, :2, :2].argmax(0).tolist() == [[0, 2], [3, 1]]
    assert semantics[:, 4].all(), "every label differs from those beside it"
    whole = torch.stack([labels, torch.zeros_like(labels)], dim=1)
    assert not small().semantics(whole)[:, 4].any(), "one instance has no borders"
    assert torch.equal(small().semantics(torch.where(labels == 255, 3, labels)), semantics)


def test_without_labels_to_tell_it_apart_spade_is_batch_norm():
    layer = SPADE(4, 2).eval()
    x, semantics = torch.randn(1, 4, 8, 8), torch.zeros(1, 2, 16, 16)
    torch.nn.init.constant_(layer.mlp_shared[0].bias, -1.0)  # the hidden layer is silent
    layer.param_free_norm.running_mean.fill_(0.5), layer.param_free_norm.running_var.fill_(4.0)
    gamma, beta = layer.mlp_gamma.bias[:, None, None], layer.mlp_beta.bias[:, None, None]
    assert torch.allclose(layer(x, semantics), (x - 0.5) / (4 + 1e-5) ** 0.5 * (1 + gamma) + beta, atol=1e-5)


def test_a_fresh_convolutions_spectral_norm_is_1():
    torch.manual_seed(0)
    conv = spectral_norm(torch.nn.Conv2d(8, 8, 3), iterations=50).eval()
    conv(torch.zeros(1, 8, 4, 4))
    assert torch.linalg.matrix_norm(conv.weight.detach().flatten(1), ord=2) == pytest.approx(1, abs=1e-3)


def test_a_network_can_be_copied_after_a_step():
    generator, images = small().train(), sample_images(2, 64, 64)
    generator.manipulate(images, quarters(2)).sum().backward()
    assert generator.head_0.conv_0.weight_orig.grad.any()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(generator.eval()).manipulate(images, quarters(2)), generator.manipulate(images, quarters(2)))


def test_forward_paints_the_published_size_and_manipulate_that_of_the_images():
    generator = small(num_upsampling_layers="more", crop_size=128, aspect_ratio=2.0)
    with torch.no_grad():
        assert generator(torch.zeros(1, 5, 32, 32)).shape == (1, 3, 64, 128)
        images, labels = sample_images(1, 64, 128), torch.randint(3, (1, 64, 128))
        painted = generator.manipulate(images, labels)
        assert painted.shape == images.shape and torch.equal(painted, generator(generator.semantics(labels)))


def test_the_published_networks_have_the_published_sizes():
    assert CHANNELS == {"cityscapes": 36, "ade20k": 151, "coco": 184}
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in SPADEGenerator(**config).parameters()) for name, config in DATA_SETS.items()}
    assert counts == {"cityscapes": 93048003, "ade20k": 96492483, "coco": 97480899}


def test_what_a_published_file_is_for_is_told_by_its_channels(tmp_path):
    generator = create_generator("spade", data_set="ade20k", ngf=1)
    torch.save(generator.state_dict(), tmp_path / "latest_net_G.pth")
    assert create_generator("spade", tmp_path / "latest_net_G.pth").config == generator.config
    assert generator.config["label_nc"] == 150 and generator.config["no_instance"]
    assert create_generator("spade", tmp_path / "latest_net_G.pth", data_set="ade20k", label_nc=150).config == generator.config
    with pytest.raises(ValueError, match="has 151 input channels, which coco has not"):
        create_generator("spade", tmp_path / "latest_net_G.pth", data_set="coco")
    with pytest.raises(ValueError, match="channels is 151 in the file and 150 was asked for"):
        create_generator("spade", tmp_path / "latest_net_G.pth", label_nc=150, contain_dontcare_label=False, no_instance=True)


def test_a_file_of_other_labels_needs_to_be_told_what_they_are(tmp_path):
    torch.save(small().state_dict(), tmp_path / "mine.pth")
    with pytest.raises(
        ValueError, match=r"mine.pth has 5 input channels.*label_nc, contain_dontcare_label and no_instance"
    ):
        create_generator("spade", tmp_path / "mine.pth")


def test_the_layout_of_torch_1_0_which_kept_the_normed_weight_gives_the_same_images(tmp_path):
    generator, images = small(), sample_images(1, 64, 64)
    with torch.no_grad():
        expected = generator.manipulate(images, quarters(1))
        state = generator.state_dict()
        for name, module in generator.named_modules():
            if hasattr(module, "weight_orig"):
                state[f"{name}.weight"] = module.weight.clone()  # as the forward pass has just normed it
                del state[f"{name}.weight_v"]
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        torch.save(state, tmp_path / "old.pth")
        loaded = create_generator("spade", tmp_path / "old.pth", **SMALL).eval()
        assert torch.allclose(loaded.manipulate(images, quarters(1)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        (
            (64, 64),
            None,
            r"can't read one from an image: give the labels of all pixels as the target, \(1, 64, 64\) or .*\(1, 2, 64, 64\)",
        ),
        ((64, 48), quarters(1), "sides divisible by 32, got 64x48"),
        ((64, 64), quarters(1, 32), r"of the images' size, \(1, 64, 64\) .* got \(1, 32, 32\)"),
        ((64, 64), quarters(2), r"got \(2, 64, 64\)"),
        ((64, 64), quarters(1) + 1, r"whole numbers in 0 … 3, got 1 … 4"),
        ((64, 64), quarters(1) - 1, r"whole numbers in 0 … 3, got -1 … 2"),
        ((64, 64), quarters(1) * 0.5, r"whole numbers in 0 … 3, got 0 … 1.5"),
    ],
)
def test_wrong_input_is_refused(size, target, message):
    with pytest.raises(ValueError, match=message):
        small().manipulate(sample_images(1, *size), target)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"norm_G": "spectralinstance"}, "expected a norm_G like 'spectralspadesyncbatch3x3', got 'spectralinstance'"),
        ({"num_upsampling_layers": "least"}, "unknown num_upsampling_layers 'least'; choose from"),
        ({"data_set": "faces"}, "unknown data_set 'faces'; choose from"),
    ],
)
def test_wrong_arguments_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        create_generator("spade", **config)


def test_one_hot_is_the_label_again():
    labels = torch.randint(5, (2, 4, 6))
    assert torch.equal(one_hot(labels, 5).argmax(1), labels)
