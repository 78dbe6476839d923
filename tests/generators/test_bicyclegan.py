"""BicycleGAN: the files people have of it, and its styles; outputs of its networks are checked in tests/golden."""

from __future__ import annotations

import pytest
import torch

from generators import create_generator
from generators.bicyclegan import BicycleGANDiscriminator, BicycleGANEncoder, BicycleGANGenerator, bicyclegan_encoder
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images


def tiny(seed: int = 0, **config) -> BicycleGANGenerator:
    torch.manual_seed(seed)
    return BicycleGANGenerator(**{"ngf": 2, "num_downs": 6, "nz": 3, **config}).eval()


def tiny_encoder(seed: int = 0, **config) -> BicycleGANEncoder:
    torch.manual_seed(seed)
    return BicycleGANEncoder(**{"ndf": 2, "n_blocks": 2, "output_nc": 3, **config}).eval()


class TestContract(GeneratorContract):
    name = "bicyclegan"
    config = {"ngf": 4, "num_downs": 6, "nz": 3}
    size = (64, 64)

    def target(self, count):
        return torch.randn(3, generator=torch.Generator().manual_seed(4)) + torch.arange(count)[:, None]


class TestContractOfTheDefaultStyle(TestContract):
    def target(self, count):
        return None


# --- published files -----------------------------------------------------------------------------------------------------------------


def with_averages(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As torch before 0.4 saved it: running averages of the instance norms, no counters."""
    return {"model.submodule.down.2.running_mean": torch.ones(4), "model.submodule.down.2.running_var": torch.ones(4), **state}


LAYOUTS = {
    "bare": lambda state: state,
    "old torch": with_averages,
    "DataParallel": lambda state: {"module." + key: value for key, value in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "config", [{}, {"input_nc": 1}, {"upsample": "bilinear", "num_downs": 7, "nz": 8}, {"norm": "batch", "output_nc": 1}]
)
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, layout, config):
    generator, images = tiny(**config), sample_images(1, 128, 128)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "edges2shoes_net_G.pth")
    loaded = create_generator("bicyclegan", tmp_path / "edges2shoes_net_G.pth").eval()
    assert loaded.config == generator.config and torch.equal(loaded.manipulate(images), generator.manipulate(images))


def test_the_encoders_file_loads_and_the_files_arent_taken_for_each_other(tmp_path):
    for config in ({}, {"n_blocks": 3, "norm": "batch", "vae": False}):
        encoder = tiny_encoder(**config)
        torch.save(encoder.state_dict(), tmp_path / "E.pth")
        loaded = bicyclegan_encoder(tmp_path / "E.pth").eval()
        assert loaded.config == encoder.config
        side = 8 * 2 ** encoder.config["n_blocks"]
        for one, other in zip(loaded(sample_images(1, side, side)), encoder(sample_images(1, side, side))):
            assert torch.equal(one, other)
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match="E.pth is not a checkpoint of this BicycleGANGenerator: .*first .*'model.down.0.weight'"):
        create_generator("bicyclegan", tmp_path / "E.pth")
    with pytest.raises(ValueError, match="G.pth is not a checkpoint of this BicycleGANEncoder: .*first .*'fc.0.weight'"):
        bicyclegan_encoder(tmp_path / "G.pth")
    with pytest.raises(ValueError, match="G.pth: nz is 3 in the file and 8 was asked for"):
        create_generator("bicyclegan", tmp_path / "G.pth", nz=8)


# --- styles --------------------------------------------------------------------------------------------------------------------------


def test_the_default_style_is_drawn_once_and_for_all():
    generator, images = tiny(), sample_images(2, 64, 64)
    style = torch.randn(3, generator=torch.Generator().manual_seed(0))
    before = torch.random.get_rng_state()
    assert torch.equal(generator.default_style(2), torch.stack([style, style]))
    assert torch.equal(generator.manipulate(images), generator.manipulate(images, torch.stack([style, style])))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.allclose(generator.manipulate(images), generator.manipulate(images, torch.zeros(2, 3)), atol=1e-3)


def test_every_layer_down_is_told_the_style():
    """Each convolution down has weights for the style behind those for its input, and they count."""
    generator = tiny(ngf=4)
    (generator(sample_images(1, 64, 64), torch.tensor([[1.0, -2.0, 0.5]])) * sample_images(1, 64, 64, seed=3)).sum().backward()
    downs = {name: p for name, p in generator.named_parameters() if ".down." in name and name.endswith("weight")}
    assert len(downs) == 6
    for name, weight in downs.items():
        assert weight.grad[:, -3:].abs().max() > 1e-6, name


def test_a_style_read_off_an_image_is_a_target():
    generator, encoder = tiny(), tiny_encoder()
    mean, logvar = encoder(sample_images(2, 40, 40, seed=5))
    assert mean.shape == logvar.shape == (2, 3) and not torch.allclose(mean[0], mean[1])
    assert generator.manipulate(sample_images(2, 64, 64), mean).shape == (2, 3, 64, 64)


def test_the_discriminator_sees_two_scales():
    torch.manual_seed(0)
    discriminator = BicycleGANDiscriminator(ndf=4)
    assert [tuple(output.shape) for output in discriminator(sample_images(1, 128, 128))] == [(1, 1, 14, 14), (1, 1, 6, 6)]
    assert {key.split(".")[0] for key in discriminator.state_dict()} == {"model_0", "model_1"}
    assert list(BicycleGANDiscriminator(ndf=4, num_scales=1).state_dict())[0] == "model.0.weight"


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        ((64, 96), None, "BicycleGAN halves the image 6 times: expected sides divisible by 64, got 64x96"),
        ((64, 64), torch.zeros(1, 3), r"target of shape \(2, 3\), one style per image, got \(1, 3\)"),
        ((64, 64), torch.zeros(2, 8), r"target of shape \(2, 3\), one style per image, got \(2, 8\)"),
    ],
)
def test_wrong_input_is_refused(size, target, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(sample_images(2, *size), target)


def test_the_encoder_refuses_sizes_its_pooling_doesnt_fit():
    with pytest.raises(ValueError, match="this encoder wants sides of 32 to 63, got 64x32; resize"):
        tiny_encoder()(sample_images(1, 64, 32))
    with pytest.raises(ValueError, match="expected nl out of"):
        tiny(nl="gelu")
    with pytest.raises(ValueError, match="upsample 'basic' or 'bilinear', got 6 and 'nearest'"):
        tiny(upsample="nearest")
