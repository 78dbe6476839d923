"""Power spectra of images whose spectrum is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from malp_disc.metrics.spectrum import power_spectrum, radial_power, spectrum_ratio

SIZE = 64


def waves(across: float, down: float = 0, size: int = SIZE) -> torch.Tensor:
    """A cosine of so many cycles over the image, (1, 3, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (0.8 * torch.cos(2 * math.pi * (across * x + down * y) / size)).expand(1, 3, size, size).float()


def noise(count: int = 40, scale: float = 0.3) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize(("across", "down"), [(8, 0), (0, 20), (12, 16), (32, 0), (32, 32)])
def test_a_wave_has_its_power_at_its_frequency(across, down):
    """c cycles over 64 pixels are c / 32 of the Nyquist frequency, along the diagonal √(c² + d²) / 32."""
    frequency, power = radial_power(power_spectrum([waves(across, down)]))
    assert frequency[power.argmax()] == pytest.approx(math.hypot(across, down) / 32, abs=0.03)
    assert power.max() > 20 * np.median(power)


def test_white_noise_has_the_same_power_everywhere():
    _, power = radial_power(power_spectrum(noise().split(7)))
    assert power[2:-1] == pytest.approx(np.full(len(power) - 3, power[2:-1].mean()), rel=0.15)


def test_the_spectrum_is_the_mean_over_images_whatever_the_batches():
    images = noise(12)
    assert power_spectrum([images]) == pytest.approx(power_spectrum(images.split(5)), rel=1e-5)


def test_equal_images_have_a_ratio_of_one_and_half_the_contrast_a_quarter():
    """Power goes with the square of the contrast."""
    real = power_spectrum([noise()])
    same, half = spectrum_ratio(real, real), spectrum_ratio(power_spectrum([noise(scale=0.15)]), real)
    assert (same.fine, same.nyquist) == (1, 1)
    assert same.ratio == pytest.approx([1] * len(same.ratio))
    assert half.ratio == pytest.approx([0.25] * len(half.ratio), rel=0.05)


@pytest.mark.parametrize("board", [(SIZE // 2, SIZE // 2), (SIZE // 2, 0), (0, SIZE // 2)])
def test_a_faint_checkerboard_shows_at_nyquist_and_not_in_the_rest(board):
    real = noise()
    found = spectrum_ratio(power_spectrum([(real + 0.05 * waves(*board)).clamp(-1, 1)]), power_spectrum([real]))
    assert found.nyquist > 2
    middle = [ratio for f, ratio in zip(found.frequency, found.ratio) if f < 0.7]
    assert middle == pytest.approx([1] * len(middle), abs=0.05)


def test_a_blur_loses_fine_texture_only():
    real = noise()
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(real, (1, 1, 1, 1), mode="circular"), 3, 1)
    found = spectrum_ratio(power_spectrum([blurred]), power_spectrum([real]))
    assert found.fine < 0.1
    assert found.ratio[1] > 0.9


def test_a_bright_image_is_not_taken_for_a_low_frequency():
    """The mean is taken off, or the window would spread it over the lowest rings."""
    flat = torch.full((1, 3, SIZE, SIZE), 0.5)
    assert power_spectrum([flat]).max() < 1e-3 * power_spectrum([waves(1) * 0.01 + 0.5]).max()


def test_images_of_two_sizes_and_none_at_all_are_refused():
    with pytest.raises(ValueError, match=r"one size, got \(64, 64\) and \(32, 32\)"):
        power_spectrum([waves(4), waves(4, size=32)])
    with pytest.raises(ValueError, match="no images"):
        power_spectrum([])
    with pytest.raises(ValueError, match="images of one size"):
        spectrum_ratio(np.ones((8, 8)), np.ones((8, 9)))
