"""GANimation: what its attention keeps, the files people have, and the interface that all generators share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.ganimation import ACTION_UNITS, GANimationGenerator, blend, ganimation_discriminator
from generators.stargan import StarGANDiscriminator, StarGANGenerator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"conv_dim": 4, "c_dim": 3, "repeat_num": 1}


def tiny(seed: int = 0, **config) -> GANimationGenerator:
    torch.manual_seed(seed)
    return GANimationGenerator(**{**TINY, **config})


@pytest.fixture
def target() -> Tensor:
    return torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.2, 0.0]])


class TestContract(GeneratorContract):
    name = "ganimation"
    config = TINY

    def target(self, count: int) -> Tensor:
        return torch.arange(3 * count).view(count, 3) / (3 * count)


# --- the mask ----------------------------------------------------------------------------------------------------------------------


def test_where_the_attention_is_one_the_image_stays_and_where_it_is_zero_the_colours_are_seen(target):
    """The attention's head is given two weights that leave nothing open: left half kept, right half redrawn."""
    generator, images = tiny(), sample_images(2)
    with torch.no_grad():
        colours, attention = generator(images, target)
        assert attention.shape == (2, 1, 32, 32) and 0 < attention.min() and attention.max() < 1
        half = torch.zeros_like(attention)
        half[..., :16] = 1
        output = blend(images, colours, half)
        assert torch.equal(output[..., :16], images[..., :16]) and torch.equal(output[..., 16:], colours[..., 16:])
        assert torch.equal(generator.manipulate(images, target), blend(images, colours, attention))


def test_the_result_lies_between_the_image_and_the_colours(target):
    generator, images = tiny(), sample_images(2)
    with torch.no_grad():
        colours, _ = generator(images, target)
        output = generator.manipulate(images, target)
    assert (output >= torch.minimum(images, colours) - 1e-6).all() and (output <= torch.maximum(images, colours) + 1e-6).all()


def test_saturation_makes_the_mask_steeper_about_one_half(target):
    """With image 1 and colours 0 the result is the mask itself: 0.55 tanh(3 (a - 1/2)) + 1/2, by hand at 0, 1/2 and 1."""
    attention = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(1, 1, 1, 5)
    mask = blend(torch.ones(1, 3, 1, 5), torch.zeros(1, 3, 1, 5), attention, saturate=True)[0, 0, 0]
    assert torch.allclose(mask[[0, 2, 4]], torch.tensor([0.0021683, 0.5, 0.9978317]), atol=1e-6)
    assert mask[1] < 0.25 and mask[3] > 0.75
    images = sample_images(2)
    assert not torch.allclose(tiny(saturate_mask=True).manipulate(images, target), tiny().manipulate(images, target), atol=1e-4)


def test_the_trunk_is_stargans(target):
    """With StarGAN's weights and its last layer in the place of the colours, the colours are StarGAN's image."""
    torch.manual_seed(3)
    stargan, generator, images = StarGANGenerator(**TINY), tiny(), sample_images(2)
    theirs = stargan.state_dict()
    renamed = {("img_reg.0.weight" if key == "main.16.weight" else key): value for key, value in theirs.items()}
    kept = {key: renamed.get(key, value) for key, value in generator.state_dict().items()}
    generator.load_state_dict(kept)
    assert torch.allclose(generator(images, target)[0], stargan(images, target), atol=1e-6)


def test_there_are_seventeen_action_units():
    assert len(ACTION_UNITS) == GANimationGenerator(conv_dim=2, repeat_num=0).c_dim == 17
    assert ACTION_UNITS[0] == "AU01" and ACTION_UNITS[8] == "AU12" and ACTION_UNITS[-1] == "AU45"


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (torch.zeros(2, 3, 30, 32), torch.zeros(2, 3), "GANimation.*sides divisible by 4.*got 30x32"),
        (
            torch.zeros(2, 3, 32, 32),
            torch.zeros(2, 17),
            r"target of shape \(2, 3\), the wanted intensity of each action unit.*got \(2, 17\)",
        ),
        (torch.zeros(2, 3, 32, 32), torch.full((2, 3), 5.0), r"target in \[0, 1\].*OpenFace's divided by 5.*got 5 to 5"),
        (torch.zeros(2, 3, 32, 32), None, r"target of shape \(2, 3\).*got None"),
    ],
)
def test_wrong_input_is_refused(images, target, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(images, target)


# --- published files ---------------------------------------------------------------------------------------------------------------


def old_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torch 0.3 kept running averages of norms that didn't use them."""
    averages = {}
    for key, value in state.items():
        if value.ndim == 1 and key.endswith(".weight"):
            averages[key.replace("weight", "running_mean")] = torch.full_like(value, 7.0)
            averages[key.replace("weight", "running_var")] = torch.full_like(value, 9.0)
    return {**state, **averages}


LAYOUTS = {
    "bare": lambda state: state,
    "old torch": old_torch,
    "several GPUs, old torch": lambda state: {"module." + key: value for key, value in old_torch(state).items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_the_authors_script_load_and_the_widths_are_read(tmp_path, target, layout):
    generator, images = tiny(repeat_num=2), sample_images(2)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "net_epoch_30_id_G.pth", _use_new_zipfile_serialization=False)
    loaded = create_generator("ganimation", tmp_path / "net_epoch_30_id_G.pth")
    assert loaded.config == {**TINY, "repeat_num": 2}
    assert torch.equal(loaded.manipulate(images, target), generator.manipulate(images, target))


def test_a_stargan_is_no_ganimation_and_other_arguments_are_refused(tmp_path):
    torch.save(StarGANGenerator(**TINY).state_dict(), tmp_path / "stargan.pth")
    with pytest.raises(
        ValueError, match=r"stargan.pth is not a checkpoint of GANimationGenerator: .*attetion_reg.0.weight, found \['main.0.weight'"
    ):
        create_generator("ganimation", tmp_path / "stargan.pth")
    torch.save(tiny().state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match="G.pth: c_dim is 3 in the file and 17 was asked for"):
        create_generator("ganimation", tmp_path / "G.pth", c_dim=17)


def test_the_discriminator_is_stargans_with_an_intensity_per_action_unit(tmp_path):
    torch.manual_seed(0)
    discriminator = ganimation_discriminator(image_size=32, conv_dim=2, repeat_num=3)
    assert isinstance(discriminator, StarGANDiscriminator) and discriminator(sample_images(2))[1].shape == (2, 17)
    torch.save(ganimation_discriminator(image_size=32, conv_dim=2, repeat_num=3, c_dim=4).state_dict(), tmp_path / "net_epoch_30_id_D.pth")
    assert ganimation_discriminator(tmp_path / "net_epoch_30_id_D.pth").config["c_dim"] == 4
