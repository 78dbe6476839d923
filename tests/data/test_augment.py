from __future__ import annotations

import pytest
import torch

from malp_disc.data import dequantize, random_crop, random_flip
from malp_disc.data.augment import HALF_LEVEL


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_mirrored_where_its_coin_is_below_a_half():
    images, coins = uniform(6, 3, 2, 4), torch.tensor([0.0, 0.49, 0.5, 0.99, 0.2, 0.7])
    out = random_flip(images, coins)
    assert torch.equal(out[[0, 1, 4]], images[[0, 1, 4]].flip(-1))
    assert torch.equal(out[[2, 3, 5]], images[[2, 3, 5]])


def test_mirroring_is_left_to_right():
    images = torch.arange(8.0).reshape(1, 1, 2, 4)
    assert random_flip(images, torch.zeros(1)).flatten().tolist() == [3, 2, 1, 0, 7, 6, 5, 4]


def test_the_input_stays_as_it_was():
    images = uniform(16, 3, 4, 4, seed=1) * 2 - 1
    before = images.clone()
    random_flip(images, uniform(16)).zero_()
    dequantize(images, uniform(16, 3, 4, 4)).zero_()
    assert torch.equal(images, before)


def test_the_noise_is_uniform_over_one_level():
    """U(-a, a) has mean 0 and variance a²/3, and fills its range."""
    noise = dequantize(torch.zeros(64, 3, 32, 32), uniform(64, 3, 32, 32)) / HALF_LEVEL
    assert noise.abs().max() <= 1
    assert noise.max() > 0.999
    assert noise.min() < -0.999
    assert abs(noise.mean()) < 0.01
    assert abs(noise.square().mean() - 1 / 3) < 0.01


def test_rounding_to_8_bits_undoes_dequantisation():
    levels = torch.arange(256.0).repeat(4, 3, 8, 1)
    out = dequantize(levels / 127.5 - 1, uniform(*levels.shape))
    assert out.min() >= -1
    assert out.max() <= 1
    assert ((out + 1) * 127.5 - levels).abs().max() < 0.5 + 1e-4
    assert len(out.unique()) > 10_000


def test_a_crop_is_a_part_of_its_image_at_the_place_that_its_numbers_name():
    """An image whose values are its coordinates: 8×10 pixels leave 5 and 7 places for a side of 4."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")
    images = torch.stack([rows, columns, 100 * torch.ones(8, 10)]).expand(4, 3, 8, 10).clone()
    places = torch.tensor([[0.0, 0.0], [0.999999, 0.999999], [0.4, 0.5], [0.2, 0.15]])
    cropped = random_crop(images, 4, places)
    assert cropped[:, 0, 0, 0].tolist() == [0, 4, 2, 1] and cropped[:, 1, 0, 0].tolist() == [0, 6, 3, 1]
    assert cropped.shape == (4, 3, 4, 4) and cropped[1, :, -1, -1].tolist() == [7, 9, 100]
    assert torch.equal(random_crop(images[..., :8], 8, places), images[..., :8])
    cropped.zero_()
    assert images[0, 2].min() == 100, "a copy"


def test_every_place_of_a_crop_is_equally_likely():
    corners = random_crop(torch.arange(5.0).expand(20_000, 1, 2, 5), 2, uniform(20_000, 2))[:, 0, 0, 0]
    shares = corners.long().bincount() / len(corners)
    assert len(shares) == 4 and (shares - 1 / 4).abs().max() < 0.01


@pytest.mark.parametrize(("side", "shape", "message"), [(5, (2, 2), "between 1 and 4 pixels.*got 5"), (0, (2, 2), "got 0"), (2, (1, 2), r"\(2, 2\), got \(1, 2\)")])
def test_crops_that_cannot_be_are_refused(side, shape, message):
    with pytest.raises(ValueError, match=message):
        random_crop(torch.zeros(2, 3, 4, 6), side, torch.zeros(shape))


def test_the_dtype_is_kept():
    assert dequantize(torch.zeros(1, 3, 4, 4, dtype=torch.float64), uniform(1, 3, 4, 4)).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"shape \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "divide 8-bit values by 127.5"),
        (torch.full((1, 3, 4, 4), 255.0), "max 255"),
        (torch.full((1, 3, 4, 4), float("nan")), "nan"),
    ],
)
def test_what_is_no_image_batch_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        dequantize(images, torch.zeros(images.shape))


def test_random_numbers_of_another_shape_are_refused():
    """(1,) coins or (B, 1, 1, 1) noise would broadcast: one coin for all images, one shift for all pixels."""
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"one coin per image, \(2,\), got \(1,\)"):
        random_flip(images, torch.zeros(1))
    with pytest.raises(ValueError, match=r"got \(2, 1, 1, 1\)"):
        dequantize(images, torch.zeros(2, 1, 1, 1))
