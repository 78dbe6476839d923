"""ILVR: what its low-pass filter keeps, and what its sampler makes of image and seed. One step of it is a golden."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators import create_generator
from generators.diffusion_steps import Diffusion, Noise
from generators.ilvr import ILVRGenerator, bicubic, low_pass, refined
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images as drawn_images

SMALL = {"image_size": 32, "num_channels": 32, "channel_mult": (1, 1), "attention_resolutions": (16,), "num_head_channels": 16}
SMALL |= {"N": 4, "steps": 5, "progress": False}


def tiny(**config) -> ILVRGenerator:
    torch.manual_seed(0)
    return ILVRGenerator(**{**SMALL, **config}).eval()


def sample_images(count: int, height: int = 16, width: int = 16, *, seed: int = 0) -> Tensor:
    return drawn_images(count, height, width, seed=seed)


def made(generator: ILVRGenerator, images: Tensor, **arguments) -> Tensor:
    with torch.no_grad():
        return generator.manipulate(images, **arguments)


# --- phi ---------------------------------------------------------------------------------------------------------------------------


def test_one_colour_passes_and_fine_detail_doesnt():
    assert torch.allclose(low_pass(torch.full((1, 3, 32, 64), 0.3), 8), torch.full((1, 3, 32, 64), 0.3), atol=1e-6)
    wave = torch.cos(torch.pi * (torch.arange(64) + 0.5) / 1.5).expand(1, 3, 64, 64)
    assert low_pass(wave, 8)[..., 16:-16].abs().max() < 0.01


def test_inside_it_is_antialiased_bicubic_interpolation():
    """torch's has the same kernel, a = -1/2, when it antialiases; at the border it leaves out what lies beyond, where this mirrors."""
    images = sample_images(1, 64, 96)
    for size in ((16, 24), (128, 192), (32, 24)):
        ours, theirs = bicubic(images, size), F.interpolate(images, size, mode="bicubic", antialias=True)
        assert torch.allclose(ours[..., 4:-4, 4:-4], theirs[..., 4:-4, 4:-4], atol=1e-5) and not torch.allclose(ours, theirs, atol=1e-3)


def test_borders_are_mirrored():
    """So the filter of an image beside its mirror image is that of the image beside its mirror image."""
    images = sample_images(1, 32, 32)
    doubled = torch.cat([images, images.flip(3)], dim=3)
    for N in (2, 8, 16):
        assert torch.allclose(low_pass(doubled, N)[..., 16:32], low_pass(images, N)[..., 16:], atol=1e-5)


def test_the_refined_image_has_the_references_low_frequencies():
    x, reference = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), sample_images(1, 64, 64)
    y = refined(x, reference, 8)
    assert torch.allclose(y, x - low_pass(x, 8) + low_pass(reference, 8), atol=1e-5)
    assert torch.allclose(refined(x, x, 8), x) and torch.allclose(refined(x, reference, 1), reference, atol=1e-5)


# --- the sampler -------------------------------------------------------------------------------------------------------------------


def test_it_is_the_literal_loop():
    """Algorithm 1 as the authors' code has it, written out on the steps that the golden checks."""
    generator, images = tiny(range_t=1).double(), sample_images(2).double()
    diffusion, noise = Diffusion(5), Noise(7, images)
    with torch.no_grad():
        x = noise()
        for t in (4, 3, 2, 1, 0):
            x, _ = diffusion.reverse_step(x, t, generator(x, torch.full((2,), (0, 250, 500, 749, 999)[t])), noise())
            if t > 1:
                x = x - low_pass(x, 4) + low_pass(diffusion.noised(images, t, noise()), 4)
    assert torch.allclose(made(generator, images, seed=7), x)


def test_conditioned_throughout_at_N_1_it_is_the_image_but_for_the_last_noise():
    """phi_1 is the identity: each step's result is the noised reference, at t = 0 with a variance of 1e-4."""
    images = 0.9 * sample_images(2)
    output = made(tiny(N=1, range_t=-1), images)
    assert (output - images).abs().max() < 0.06 and (output - images).std().item() == pytest.approx(0.01, rel=0.1)


def test_unconditioned_it_doesnt_look_at_the_image():
    assert torch.equal(made(tiny(range_t=5), sample_images(2)), made(tiny(range_t=5), sample_images(2, seed=1)))


def test_a_fifth_of_the_steps_is_unconditioned_unless_said_otherwise():
    images = sample_images(1)
    assert torch.equal(made(tiny(steps=10), images), made(tiny(steps=10, range_t=2), images))
    assert not torch.equal(made(tiny(steps=10), images), made(tiny(steps=10, range_t=3), images))


@pytest.mark.parametrize("steps", [3, 6])
def test_the_user_sets_the_number_of_network_evaluations(steps):
    generator, times = tiny(steps=steps), []
    generator.time_embed.register_forward_hook(lambda *_: times.append(1))
    made(generator, sample_images(2))
    assert len(times) == steps


