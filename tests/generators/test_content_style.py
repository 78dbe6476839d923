"""The layers that the content-and-style generators share, and what all of these do alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generators import create_generator
from generators.content_style import ACTIVATIONS, AdaIN, Decoder, ImageLayerNorm, LastBlock, StyleMLP, chosen, style_codes
from generators.images import luminance, to_rgb
from tests.tiny import sample_images

TINY = {
    "unit": {"dim": 4, "n_res": 1},
    "munit": {"dim": 4, "n_res": 1, "style_dim": 3, "mlp_dim": 8},
    "council_gan": {"dim": 4, "n_res": 1, "style_dim": 5, "mlp_dim": 8},
    "drit": {"dim": 4, "nz": 3},
    "gdwct": {"conv_dim": 4, "n_group": 2, "repeat_num": 2, "mlp_dim": 8, "bias_dim": 6},
    "starganv2": {"max_conv_dim": 8, "style_dim": 6, "latent_dim": 3, "hidden_dim": 8, "w_hpf": 0},
}
STYLE_WIDTHS = {"munit": 3, "council_gan": 5, "drit": 3, "gdwct": 16}


def make(name: str, **config) -> nn.Module:
    torch.manual_seed(0)
    return create_generator(name, **{**TINY[name], **config}).eval()


def test_adaptive_instance_norm_gives_each_channel_the_asked_mean_and_deviation():
    parameters = torch.tensor([[3.0, -1.0, 0.5, 2.0], [0.0, 0.0, 1.0, 1.0]])
    output = AdaIN(2)(torch.randn(2, 2, 16, 16) * 7 + 5, parameters)
    assert torch.allclose(output.mean(dim=(2, 3)), parameters[:, :2], atol=1e-4)
    assert torch.allclose(output.std(dim=(2, 3), correction=0), parameters[:, 2:], atol=1e-4)


def test_an_images_layer_norm_uses_the_unbiased_deviation_with_eps_outside():
    """(1, 3): mean 2, unbiased deviation √2, so ±1 / (√2 + eps); then gamma and beta."""
    norm = ImageLayerNorm(2, eps=1.0)
    norm.gamma.data[:], norm.beta.data[:] = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0])
    output = norm(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten()
    assert torch.allclose(output, torch.tensor([-1 / (2**0.5 + 1), 2 / (2**0.5 + 1) + 5]))


def test_the_decoders_norms_draw_their_parameters_in_the_order_of_its_layers():
    """A code that asks the last norm of two for weight 0 leaves what the first block's shortcut carries; asked of the first, it changes."""
    torch.manual_seed(0)
    decoder = Decoder(dim=4, n_upsample=0, n_res=1, output_dim=3, norm=AdaIN, activation=nn.ReLU, pad_type="reflect")
    assert StyleMLP(2, 4, decoder, nn.ReLU).widths == [8, 8]
    content = torch.randn(1, 4, 8, 8)
    bypassed = decoder.model[-1](content)
    some, nothing = torch.ones(1, 8), torch.zeros(1, 8)
    assert torch.allclose(decoder(content, iter([some, nothing])), bypassed)
    assert not torch.allclose(decoder(content, iter([nothing, some])), bypassed, atol=1e-3)


def test_an_unknown_layer_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown layer 'reflex'; choose from \['reflect', 'replicate', 'zero'\]"):
        make("unit", pad_type="reflex")
    with pytest.raises(ValueError, match=r"unknown layer 'swish'; choose from \['relu'"):
        make("munit", activ="swish")
    assert all(chosen(ACTIVATIONS, name)()(torch.zeros(1)) == 0 for name in ACTIVATIONS)


def test_the_last_block_stays_in_float32_under_autocast():
    block, x = LastBlock(4, 3, 7), torch.randn(1, 4, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = block(x)
    assert torch.equal(output, block(x))


@pytest.mark.parametrize("name", TINY)
def test_images_under_bf16_autocast_are_off_the_bf16_grid(name):
    generator = make(name)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator.manipulate(sample_images(1), None)
    inside = output[output.abs() < 1]
    assert output.dtype == torch.float32 and (inside != inside.bfloat16().float()).float().mean() > 0.9


# --- styles ------------------------------------------------------------------------------------------------------------------------


def test_no_target_is_one_code_for_every_image_and_every_call():
    images = sample_images(3)
    codes = style_codes(None, images, 8, lambda _: None)
    assert codes.shape == (3, 8) and torch.equal(codes[0], codes[2]) and torch.equal(codes, style_codes(None, images, 8, lambda _: None))
    torch.manual_seed(5)
    assert torch.equal(codes[:1], style_codes(None, images[:1], 8, lambda _: None))


@pytest.mark.parametrize("name", STYLE_WIDTHS)
def test_codes_and_reference_images_are_styles(name):
    """An image with a reference equals the same with the code read from that reference, in either shape, and another code is another image."""
    generator, images, references = make(name), sample_images(2), sample_images(2, 24, 16, seed=4)
    goal = {
        "munit": lambda x: generator.b.enc_style(x),
        "council_gan": lambda x: generator.enc_style(x),
        "gdwct": lambda x: generator.G_B.s_encoder(x),
    }
    with torch.no_grad():
        codes = generator.enc_a.read(references, "B") if name == "drit" else goal[name](references)
        output = generator.manipulate(images, references)
        assert torch.equal(output, generator.manipulate(images, codes))
        assert torch.equal(output, generator.manipulate(images, codes.flatten(1)))
        assert not torch.allclose(output, generator.manipulate(images, codes.flatten(1) + 1), atol=1e-4)


@pytest.mark.parametrize("name", STYLE_WIDTHS)
@pytest.mark.parametrize("shape", [(2, 9), (1, 3), (2,), (2, 3, 8, 8), (3, 3, 32, 32), (2, 1, 32, 32)])
def test_other_targets_are_refused(name, shape):
    message = (
        rf"style codes \(2, {STYLE_WIDTHS[name]}\), reference images \(2, 3, h, w\) with sides of at least 16, or None, got \({shape[0]},"
    )
    with pytest.raises(ValueError, match=message):
        make(name).manipulate(sample_images(2), torch.zeros(shape))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("height", "width"), [(30, 32), (32, 34), (4, 32)])
def test_sides_that_dont_divide_are_refused(name, height, width):
    with pytest.raises(ValueError, match=rf"sides divisible by (4|16) and at least \d+, got {height}x{width}"):
        make(name).manipulate(sample_images(2, height, width), None)


@pytest.mark.parametrize("name", sorted(set(TINY) - {"council_gan", "starganv2"}))
def test_the_direction_is_a2b_or_b2a(name):
    images = sample_images(2)
    with torch.no_grad():
        assert not torch.allclose(make(name).manipulate(images), make(name, direction="b2a").manipulate(images), atol=1e-4)
    with pytest.raises(ValueError, match="expected direction 'a2b' or 'b2a', got 'a2c'"):
        make(name, direction="a2c")


@pytest.mark.parametrize("name", ["unit", "munit", "council_gan", "drit"])
def test_a_grey_network_gets_the_images_luminance_and_gives_grey(name):
    config = {"input_dim_a": 1, "input_dim_b": 1} if name == "drit" else {"input_dim": 1}
    generator, images = make(name, **config), sample_images(2)
    with torch.no_grad():
        output = generator.manipulate(images, None if name == "unit" else sample_images(2, seed=1))
        assert output.shape == images.shape and torch.equal(output[:, 0], output[:, 2])
        assert torch.allclose(
            output, generator.manipulate(to_rgb(luminance(images)), None if name == "unit" else sample_images(2, seed=1)), atol=1e-5
        )
