"""Real-ESRGAN: two networks, four scales, and the files people have of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from generators import create_generator
from generators.real_esrgan import RealESRGANCompact, RealESRGANGenerator
from generators.super_resolution import shrink
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

RRDB = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}
COMPACT = {"architecture": "srvgg", "num_feat": 8, "num_conv": 5}


def tiny(seed: int = 0, **config) -> RealESRGANGenerator | RealESRGANCompact:
    torch.manual_seed(seed)
    return create_generator("real_esrgan", **config)


# --- behaviour ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{**RRDB, "scale": scale} for scale in (1, 2, 4)] + [{**COMPACT, "scale": scale} for scale in (2, 3, 4)], ids=str
)
def test_manipulating_is_shrinking_and_upscaling(config):
    generator, images = tiny(**config), sample_images(2, 24, 48)
    small = shrink(images, config["scale"])
    assert small.shape == (2, 3, 24 // config["scale"], 48 // config["scale"])
    output = generator.manipulate(images, None)
    assert output.shape == images.shape and torch.equal(output, generator.upscale(small))
    assert torch.equal(output, 2 * generator((small + 1) / 2).clamp(0, 1) - 1)


@pytest.mark.parametrize(("scale", "by"), [(2, 2), (1, 4)])
def test_sides_that_cant_be_unshuffled_are_mirrored_out(scale, by):
    generator, images = tiny(**RRDB, scale=scale), sample_images(1, 7, 9)
    output = generator.upscale(images)
    assert output.shape == (1, 3, 7 * scale, 9 * scale)
    height, width = 7 + -7 % by, 9 + -9 % by
    mirrored = torch.cat([images, images.flip(2)[:, :, 1 : 1 + height - 7]], dim=2)
    mirrored = torch.cat([mirrored, mirrored.flip(3)[..., 1 : 1 + width - 9]], dim=3)
    assert torch.equal(output, generator.upscale(mirrored)[..., : 7 * scale, : 9 * scale])


@pytest.mark.parametrize("act_type", ["prelu", "relu", "leakyrelu"])
def test_the_compact_network_adds_detail_to_repeated_pixels(act_type):
    generator, images = tiny(**COMPACT, act_type=act_type), sample_images(2)
    for parameter in generator.body[-1].parameters():
        nn.init.zeros_(parameter)
    assert torch.allclose(generator.manipulate(images), F.interpolate(shrink(images), scale_factor=4, mode="nearest"), atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3])
def test_shrinking_keeps_means_and_places(scale):
    """A ramp becomes the ramp of its blocks' centres, away from the border."""
    ramp = torch.linspace(-0.9, 0.9, 48).expand(1, 3, 48, 48)
    centres = ramp.unflatten(3, (48 // scale, scale)).mean(4)[:, :, : 48 // scale]
    assert torch.allclose(shrink(ramp, scale)[..., 2:-2], centres[..., 2:-2], atol=1e-6)


@pytest.mark.parametrize("config", [RRDB, COMPACT], ids=str)
def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid(config):
    generator, images = tiny(**config), sample_images(2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator.manipulate(images)
    assert output.dtype == torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9


def test_wrong_input_and_arguments_are_refused():
    with pytest.raises(ValueError, match="super-resolution ×2: expected sides divisible by 2 and at least 8, got 31x32"):
        tiny(**RRDB, scale=2).manipulate(torch.zeros(1, 3, 31, 32))
    for config in (RRDB, COMPACT):
        with pytest.raises(ValueError, match="sides divisible by 4 and at least 16, got 12x32"):
            tiny(**config).manipulate(torch.zeros(1, 3, 12, 32))
        with pytest.raises(ValueError, match="and at least 4, got 2x9"):
            tiny(**config).upscale(torch.zeros(1, 3, 2, 9))
    with pytest.raises(ValueError, match="RRDBNet enlarges by 4, 2 or 1, got scale 3"):
        tiny(**RRDB, scale=3)
    with pytest.raises(ValueError, match=r"architecture is one of \['rrdb', 'srvgg'\], got 'vgg'"):
        tiny(architecture="vgg")
    with pytest.raises(ValueError, match="act_type is one of .*'prelu'.*, got 'gelu'"):
        tiny(**COMPACT, act_type="gelu")
    with pytest.raises(ValueError, match="give a checkpoint too"):
        create_generator("real_esrgan", weak="wdn.pth")


# --- files -------------------------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "params_ema": lambda state: {"params_ema": state},
    "both": lambda state: {"params": {key: 0 * value for key, value in state.items()}, "params_ema": state},
    "params": lambda state: {"params": state},
    "bare": lambda state: state,
}
CONFIGS = [{**RRDB, "scale": scale} for scale in (1, 2, 4)] + [{**COMPACT, "scale": scale, "act_type": "prelu"} for scale in (3, 4)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_published_layouts_load_and_network_and_widths_are_read_from_the_file(tmp_path, layout, config):
    generator, images = tiny(**config), sample_images(2, 24, 24)
    torch.save(LAYOUTS[layout](generator.state_dict()), tmp_path / "x.pth")
    save_file(generator.state_dict(), tmp_path / "x.safetensors")  # whose keys come back sorted as words: body.10 before body.2
    for file, asked in (("x.pth", {}), ("x.pth", {"scale": config["scale"]}), ("x.safetensors", {})):
        loaded = create_generator("real_esrgan", tmp_path / file, **asked)
        assert loaded.config == {"architecture": "rrdb", **config}
        assert torch.equal(loaded.manipulate(images), generator.manipulate(images))


def test_an_activation_without_weights_is_asked_for(tmp_path):
    """relu and leakyrelu leave no trace in a file; taken for prelu, the file lacks its slopes."""
    torch.save({"params": tiny(**COMPACT, act_type="relu").state_dict()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"missing, first \['body.1.weight'"):
        create_generator("real_esrgan", tmp_path / "x.pth")
    assert create_generator("real_esrgan", tmp_path / "x.pth", act_type="relu").config["act_type"] == "relu"


def test_other_arguments_than_the_files_and_other_networks_are_refused(tmp_path):
    torch.save({"params_ema": tiny(**RRDB, scale=2).state_dict()}, tmp_path / "x2plus.pth")
    torch.save({"params": tiny(**COMPACT).state_dict()}, tmp_path / "general.pth")
    with pytest.raises(ValueError, match="x2plus.pth: scale is 2 in the file and 4 was asked for"):
        create_generator("real_esrgan", tmp_path / "x2plus.pth", scale=4)
    with pytest.raises(ValueError, match="general.pth: architecture is srvgg in the file and rrdb was asked for"):
        create_generator("real_esrgan", tmp_path / "general.pth", architecture="rrdb")


def test_two_files_are_mixed_by_denoise_strength(tmp_path):
    strong, weak, images = tiny(0, **COMPACT), tiny(1, **COMPACT), sample_images(1)
    torch.save({"params": strong.state_dict()}, tmp_path / "x4v3.pth")
    torch.save({"params": weak.state_dict()}, tmp_path / "wdn.pth")

    def mixed(**config):
        return create_generator("real_esrgan", tmp_path / "x4v3.pth", weak=tmp_path / "wdn.pth", **config)

    assert torch.equal(mixed(denoise_strength=1).manipulate(images), strong.manipulate(images))
    assert torch.equal(mixed(denoise_strength=0).manipulate(images), weak.manipulate(images))
    for key, value in mixed(denoise_strength=0.25).state_dict().items():
        assert torch.allclose(value, 0.25 * strong.state_dict()[key] + 0.75 * weak.state_dict()[key])
    with pytest.raises(ValueError, match="denoise_strength is a share from 0 to 1, got 2"):
        mixed(denoise_strength=2)
    torch.save({"params": tiny(**COMPACT | {"num_feat": 4}).state_dict()}, tmp_path / "wdn.pth")
    with pytest.raises(ValueError, match=r"wdn.pth is not a checkpoint of this RealESRGANCompact: body.0.weight is \(4, 3, 3, 3\)"):
        mixed()


@pytest.mark.parametrize(
    ("config", "parameters"),
    [({}, 16_697_987), ({"scale": 2}, 16_703_171), ({"num_block": 6}, 4_467_779), ({"architecture": "srvgg"}, 1_213_296)],
    ids=str,
)
def test_the_published_networks_have_their_sizes(config, parameters):
    with torch.device("meta"):
        generator = create_generator("real_esrgan", **config)
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters


class TestContract(GeneratorContract):
    name = "real_esrgan"
    config = RRDB


class TestContractHalf(TestContract):
    config = {**RRDB, "scale": 2}


class TestContractCompact(TestContract):
    config = COMPACT
