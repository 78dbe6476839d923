"""pix2pix: the files people have of it, and whose statistics and what noise it uses; its outputs are checked in tests/golden."""

from __future__ import annotations

import pytest
import torch

from generators import create_generator
from generators.cyclegan import ResnetGenerator
from generators.pix2pix import UnetGenerator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images


def tiny(seed: int = 0, **config) -> UnetGenerator:
    torch.manual_seed(seed)
    return UnetGenerator(**{"ngf": 2, "num_downs": 5, **config}).eval()


class TestContract(GeneratorContract):
    name = "pix2pix"
    config = {"ngf": 4, "num_downs": 5}


class TestContractOfRunningStatistics(TestContract):
    config = {"ngf": 4, "num_downs": 5, "statistics": "running"}


class TestContractOfResnet(TestContract):
    config = {"network": "resnet", "ngf": 4, "n_blocks": 2}


# --- published files -----------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "bare": lambda state: state,
    "old torch, without counters": lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    "DataParallel": lambda state: {"module." + key: value for key, value in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [{}, {"num_downs": 7, "ngf": 1, "input_nc": 1, "output_nc": 1}, {"norm": "instance"}])
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, layout, config):
    generator = tiny(**config)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "edges2shoes.pth")
    loaded = create_generator("pix2pix", tmp_path / "edges2shoes.pth").eval()
    images = sample_images(1, 128, 128)
    assert loaded.config == generator.config and torch.equal(loaded.manipulate(images), generator.manipulate(images))


def test_a_file_tells_which_network_it_is(tmp_path):
    torch.manual_seed(0)
    resnet = ResnetGenerator(norm="batch", use_dropout=True, ngf=2, n_blocks=1)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    torch.save(tiny().state_dict(), tmp_path / "unet.pth")
    assert create_generator("pix2pix", tmp_path / "resnet.pth").config == resnet.config
    assert create_generator("pix2pix", network="resnet", ngf=2, n_blocks=1).config == resnet.config
    for name, other in (("resnet", "unet"), ("unet", "resnet")):
        with pytest.raises(ValueError, match=f"{name}.pth: network is {name} in the file and {other} was asked for"):
            create_generator("pix2pix", tmp_path / f"{name}.pth", network=other)
    with pytest.raises(ValueError, match="unet.pth: num_downs is 5 in the file and 8 was asked for"):
        create_generator("pix2pix", tmp_path / "unet.pth", num_downs=8)
    with pytest.raises(ValueError, match="expected network 'unet' or 'resnet', got 'vit'"):
        create_generator("pix2pix", network="vit")


# --- statistics and noise ------------------------------------------------------------------------------------------------------------


def test_statistics_of_the_image_are_the_authors_test_script_on_one_image_at_a_time():
    images = sample_images(3)
    image, batch = tiny(), tiny(statistics="batch")
    together = image.manipulate(images)
    for i in range(3):
        assert torch.allclose(batch.manipulate(images[i : i + 1]), together[i : i + 1], atol=1e-4)
    assert not torch.allclose(batch.manipulate(images), together, atol=0.01)
    assert not torch.allclose(tiny(statistics="running").manipulate(images), together, atol=0.01)


def test_dropout_is_on_in_training_and_where_noise_is_asked_for():
    images = sample_images(1)
    generator = tiny(num_downs=6).eval()
    images = sample_images(1, 64, 64)
    assert torch.equal(generator.manipulate(images), generator.manipulate(images))
    assert not torch.equal(generator.train().manipulate(images), generator.manipulate(images))
    noisy = tiny(num_downs=6, noise=True).eval()
    assert not torch.equal(noisy.manipulate(images), noisy.manipulate(images))
    without = tiny(num_downs=6, use_dropout=False).train()
    assert torch.equal(without.manipulate(images), without.manipulate(images))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="this U-Net halves the image 5 times: expected sides divisible by 32, got 48x32; resize"):
        tiny().manipulate(sample_images(1, 48, 32))
    with pytest.raises(ValueError, match="5 times at least, got num_downs 4"):
        UnetGenerator(num_downs=4)
