"""The compressed CycleGAN of GAN Compression: its file tells its widths, and the published horse → zebra paints zebras."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import squeezenet1_0

from generators import create_generator
from generators.cyclegan_compressed import HORSE2ZEBRA, CompressedResnetGenerator
from malp_disc.data import load_image
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

CHANNELS = (2, 1, 2, 1, 3, 2, 2, 4)
ZEBRA = 340  # of ImageNet's classes
PUBLISHED = "weights/cyclegan_horse2zebra/latest_net_G.pth"


def tiny(seed: int = 0, **config) -> CompressedResnetGenerator:
    torch.manual_seed(seed)
    return CompressedResnetGenerator(**{"channels": CHANNELS, **config}).eval()


class TestContract(GeneratorContract):
    name = "cyclegan_compressed"
    config = {"channels": CHANNELS}


# --- files ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"norm": "batch"}, {"input_nc": 1, "output_nc": 2}, {"channels": (1, 1, 1, 1, 1, 1, 1, 1)}])
def test_the_shapes_of_a_file_tell_the_network(tmp_path, config):
    torch.save(tiny(**config).state_dict(), tmp_path / "G.pth")
    loaded = create_generator("cyclegan_compressed", tmp_path / "G.pth").eval()
    images = sample_images(2)[:, : loaded.input_nc]
    assert loaded.config == tiny(**config).config
    assert torch.equal(loaded(images), tiny(**config)(images))


def test_widths_that_disagree_with_the_file_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    assert create_generator("cyclegan_compressed", tmp_path / "G.pth", channels=list(CHANNELS)).config["channels"] == CHANNELS
    with pytest.raises(ValueError, match=r"G.pth: channels is \(2, 1, 2, 1, 3, 2, 2, 4\) in the file and \(16, .*was asked for"):
        create_generator("cyclegan_compressed", tmp_path / "G.pth", channels=HORSE2ZEBRA)
    with pytest.raises(ValueError, match=r"expected channels of 8 positive numbers .*got \(16, 32\)"):
        CompressedResnetGenerator(channels=(16, 32))


def test_the_full_network_names_the_compressed_one(tmp_path):
    """Both are called CycleGAN, and their files latest_net_G.pth: each entry says where the other's file belongs."""
    torch.save(tiny().state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(ValueError, match="separable convolutions, a network of GAN Compression; load it as cyclegan_compressed"):
        create_generator("cyclegan", tmp_path / "latest_net_G.pth")
    torch.save(create_generator("cyclegan", ngf=2).state_dict(), tmp_path / "full.pth")
    with pytest.raises(ValueError, match="full.pth is not a checkpoint of this CompressedResnetGenerator"):
        create_generator("cyclegan_compressed", tmp_path / "full.pth")


def test_sides_that_4_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="expected sides divisible by 4 and at least 8, got 30x32"):
        tiny().manipulate(sample_images(1, 30, 32))


# --- the published network -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared):
    return create_generator("cyclegan_compressed", shared(PUBLISHED)).eval().requires_grad_(False)


def test_the_published_file_is_the_configuration_of_its_name(published):
    assert published.config["channels"] == HORSE2ZEBRA and published.config["norm"] == "instance"
    assert sum(parameter.numel() for parameter in published.parameters()) == 356_867


def test_the_published_network_turns_horses_into_zebras(published, shared):
    """ImageNet's SqueezeNet, which had no part in its training, finds a zebra a thousand times as likely afterwards."""
    names = ("n02381460_1010", "n02381460_1120")
    paths = [shared(f"data/horse2zebra256/testA/{name}.jpg") for name in names]
    classifier = squeezenet1_0().eval()
    classifier.load_state_dict(torch.load(shared("weights/squeezenet1_0/squeezenet1_0_deepcompression_decoded.pth"), weights_only=True))
    mean = torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    images = torch.stack([load_image(path, image_size=256) for path in paths])
    with torch.no_grad():
        before, after = (
            classifier((x.flip(1) + 1) * 127.5 - mean).softmax(1)[:, ZEBRA] for x in (images, published.manipulate(images))
        )
    assert (before < 1e-4).all() and (after > 0.02).all() and (after > 1000 * before).all(), (before, after)