def test_a_seed_is_all_the_chance_there_is():
    generator, images = tiny(), sample_images(1).expand(3, -1, -1, -1)
    output = made(generator, images, seed=[1, 2, 1])
    assert torch.allclose(output[0], output[2], atol=1e-4) and not torch.allclose(output[0], output[1], atol=0.05)
    assert torch.allclose(made(generator, images[:1], seed=2), output[1:2], atol=1e-4)
    assert torch.equal(made(generator, images), made(generator, images, seed=0)) and torch.equal(
        made(tiny(seed=5), images), made(tiny(), images, seed=5)
    )


def test_training_mode_and_a_target_change_nothing():
    generator, images = tiny(), sample_images(2)
    assert torch.equal(made(generator.train(), images, target=torch.ones(2, 5)), made(generator.eval(), images))


def test_a_bar_is_shown_where_wanted(capsys):
    made(tiny(progress=True), sample_images(1))
    assert "ILVR" in capsys.readouterr().err
    made(tiny(), sample_images(1))
    assert capsys.readouterr().err == ""


# --- gradients ---------------------------------------------------------------------------------------------------------------------


def gradients(generator: ILVRGenerator) -> tuple[Tensor, Tensor | None, dict[str, Tensor | None]]:
    images = sample_images(2).requires_grad_(True)
    output = generator.manipulate(images)
    (output * sample_images(2, seed=3)).sum().backward()
    return output.detach(), images.grad, {name: parameter.grad for name, parameter in generator.named_parameters()}


def test_looking_and_learning_see_the_same_images():
    assert torch.allclose(gradients(tiny(gradient_steps=3))[0], made(tiny(), sample_images(2)), atol=1e-4)


def test_all_steps_are_the_default_and_fewer_shorten_the_way():
    _, image, weights = gradients(tiny())
    _, all_image, all_weights = gradients(tiny(gradient_steps=5))
    assert torch.allclose(image, all_image) and all(torch.allclose(weights[name], all_weights[name]) for name in weights)
    _, _, last = gradients(tiny(gradient_steps=1))
    assert all(value.abs().max() > 0 for value in last.values()) and not torch.allclose(
        last["out.2.weight"], weights["out.2.weight"], rtol=0.01
    )


def test_below_range_t_no_gradient_reaches_the_image():
    """range_t is 1 here: the image enters at t = 4, 3, 2."""
    assert gradients(tiny(gradient_steps=2))[1] is None
    assert gradients(tiny(gradient_steps=3))[1].abs().max() > 0


def test_the_gradient_is_right():
    """Against differences, in float64, through all steps. Away from the clip at ±1, which has a kink."""
    generator, direction = tiny(steps=3, range_t=0).double(), sample_images(1, seed=5).double()
    with torch.no_grad():
        for parameter in generator.out[2].parameters():
            parameter *= 0.05
    images = (0.2 * sample_images(1)).double().requires_grad_(True)

    def value(x: Tensor) -> Tensor:
        return (generator.manipulate(x) * sample_images(1, seed=3).double()).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    with torch.no_grad():
        difference = (value(images + 1e-5 * direction) - value(images - 1e-5 * direction)) / 2e-5
    assert gradient.abs().max() > 0 and (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-4)


# --- the rest ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        ({}, (2, 3, 31, 32), "ILVR's network: expected sides divisible by 2, got 31x32; resize"),
        ({"N": 8}, (2, 3, 36, 32), "ILVR at N = 8: expected sides divisible by 8, got 36x32"),
        ({}, (2, 1, 32, 32), r"images \(B, 3, H, W\), got \(2, 1, 32, 32\)"),
    ],
)
def test_wrong_shapes_are_refused(config, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny(**config).manipulate(torch.zeros(shape))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="N is the downsampling factor, 1 or more, got 0"):
        tiny(N=0)
    with pytest.raises(ValueError, match="2 to 1000 steps, got 1"):
        tiny(steps=1).manipulate(sample_images(1))
    with pytest.raises(ValueError, match="one for each of the 2 images, got 3"):
        tiny().manipulate(sample_images(2), seed=[1, 2, 3])


def test_the_sampler_works_in_any_published_size_of_image():
    """Sides need not be equal."""
    assert made(tiny(), sample_images(1, 16, 24)).shape == (1, 3, 16, 24)


@pytest.mark.slow
def test_the_published_size_samples():
    output = made(create_generator("ilvr", steps=2, N=32, progress=False), sample_images(1, 256, 256))
    assert output.shape == (1, 3, 256, 256) and output.isfinite().all() and output.abs().max() <= 1


class TestContract(GeneratorContract):
    name = "ilvr"
    config = SMALL
    size = (16, 16)
