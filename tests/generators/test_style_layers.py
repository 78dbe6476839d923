"""What the StyleGANs share, by identities: one fused step is the two that it replaces, a style sets mean and deviation, weights keep the variance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.style_layers import Blur, equalised, fixed_noise, pixel_norm, spread, stylise


def test_a_spread_kernel_enlarges_and_convolves_in_one_step():
    """Repeating every pixel, then w, is a transposed convolution with w turned round and spread."""
    x, weight = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    fused = F.conv_transpose2d(x, spread(weight), stride=2, padding=1)
    in_two = F.conv2d(F.interpolate(x, scale_factor=2), weight.flip(2, 3).transpose(0, 1), padding=1)
    assert torch.allclose(fused, in_two)


def test_a_quarter_of_it_convolves_and_halves_in_one_step():
    x, weight = torch.randn(2, 3, 6, 8, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    fused = F.conv2d(x, spread(weight) / 4, stride=2, padding=1)
    assert torch.allclose(fused, F.avg_pool2d(F.conv2d(x, weight, padding=1), 2))


def test_blur_is_binomial_and_keeps_every_channel_to_itself():
    blur, x = Blur(2, "weight", "weight_flip"), torch.zeros(1, 2, 5, 5)
    x[0, 1, 2, 2] = 16
    expected = torch.zeros(1, 2, 5, 5)
    expected[0, 1, 1:4, 1:4] = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert torch.equal(blur(x), expected)
    assert {key: tuple(value.shape) for key, value in blur.state_dict().items()} == {"weight": (2, 1, 3, 3), "weight_flip": (2, 1, 3, 3)}
    assert list(blur.parameters()) == []


def test_a_style_gives_every_map_its_deviation_and_mean():
    scale, shift = torch.tensor([[2.0, -3.0]]), torch.tensor([[0.5, 1.0]])
    y = stylise(7 + 5 * torch.randn(1, 2, 32, 32), scale, shift)
    assert torch.allclose(y.mean(dim=(2, 3)), shift, atol=1e-4)
    assert torch.allclose(y.std(dim=(2, 3), correction=0), scale.abs(), atol=1e-3)


def test_equalised_weights_keep_the_variance_of_what_a_rectifier_halves():
    """E[relu(x)²] = 1/2 for x ~ N(0, 1), hence the gain √2."""
    torch.manual_seed(0)
    x = F.linear(torch.randn(4000, 256).relu(), equalised(torch.randn(256, 256)))
    assert x.var() == pytest.approx(1, rel=0.05)
    assert torch.allclose(equalised(torch.ones(2, 3, 5, 5), 1.0), torch.full((2, 3, 5, 5), 75**-0.5))


def test_pixel_norm_puts_a_code_on_the_sphere():
    assert torch.allclose(pixel_norm(5 * torch.randn(4, 64)).norm(dim=1), torch.full((4,), 8.0))


def test_fixed_noise_is_fixed_and_differs_by_place():
    like = torch.zeros(1, dtype=torch.float64)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = fixed_noise(0, 8, 8, like), fixed_noise(0, 8, 8, like), fixed_noise(1, 8, 8, like)
    assert torch.equal(first, again) and not torch.equal(first, other) and first.dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers are touched"
