from __future__ import annotations

import pytest
import torch

from malp_disc.data import dequantize, random_flip
from malp_disc.data.augment import HALF_LEVEL


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_picture_is_mirrored_or_left_whole_and_half_of_them_are():
    images = torch.randn(2000, 3, 2, 4, generator=seeded(1))
    out = random_flip(images, seeded())
    same = (out == images).flatten(1).all(1)
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert abs(mirrored.float().mean() - 0.5) < 0.05  # 4.5 standard errors


def test_mirroring_is_left_to_right():
    images = torch.arange(8.0).reshape(1, 1, 2, 4)
    seen = {tuple(random_flip(images, seeded(seed)).flatten().tolist()) for seed in range(20)}
    assert seen == {(0, 1, 2, 3, 4, 5, 6, 7), (3, 2, 1, 0, 7, 6, 5, 4)}


@pytest.mark.parametrize("change", [random_flip, dequantize])
def test_the_same_generator_state_gives_the_same_pictures(change):
    images = torch.rand(16, 3, 4, 4, generator=seeded(1)) * 2 - 1
    assert torch.equal(change(images, seeded(5)), change(images, seeded(5)))
    assert not torch.equal(change(images, seeded(5)), change(images, seeded(6)))


@pytest.mark.parametrize("change", [random_flip, dequantize])
def test_the_input_stays_as_it_was(change):
    images = torch.rand(16, 3, 4, 4, generator=seeded(1)) * 2 - 1
    before = images.clone()
    change(images, seeded())
    assert torch.equal(images, before)


def test_the_noise_is_uniform_over_one_level():
    """U(-a, a) has mean 0 and variance a²/3, and fills its range."""
    noise = dequantize(torch.zeros(64, 3, 32, 32), seeded()) / HALF_LEVEL
    assert noise.abs().max() <= 1
    assert noise.max() > 0.999
    assert noise.min() < -0.999
    assert abs(noise.mean()) < 0.01
    assert abs(noise.square().mean() - 1 / 3) < 0.01


def test_rounding_to_8_bits_undoes_dequantisation():
    levels = torch.arange(256.0).repeat(4, 3, 8, 1)
    out = dequantize(levels / 127.5 - 1, seeded())
    assert out.min() >= -1
    assert out.max() <= 1
    assert ((out + 1) * 127.5 - levels).abs().max() < 0.5 + 1e-4
    assert len(out.unique()) > 10_000


def test_the_dtype_is_kept():
    assert dequantize(torch.zeros(1, 3, 4, 4, dtype=torch.float64), seeded()).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"shape \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "divide 8-bit values by 127.5"),
        (torch.full((1, 3, 4, 4), 255.0), "max 255"),
        (torch.full((1, 3, 4, 4), float("nan")), "nan"),
    ],
)
def test_what_is_no_picture_batch_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        dequantize(images)
