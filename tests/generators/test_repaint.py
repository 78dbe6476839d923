"""RePaint: the walk through the times, and what its sampler makes of image, mask and seed. Its schedules and one step are a golden."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.diffusion_steps import Diffusion, Noise
from generators.repaint import RePaintGenerator, centre_square, jump_schedule, with_known
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images as drawn_images

SMALL = {
    "image_size": 32,
    "num_channels": 32,
    "channel_mult": (1, 1),
    "num_res_blocks": 1,
    "attention_resolutions": (16,),
    "num_head_channels": 16,
}
SMALL |= {"steps": 4, "jump_length": 2, "jump_n_sample": 2, "progress": False}


def tiny(**config) -> RePaintGenerator:
    torch.manual_seed(0)
    return RePaintGenerator(**{**SMALL, **config}).eval()


def sample_images(count: int, height: int = 16, width: int = 16, *, seed: int = 0) -> Tensor:
    return drawn_images(count, height, width, seed=seed)


def made(generator: RePaintGenerator, images: Tensor, target: Tensor | None = None, **arguments) -> Tensor:
    with torch.no_grad():
        return generator.manipulate(images, target, **arguments)


def left_half(count: int) -> Tensor:
    """Known on the left, to be repainted on the right."""
    mask = torch.ones(count, 1, 16, 16)
    mask[..., 8:] = 0
    return mask


# --- the walk ----------------------------------------------------------------------------------------------------------------------


def test_the_papers_walk_is_the_default():
    times = jump_schedule(250)
    down = sum(after < before for before, after in itertools.pairwise(times))
    assert (len(times), down, len(times) - 1 - down) == (4571, 2410, 2160)


def test_without_jumps_the_walk_is_a_countdown():
    assert jump_schedule(5, jumps=()) == jump_schedule(5, jumps=((2, 1),)) == jump_schedule(5) == [4, 3, 2, 1, 0, -1]


def test_a_small_walk_by_hand():
    """Two times through each stretch of 2: 0 1 | 2 3 | 4."""
    assert jump_schedule(5, jumps=((2, 2),)) == [4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0, -1]
    assert jump_schedule(5, jumps=((2, 2),), start=3) == [4, 3, 2, 1, 0, 1, 2, 1, 0, -1]
    assert jump_schedule(3, n_sample=2, jumps=()) == [2, 1, 0, 1, 0, -1]


def test_inner_jumps_start_anew_after_an_outer_one():
    """Each step is walked twice, each stretch of 2 as well: the first line ends with the outer jump back to 4."""
    assert jump_schedule(5, jumps=((2, 2), (1, 1))) == jump_schedule(5, jumps=((2, 2),))
    expected = [4, 3, 4, 3, 2, 3, 2, 3, 4]
    expected += [3, 4, 3, 2, 3, 2, 1, 2, 1, 0, 1, 0, 1, 2]
    expected += [1, 2, 1, 0, 1, 0, -1]
    assert jump_schedule(5, jumps=((2, 2), (1, 2))) == expected


@pytest.mark.parametrize("jumps", [((10, 10),), ((7, 3),), ((6, 2), (3, 2)), ((12, 2), (6, 2), (2, 3))])
def test_every_step_is_one_time_up_or_down_and_the_last_is_out(jumps):
    times = jump_schedule(40, jumps=jumps)
    assert all(abs(before - after) == 1 for before, after in itertools.pairwise(times))
    assert times[0] == max(times) == 39 and times[-1] == -1 == min(times) and times.count(-1) == 1


@pytest.mark.parametrize("jumps", [((0, 2),), ((2, 0),)])
def test_impossible_jumps_are_refused(jumps):
    with pytest.raises(ValueError, match="jumps are of 1 step and more"):
        jump_schedule(10, jumps=jumps)


# --- the sampler -------------------------------------------------------------------------------------------------------------------


def test_it_is_the_literal_loop():
    """Written out on the steps that the golden checks: known pixels go into every reverse step but the first."""
    generator, images, mask = tiny(paste=False).double(), sample_images(2).double(), left_half(2).double()
    diffusion, noise = Diffusion(4), Noise(7, images)
    with torch.no_grad():
        x, first = noise(), True
        for before, after in itertools.pairwise([3, 2, 1, 0, 1, 2, 1, 0, -1]):
            if after > before:
                x = diffusion.forward_step(x, before + 1, noise())
                continue
            reverse_noise = noise()
            if not first:
                x = mask * diffusion.noised(images, before, noise()) + (1 - mask) * x
            first = False
            x, _ = diffusion.reverse_step(x, before, generator(x, torch.full((2,), (0, 333, 666, 999)[before])), reverse_noise)
    assert torch.allclose(made(generator, images, mask, seed=7), x.clamp(-1, 1))


def test_known_pixels_come_out_as_they_went_in():
    images, mask = sample_images(2), left_half(2)
    output = made(tiny(), images, mask)
    assert torch.equal(output[..., :8], images[..., :8]) and (output - images)[..., 8:].abs().mean() > 0.1
    as_published = made(tiny(paste=False), images, mask)
    assert torch.equal(as_published[..., 8:], output[..., 8:]) and not torch.equal(as_published[..., :8], images[..., :8])


def test_all_known_is_the_image_and_nothing_known_is_independent_of_it():
    images, others, ones = sample_images(2), sample_images(2, seed=1), torch.ones(2, 1, 16, 16)
    assert torch.equal(made(tiny(), images, ones), images)
    assert torch.equal(made(tiny(), images, 0 * ones), made(tiny(), others, 0 * ones))


def test_what_is_repainted_knows_what_is_known_and_not_what_is_lost():
    images, mask = sample_images(1), left_half(1)
    output = made(tiny(), images, mask)
    other_left, other_right = images.clone(), images.clone()
    other_left[..., :8] *= -1
    other_right[..., 8:] *= -1
    assert not torch.allclose(made(tiny(), other_left, mask)[..., 8:], output[..., 8:], atol=1e-2)
    assert torch.equal(made(tiny(), other_right, mask), output)


def test_without_a_mask_the_centre_square_is_repainted():
    images = sample_images(2)
    output, expected = made(tiny(), images), torch.ones(2, 1, 16, 16)
    expected[..., 4:12, 4:12] = 0
    assert torch.equal(centre_square(images), expected) and torch.equal(output, made(tiny(), images, expected))
    changed = (output != images).any(1, keepdim=True)
    assert changed[..., 4:12, 4:12].float().mean() > 0.9 and not changed[expected.bool()].any()
    assert (centre_square(torch.zeros(1, 3, 64, 32)) == 0).float().mean() == 0.25


def test_masks_may_be_booleans_and_differ_from_image_to_image():
    images, mask = sample_images(2), torch.cat([left_half(1), left_half(1).flip(3)])
    output = made(tiny(), images, mask)
    assert torch.equal(made(tiny(), images, mask.bool()), output) and torch.equal(made(tiny(), images, mask.long()), output)
    assert torch.allclose(made(tiny(), images[1:], mask[1:]), output[1:], atol=1e-4)


def test_known_pixels_take_their_place():
    x, known, mask = sample_images(1), sample_images(1, seed=1), left_half(1)
    assert torch.equal(with_known(x, mask, known), torch.cat([known[..., :8], x[..., 8:]], dim=3))


@pytest.mark.parametrize(("config", "evaluations"), [({"steps": 7, "jump_n_sample": 1}, 7), ({}, 6), ({"start_resampling": 1}, 4)])
def test_the_user_sets_the_number_of_network_evaluations(config, evaluations):
    generator, times = tiny(**config), []
    generator.time_embed.register_forward_hook(lambda *_: times.append(1))
    made(generator, sample_images(2))
    assert len(times) == evaluations


def test_a_seed_is_all_the_chance_there_is():
    generator, images = tiny(), sample_images(1).expand(3, -1, -1, -1)
    output = made(generator, images, seed=[1, 2, 1])
    assert torch.allclose(output[0], output[2], atol=1e-4) and (output[0] - output[1]).abs().max() > 0.05
    assert torch.allclose(made(generator, images[:1], seed=2), output[1:2], atol=1e-4)
    assert torch.equal(made(generator, images), made(generator, images, seed=0)) and torch.equal(
        made(tiny(seed=5), images), made(tiny(), images, seed=5)
    )


def test_a_bar_is_shown_where_wanted(capsys):
    made(tiny(progress=True), sample_images(1))
    assert "RePaint" in capsys.readouterr().err
    made(tiny(), sample_images(1))
    assert capsys.readouterr().err == ""


# --- gradients ---------------------------------------------------------------------------------------------------------------------


def gradients(generator: RePaintGenerator) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    images = sample_images(2).requires_grad_(True)
    output = generator.manipulate(images, left_half(2))
    (output * sample_images(2, seed=3)).sum().backward()
    return output.detach(), images.grad, {name: parameter.grad for name, parameter in generator.named_parameters()}


def test_known_pixels_get_a_gradient_and_lost_ones_none():
    for config in ({"paste": False}, {"gradient_steps": 1}):
        image = gradients(tiny(**config))[1]
        assert (image[..., :8] != 0).all() and not image[..., 8:].any(), config


def test_looking_and_learning_see_the_same_images():
    assert torch.allclose(gradients(tiny(gradient_steps=3))[0], made(tiny(), sample_images(2), left_half(2)), atol=1e-4)


def test_all_evaluations_are_the_default_and_fewer_shorten_the_way():
    weights, every, last = (gradients(tiny(gradient_steps=steps))[2] for steps in (None, 6, 1))
    assert all(torch.allclose(weights[name], every[name]) for name in weights)
    assert all(value.abs().max() > 0 for value in last.values()) and not torch.allclose(
        last["out.2.weight"], weights["out.2.weight"], rtol=0.01
    )


# --- the rest ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((2, 3, 31, 32), None, "sides divisible by 2, got 31x32"),
        ((2, 4, 32, 32), None, r"images \(B, 3, H, W\), got \(2, 4, 32, 32\)"),
        ((2, 3, 32, 32), torch.ones(2, 32, 32), r"mask \(2, 1, 32, 32\), 1 where the image is kept, got \(2, 32, 32\)"),
        ((2, 3, 32, 32), torch.ones(1, 1, 32, 32), r"mask \(2, 1, 32, 32\).*got \(1, 1, 32, 32\)"),
        ((2, 3, 32, 32), 255 * torch.ones(2, 1, 32, 32), r"mask in \[0, 1\].*got min 255 max 255"),
        ((2, 3, 32, 32), torch.full((2, 1, 32, 32), -1.0), r"mask in \[0, 1\].*got min -1 max -1"),
        ((2, 3, 32, 32), torch.full((2, 1, 32, 32), torch.nan), r"mask in \[0, 1\].*got min nan"),
    ],
)
def test_wrong_input_is_refused(shape, target, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(torch.zeros(shape), target)


@pytest.mark.slow
def test_the_published_size_samples():
    output = made(create_generator("repaint", steps=2, jump_n_sample=1, progress=False), sample_images(1, 256, 256))
    assert output.shape == (1, 3, 256, 256) and output.isfinite().all() and output.abs().max() <= 1


class TestContract(GeneratorContract):
    name = "repaint"
    config = SMALL
    size = (16, 16)


class TestContractMask(TestContract):
    def target(self, count: int) -> Tensor:
        return torch.cat([left_half(1), left_half(1).flip(3), left_half(1).flip(3)])[:count]
