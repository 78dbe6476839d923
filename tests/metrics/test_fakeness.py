"""The fakeness map, Eq. 5, by hand and by its gradient; the authors' signed variant."""

from __future__ import annotations

import pytest
import torch

from malp_disc.fakeness import fakeness_map, signed_fakeness_map_official


def levels(*rgb: float) -> torch.Tensor:
    """One pixel of 8-bit levels, as an image in [-1, 1]."""
    return torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1) / 127.5 - 1


def test_one_pixel_by_hand():
    """|50 − 80| = 30, |100 − 90| = 10, |200 − 0| = 200: grey 0.299·30 + 0.587·10 + 0.114·200 = 37.64, over 255."""
    assert fakeness_map(levels(50, 100, 200), levels(80, 90, 0)).item() == pytest.approx(37.64 / 255, rel=1e-5)


def test_black_to_white_is_one_and_no_change_is_exactly_zero():
    black, white = levels(0, 0, 0), levels(255, 255, 255)
    assert fakeness_map(black, white).item() == pytest.approx(1)
    assert fakeness_map(white, white).item() == 0


def test_a_change_of_colour_at_equal_grey_counts_in_eq_5_and_not_in_the_authors_code():
    """Red up by 587/299 green levels and green down: grey stays, so the signed map is 0; Eq. 5 takes |.| before grey."""
    before, after = levels(100, 100, 100), levels(100 + 58.7, 100 - 29.9, 100)
    assert signed_fakeness_map_official(before, after).item() == pytest.approx(0, abs=1e-6)
    assert fakeness_map(before, after).item() == pytest.approx(2 * 0.299 * 58.7 / 255, rel=1e-5)


def test_the_official_map_keeps_the_sign():
    dark, bright = levels(51, 51, 51), levels(102, 102, 102)
    assert signed_fakeness_map_official(dark, bright).item() == pytest.approx(0.4)  # 51 levels of 127.5
    assert signed_fakeness_map_official(bright, dark).item() == pytest.approx(-0.4)


def test_shapes_ranges_and_symmetry():
    images, fake = torch.rand(2, 2, 3, 5, 7) * 2 - 1
    result = fakeness_map(images, fake)
    assert result.shape == (2, 1, 5, 7)
    assert 0 <= result.min() and result.max() <= 1
    assert torch.equal(result, fakeness_map(fake, images))


def test_the_gradient_reaches_the_fake():
    """d/dfake = sign(fake − image) · weight · ½ per channel; 0 where nothing changed."""
    images = torch.zeros(1, 3, 1, 2)
    fake = torch.tensor([[[[0.5, 0.0]], [[-0.5, 0.0]], [[0.5, 0.0]]]], requires_grad=True)
    fakeness_map(images, fake).sum().backward()
    expected = torch.tensor([[[[0.299, 0.0]], [[-0.587, 0.0]], [[0.114, 0.0]]]]) / 2
    assert torch.allclose(fake.grad, expected)


@pytest.mark.parametrize(
    ("images", "fake", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), r"images of shape \(B, 3, H, W\), got \(2, 1, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8), "of one shape"),
        (torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 255.0), r"fake in \[-1, 1\], got min 255 max 255; divide by 127.5"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 3, 2, 2), "floating point"),
        (torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), torch.nan), "got min nan"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(images, fake, message):
    with pytest.raises(ValueError, match=message):
        fakeness_map(images, fake)
