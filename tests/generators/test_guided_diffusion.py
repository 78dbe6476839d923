"""The UNet of ILVR and RePaint, in small sizes; the published ones are goldens."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from generators import create_generator
from generators.guided_diffusion import CELEBA256, FFHQ256, AttentionBlock, GuidedUNet, ResBlock, _arguments, sinusoids
from generators.ilvr import ILVRGenerator
from generators.repaint import RePaintGenerator
from tests.golden.seeded import fill, image
from tests.tiny import sample_images

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "data"
SMALL = {
    "image_size": 32,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_resolutions": (16,),
    "num_head_channels": 16,
}

# Made with this network after the goldens of the published sizes had passed: it keeps every run to what those minutes-long ones check.
MEANS = [0.06139, 0.0114, -0.21549, -0.24003, -0.05801, 0.00872]
PIXELS = [-0.52148, -0.22796, 0.70928, 0.24702, -0.41433, 0.77539, 0.11763, 0.1911, -0.14876, -0.10264, -0.18509, -0.54482]
PIXELS += [-0.15047, -1.00262, -0.23729, -0.86335, 0.52818, 0.08697, 0.20752, -0.5247, 0.18446, 0.33953, -0.42568, -0.34843]


def tiny(seed: int = 0, **config) -> GuidedUNet:
    torch.manual_seed(seed)
    return GuidedUNet(**{**SMALL, **config}).eval()


def run(network: GuidedUNet, *more) -> torch.Tensor:
    with torch.no_grad():
        return network(sample_images(2, 16, 16), torch.tensor([999, 3]), *more)


def test_a_reduced_network_stays_what_it_was():
    network = tiny(num_res_blocks=2, channel_mult=(1, 2, 2), attention_resolutions=(16, 8))
    fill(network)
    with torch.no_grad():
        output = network(image("x", (2, 3, 32, 32)), torch.tensor([500, 3]))
    assert output.mean((0, 2, 3)).tolist() == pytest.approx(MEANS, abs=1e-4)
    assert output[1, :, 8::16, 8::16].flatten().tolist() == pytest.approx(PIXELS, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "golden", "published", "parameters"),
    [("ilvr", "ilvr_unet_ffhq256", FFHQ256, 93_563_910), ("repaint", "repaint_unet_celeba256", CELEBA256, 552_814_086)],
)
def test_what_is_made_by_default_has_the_published_keys(name, golden, published, parameters):
    keys = json.loads((GOLDENS / f"{golden}.json").read_text(encoding="utf-8"))["keys"]
    with torch.device("meta"):
        for network in (create_generator(name), GuidedUNet(**published)):
            assert {key: list(value.shape) for key, value in network.state_dict().items()} == keys
            assert sum(parameter.numel() for parameter in network.parameters()) == parameters
            assert network.config.items() >= published.items() and _arguments(network.state_dict(), 256).items() >= network.config.items()


# --- mathematics -------------------------------------------------------------------------------------------------------------------


def test_time_is_told_by_cosines_and_sines():
    codes = sinusoids(torch.tensor([0, 7]), 8)
    frequencies = [10000 ** (-k / 4) for k in range(4)]
    assert torch.equal(codes[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    assert codes[1].tolist() == pytest.approx([math.cos(7 * f) for f in frequencies] + [math.sin(7 * f) for f in frequencies], abs=1e-6)


def test_attention_is_a_softmax_over_all_places():
    """Two heads, written out; channels lie as (head, query/key/value), scores are divided by the root of the 16 channels of a head."""
    block, x = AttentionBlock(32, 2, new_order=False).double(), torch.randn(1, 32, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        values = block.norm(x.flatten(2))
        weight = block.qkv.weight[..., 0].unflatten(0, (2, 3, 16))
        q, k, v = ((weight[:, n] @ values) + block.qkv.bias.unflatten(0, (2, 3, 16))[:, n, :, None] for n in range(3))  # (2, 16, 15)
        scores = torch.softmax(torch.einsum("hcq,hck->hqk", q, k) / 4, dim=2)
        expected = x + block.proj_out(torch.einsum("hqk,hck->hcq", scores, v).reshape(1, 32, 15)).view_as(x)
        assert torch.allclose(block(x), expected)


def test_the_two_attention_orders_are_one_up_to_the_order_of_channels():
    legacy, new, x = (
        AttentionBlock(32, 4, new_order=False),
        AttentionBlock(32, 4, new_order=True),
        sample_images(2, 4, 8).repeat(1, 11, 1, 1)[:, :32],
    )
    state = legacy.state_dict()
    for key in ("qkv.weight", "qkv.bias"):
        state[key] = state[key].unflatten(0, (4, 3, 8)).transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    assert torch.allclose(new(x), legacy(x), atol=1e-5)
    assert not torch.allclose(AttentionBlock(32, 4, new_order=True)(x), legacy(x), atol=1e-2)


@pytest.mark.parametrize(("resample", "side"), [("", 8), ("up", 16), ("down", 4)])
def test_a_silent_block_keeps_halves_or_doubles_its_input(resample, side):
    block, x = ResBlock(32, 32, 16, scale_shift=True, dropout=0.0, resample=resample), torch.full((1, 32, 8, 8), 0.7)
    nn.init.zeros_(block.out_layers[3].weight), nn.init.zeros_(block.out_layers[3].bias)
    assert torch.allclose(block(x, torch.zeros(1, 16)), torch.full((1, 32, side, side), 0.7))


def test_time_scales_and_shifts_after_the_norm():
    """Scale -1 and shift s leave s alone of the first half: nothing of the image but by the skip."""
    block = ResBlock(32, 32, 16, scale_shift=True, dropout=0.0)
    nn.init.zeros_(block.emb_layers[1].weight)
    with torch.no_grad():
        block.emb_layers[1].bias.copy_(torch.cat([-torch.ones(32), torch.full((32,), 0.4)]))
        one, other = (block(x, torch.zeros(1, 16)) - x for x in (torch.randn(1, 32, 4, 4), torch.randn(1, 32, 4, 4)))
    assert torch.allclose(one, other, atol=1e-6) and one.abs().max() > 1e-3


def test_the_time_matters_and_images_of_a_batch_have_their_own():
    network, images = tiny(), sample_images(2)
    with torch.no_grad():
        both = network(images, torch.tensor([999, 3]))
        assert torch.allclose(both[1:], network(images[1:], torch.tensor([3])), atol=1e-5)
        assert not torch.allclose(both[1:], network(images[1:], torch.tensor([999])), atol=1e-3)


def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid():
    network = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(network)
    assert output.dtype == torch.float32 and torch.allclose(output, run(network), atol=0.1)
    assert (output != output.bfloat16().float()).float().mean() > 0.9  # the last layer wasn't computed in bf16


# --- files -------------------------------------------------------------------------------------------------------------------------

CONFIGS = [
    {},
    {"num_res_blocks": 2, "channel_mult": (1, 1, 2), "attention_resolutions": (32, 8)},
    {"channel_mult": (1, 1.5, 3), "num_channels": 64, "attention_resolutions": ()},
    {"num_res_blocks": 2, "channel_mult": (2,), "attention_resolutions": (32,)},
    {"resblock_updown": False, "use_scale_shift_norm": False},
    {"resblock_updown": False, "num_res_blocks": 2, "channel_mult": (1, 1, 1), "attention_resolutions": (16, 8)},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("name", ["ilvr", "repaint"])
def test_the_arguments_are_read_from_the_file(tmp_path, config, name):
    network = tiny(**config)
    torch.save(network.state_dict(), tmp_path / "unet.pt")
    loaded = create_generator(name, tmp_path / "unet.pt", image_size=32, num_head_channels=16).eval()
    assert loaded.config == network.config
    assert torch.equal(run(loaded), run(network))
    assert isinstance(loaded, {"ilvr": ILVRGenerator, "repaint": RePaintGenerator}[name])


def test_layouts_and_settings_of_the_sampler(tmp_path):
    network = tiny()
    torch.save({"step": 3, "state_dict": {"module." + key: value for key, value in network.state_dict().items()}}, tmp_path / "parallel.pt")
    loaded = create_generator(
        "ilvr", tmp_path / "parallel.pt", image_size=32, channel_mult=[1, 2], num_head_channels=16, N=8, steps=7, seed=3
    )
    assert (loaded.N, loaded.steps, loaded.seed) == (8, 7, 3)
    assert torch.equal(run(loaded), run(network))


def test_other_arguments_than_the_files_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "unet.pt")
    with pytest.raises(ValueError, match=r"unet.pt: num_channels is 32 in the file and 128 was asked for"):
        create_generator("ilvr", tmp_path / "unet.pt", num_channels=128)
    with pytest.raises(ValueError, match=r"attention_resolutions is \(16,\) in the file and \(8,\) was asked for"):
        create_generator("repaint", tmp_path / "unet.pt", image_size=32, attention_resolutions=(8,))


def test_files_of_other_networks_are_refused(tmp_path):
    """A class-conditional network, one without variances, one with a key too little, and no UNet at all."""
    for file, state in {
        "classes.pt": tiny(num_classes=10).state_dict(),
        "fixed.pt": tiny(learn_sigma=False).state_dict(),
        "cut.pt": {key: value for key, value in tiny().state_dict().items() if key != "middle_block.1.norm.bias"},
        "half.pt": {key: value for key, value in tiny().state_dict().items() if not key.startswith("output_blocks")},
    }.items():
        torch.save(state, tmp_path / file)
    refused = {
        "classes.pt": r"classes.pt is not a checkpoint of this ILVRGenerator: 1 unknown, first \['label_emb.weight'\]",
        "fixed.pt": r"fixed.pt is not .*out.2.weight is \(3, 32, 3, 3\) in the file and \(6, 32, 3, 3\) here",
        "cut.pt": r"cut.pt is not .*1 missing, first \['middle_block.1.norm.bias'\]",
        "half.pt": r"half.pt is not a checkpoint of ILVRGenerator: expected the keys of a guided-diffusion UNet, found \['time_embed",
    }
    for file, message in refused.items():
        with pytest.raises(ValueError, match=message):
            create_generator("ilvr", tmp_path / file)


# --- wrong arguments ---------------------------------------------------------------------------------------------------------------


def test_a_class_conditional_network_takes_classes():
    network = tiny(num_classes=10)
    one, other = run(network, torch.tensor([1, 2])), run(network, torch.tensor([1, 3]))
    assert torch.equal(one[0], other[0]) and not torch.allclose(one[1], other[1], atol=1e-3)
    for wrong, classes in ((network, ()), (tiny(), (torch.tensor([1, 2]),))):
        with pytest.raises(ValueError, match="takes classes"):
            run(wrong, *classes)


def test_a_size_without_published_widths_asks_for_them():
    with pytest.raises(ValueError, match=r"known for images of \[64, 128, 256, 512\], got 96; give channel_mult"):
        GuidedUNet(image_size=96)
    with torch.device("meta"):
        assert GuidedUNet(image_size=64).config["channel_mult"] == (1, 2, 3, 4)
