"""Degradations: none is none, what they do by mathematics, and that nothing depends on how images are batched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from malp_disc.degradations import (
    DEGRADATIONS,
    blurred,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    random_degradation,
    resize_down_up,
    to_8bit,
)

GREY = 2 / 255  # one grey level in [-1, 1]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth colours with texture, off the 8-bit grid, not square."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, 3, 4, 4, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (40, 48), mode="bicubic").clamp(-0.8, 0.8) + 0.2 * (torch.rand(5, 3, 40, 48, generator=generator) - 0.5)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def every_level() -> list:
    return [pytest.param(name, level, id=f"{name}-{text}") for name, d in DEGRADATIONS.items() for level, text in zip(d.levels, d.names)]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_the_first_level_is_the_image_in_8_bits_and_each_further_one_is_worse(name, images):
    degradation = DEGRADATIONS[name]
    errors = [(degradation(images, level, seeded()) - images).square().mean().item() for level in degradation.levels]
    assert torch.equal(degradation(images, degradation.levels[0], seeded()), to_8bit(images))
    assert errors == sorted(set(errors))
    assert errors[-1] > 100 * errors[0]
    assert len(degradation.names) == len(degradation.levels)
    assert degradation.names[0] == "none"


@pytest.mark.parametrize(("name", "level"), every_level())
def test_what_arrives_is_8_bit_of_the_same_shape_and_the_input_is_left_alone(name, level, images):
    before = images.clone()
    arrived = DEGRADATIONS[name](images, level, seeded())
    assert torch.equal(images, before)
    assert arrived.shape == images.shape
    assert arrived.abs().max() <= 1
    levels = (arrived + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-4


@pytest.mark.parametrize(("name", "level"), every_level())
def test_batches_of_any_size_give_the_same(name, level, images):
    whole, parts = seeded(), seeded()
    together = DEGRADATIONS[name](images, level, whole)
    assert torch.equal(together, torch.cat([DEGRADATIONS[name](part, level, parts) for part in images.split([1, 3, 1])]))
    assert torch.equal(whole.get_state(), parts.get_state())


@pytest.mark.parametrize(("name", "level"), every_level())
def test_no_images_stay_no_images(name, level):
    assert DEGRADATIONS[name](torch.zeros(0, 3, 32, 32), level, seeded()).shape == (0, 3, 32, 32)


def test_8_bits_round_to_the_nearest_level(images):
    arrived = to_8bit(images)
    assert (arrived - images).abs().max() <= GREY / 2 + 1e-6
    assert torch.equal(to_8bit(arrived), arrived)


@pytest.mark.parametrize("sigma", [0.5, 1, 3])
def test_a_blurred_constant_is_the_constant(sigma):
    constant = to_8bit(torch.tensor([-1, 0.2, 1.0]).view(1, 3, 1, 1).expand(2, 3, 20, 20))
    assert torch.equal(gaussian_blur(constant, sigma), constant)


def test_blur_leaves_of_white_noise_the_variance_of_a_gaussian_kernel():
    """Σ k² = 1 / (4πσ²) for a Gaussian kernel of σ ≥ 1 in two dimensions."""
    noise = torch.randn(8, 1, 100, 100, generator=seeded())
    for sigma in (1, 2):
        inner = blurred(noise, sigma)[..., 10:-10, 10:-10]
        assert inner.var().item() == pytest.approx(1 / (4 * math.pi * sigma**2), rel=0.05)


@pytest.mark.parametrize("sigma", [2, 10])
def test_noise_has_the_deviation_it_says_in_grey_levels(sigma):
    """Rounding adds a uniform ±½ level: variance σ² + 1/12."""
    noise = (gaussian_noise(torch.zeros(4, 3, 64, 64), sigma, seeded()) + GREY / 4) * 127.5  # zero lies between two levels
    assert noise.std().item() == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.5)
    flat = noise.flatten(1)
    assert np.abs(np.corrcoef(flat.numpy()) - np.eye(4)).max() < 0.04  # each image has its own


def test_noise_is_drawn_from_its_generator(images):
    assert torch.equal(gaussian_noise(images, 5, seeded()), gaussian_noise(images, 5, seeded()))
    assert not torch.equal(gaussian_noise(images, 5, seeded()), gaussian_noise(images, 5, torch.Generator().manual_seed(4)))


def test_jpeg_halves_the_resolution_of_colour_but_not_of_brightness():
    """Columns of one pixel, at the best quality: grey ones survive, blue and yellow ones of equal brightness run together."""
    stripes = (torch.arange(32) % 2 * 2 - 1).float().view(1, 1, 1, 32).expand(1, 3, 32, 32)
    grey = 0.3 * stripes
    colour = stripes * torch.tensor([0.114, 0.114, -0.886]).view(1, 3, 1, 1)  # 0.299 R + 0.587 G + 0.114 B = 0
    kept = [jpeg(image, 100).diff(dim=3).abs().mean() / image.diff(dim=3).abs().mean() for image in (grey, colour)]
    assert kept[0] > 0.95
    assert kept[1] < 0.1


def test_resizing_keeps_what_is_smooth_and_loses_what_is_fine():
    ramp = torch.linspace(-0.9, 0.9, 48).view(1, 1, 1, 48).expand(1, 3, 48, 48)
    stripes = (torch.arange(48) % 2 * 2 - 1).float().view(1, 1, 1, 48).expand(1, 3, 48, 48)
    assert (resize_down_up(ramp, 2) - ramp)[..., 2:-2].abs().max() < 2 * GREY
    assert resize_down_up(stripes, 3)[..., 6:-6].abs().max() < 0.15  # 1/9 by a triangle five pixels wide; 1 if every third pixel were taken


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: jpeg(x, 0), "quality of 1 … 100"),
        (lambda x: jpeg(x, 101), "quality of 1 … 100"),
        (lambda x: jpeg(x, 85.5), "whole number, or None for no JPEG, got 85.5"),
        (lambda x: jpeg(x, True), "quality of 1 … 100"),
        (lambda x: gaussian_blur(x, -1), "sigma of 0 or more pixels, got -1"),
        (lambda x: gaussian_blur(x, math.nan), "sigma of 0 or more pixels, got nan"),
        (lambda x: gaussian_blur(x, 20), r"too large for images of \(16, 16\)"),
        (lambda x: gaussian_noise(x, -0.1), "sigma of 0 or more grey levels, got -0.1"),
        (lambda x: gaussian_noise(x, math.inf), "sigma of 0 or more grey levels"),
        (lambda x: resize_down_up(x, 0.5), "factor of 1 … 16 for images of 16x16, got 0.5"),
        (lambda x: resize_down_up(x, 17), "factor of 1 … 16"),
        (lambda x: resize_down_up(x, math.nan), "factor of 1 … 16"),
        (lambda x: to_8bit(x * 255 + 127), r"expected images in \[-1, 1\]"),
    ],
)
def test_levels_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.full((1, 3, 16, 16), 0.3))


def test_random_numbers_choose_kind_and_level_and_the_same_numbers_the_same_image():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    for place, expected in enumerate([jpeg(images, 72), gaussian_blur(images, 0.5), None, resize_down_up(images, 1.5)]):
        sent = random_degradation([place / 4 + 0.1, 0.5, 0.3])(images)
        assert torch.equal(sent, random_degradation([place / 4 + 0.1, 0.5, 0.3])(images))
        if expected is None:  # noise
            assert (sent - images).std().item() * 127.5 == pytest.approx(5, rel=0.1)
            assert not torch.equal(sent, random_degradation([place / 4 + 0.1, 0.5, 0.4])(images))
        else:
            assert torch.equal(sent, expected)
