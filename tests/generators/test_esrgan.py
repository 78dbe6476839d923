"""ESRGAN: the three namings of its files, and what its network does where that can be told without weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.esrgan import ESRGANGenerator
from generators.real_esrgan import RealESRGANGenerator
from generators.rrdbnet import NEW, OLD, renamed
from generators.super_resolution import shrink
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

SMALL = {"nf": 8, "nb": 2, "gc": 4}


def tiny(seed: int = 0, **config) -> ESRGANGenerator:
    torch.manual_seed(seed)
    return ESRGANGenerator(**{**SMALL, **config})


# --- behaviour ---------------------------------------------------------------------------------------------------------------------


def test_manipulating_is_shrinking_and_upscaling_and_the_network_works_from_0_to_1():
    generator, images = tiny(), sample_images(2, 16, 24)
    small = shrink(images)
    expected = 2 * generator((small + 1) / 2).clamp(0, 1) - 1
    assert torch.equal(generator.upscale(small), expected) and expected.shape == images.shape
    for target in (None, torch.zeros(2, 5)):
        assert torch.equal(generator.manipulate(images, target), expected)


def test_what_leaves_the_range_is_cut_off():
    generator = tiny()
    with torch.no_grad():
        generator.conv_last.bias += torch.tensor([5.0, -5.0, 0.0])
    red, green, _ = generator.manipulate(sample_images(1))[0]
    assert (red == 1).all() and (green == -1).all()


def test_each_block_of_silent_dense_blocks_adds_a_fifth():
    """A dense block whose last convolution is zero is the identity, so RRDB(x) = x + 0.2 x, and the trunk multiplies by 1.2 a block."""
    generator, features = tiny(nb=3), torch.randn(1, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if ".conv5." in name:
                parameter.zero_()
        assert torch.allclose(generator.RRDB_trunk(features), 1.2**3 * features)


def test_a_far_corner_stays_as_it_was():
    """An image 4-fold enlarged depends on its neighbourhood alone; nothing is normalised over the whole."""
    generator, images = tiny(), sample_images(1, 32, 80)
    changed = images.clone()
    changed[..., 60:] += 0.3
    with torch.no_grad():
        one, other = generator.upscale(images), generator.upscale(changed)
    assert torch.equal(one[..., :64], other[..., :64]) and not torch.allclose(one[..., 240:], other[..., 240:], atol=1e-3)


def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid():
    generator, images = tiny(), sample_images(2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator.manipulate(images)
    assert output.dtype == torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9  # the last layer wasn't computed in bf16


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 30, 32), "super-resolution ×4: expected sides divisible by 4 and at least 16, got 30x32; resize"),
        (torch.zeros(2, 3, 12, 32), "sides divisible by 4 and at least 16, got 12x32"),
        (torch.zeros(2, 4, 32, 32), r"images \(B, 3, H, W\), got \(2, 4, 32, 32\)"),
    ],
)
def test_wrong_shapes_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(images)


def test_too_small_images_are_not_upscaled():
    with pytest.raises(ValueError, match="and at least 4, got 3x9"):
        tiny().upscale(torch.zeros(1, 3, 3, 9))


# --- files -------------------------------------------------------------------------------------------------------------------------


def in_the_oldest_naming(state: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """…_old_arch.pth, written out."""
    names = {
        "conv_first": "model.0",
        "trunk_conv": f"model.1.sub.{blocks}",
        "upconv1": "model.3",
        "upconv2": "model.6",
        "HRconv": "model.8",
    }
    names["conv_last"] = "model.10"
    for block in range(blocks):
        for dense in (1, 2, 3):
            for conv in range(1, 6):
                names[f"RRDB_trunk.{block}.RDB{dense}.conv{conv}"] = f"model.1.sub.{block}.RDB{dense}.conv{conv}.0"
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


LAYOUTS = {
    "RRDB_ESRGAN_x4.pth": lambda state: state,
    "RRDB_ESRGAN_x4_old_arch.pth": lambda state: in_the_oldest_naming(state, SMALL["nb"]),
    "ESRGAN_SRx4_DF2KOST_official.pth": lambda state: {"params": renamed(state, NEW)},
    "trained_with_BasicSR.pth": lambda state: {"params": {}, "params_ema": renamed(state, NEW)},
    "parallel.pth": lambda state: {"module." + key: value for key, value in state.items()},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, name):
    generator, images = tiny(), sample_images(2)
    torch.save(LAYOUTS[name](generator.state_dict()), tmp_path / name)
    for config in ({}, {"nf": 8}):
        loaded = create_generator("esrgan", tmp_path / name, **config)
        assert loaded.config == SMALL
        assert torch.equal(loaded.manipulate(images), generator.manipulate(images))


def test_namings_turn_into_each_other():
    state = tiny().state_dict()
    new = renamed(state, NEW)
    assert set(new) == set(RealESRGANGenerator(num_feat=8, num_block=2, num_grow_ch=4).state_dict())
    assert list(renamed(new, OLD)) == list(state) == list(renamed(in_the_oldest_naming(state, 2), OLD))
    assert list(renamed({"0.weight": torch.zeros(1), "model.2.bias": torch.zeros(1)}, OLD)) == ["0.weight", "model.2.bias"]


def test_other_arguments_than_the_files_and_other_networks_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "x4.pth")
    with pytest.raises(ValueError, match="x4.pth: nb is 2 in the file and 23 was asked for"):
        create_generator("esrgan", tmp_path / "x4.pth", nb=23)
    torch.save({"params_ema": RealESRGANGenerator(scale=2, num_feat=8, num_block=2, num_grow_ch=4).state_dict()}, tmp_path / "x2plus.pth")
    with pytest.raises(ValueError, match=r"x2plus.pth is not .*conv_first.weight is \(8, 12, 3, 3\) in the file and \(8, 3, 3, 3\) here"):
        create_generator("esrgan", tmp_path / "x2plus.pth")
    state = tiny().state_dict()
    state["RRDB_trunk.1.RDB2.conv9.weight"] = state.pop("RRDB_trunk.1.RDB2.conv3.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        ValueError, match=r"1 missing, first \['RRDB_trunk.1.RDB2.conv3.weight'\]; 1 unknown, first \['RRDB_trunk.1.RDB2.conv9.weight'\]"
    ):
        create_generator("esrgan", tmp_path / "odd.pth")


def test_the_published_network_has_16_7_million_parameters():
    with torch.device("meta"):
        generator = create_generator("esrgan")
    assert sum(parameter.numel() for parameter in generator.parameters()) == 16_697_987


class TestContract(GeneratorContract):
    name = "esrgan"
    config = SMALL
