"""Crops: their place on the original is found, and not where there is nothing to find."""

from __future__ import annotations

import pytest
import torch

from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.alignment import Alignment, grid_size
from malp_disc.keyed.malp import BELIEVED
from malp_disc.metrics.degradations import cropped, gaussian_blur, jpeg, resized, to_8bit
from tests.keyed.conftest import natural_images


@pytest.fixture(scope="module")
def large() -> KeyedMaLP:
    return KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=b"k" * 32).eval()


def test_a_crop_is_found_where_it_was_cut(large):
    protected = to_8bit(large.encrypt(natural_images(1, 128, 128))[0])
    crop = cropped(protected, 0.75, (0.5, 1.0))  # 96 of 128 pixels, from row 16 and column 32
    found = large.align(crop)
    assert found.strength > BELIEVED
    assert found.share == pytest.approx(0.75, rel=0.01)
    assert found.offset == pytest.approx((16, 32), abs=0.6)
    assert large(crop, found).presence > 5 > large(crop).presence


@pytest.mark.parametrize("change", [to_8bit, lambda x: jpeg(x, 75), lambda x: gaussian_blur(x, 1.0), lambda x: resized(x, (256, 256))], ids=["png", "jpeg", "blur", "double"])
def test_untouched_images_keep_their_alignment_exactly(large, change):
    for image in change(large.encrypt(natural_images(4, 128, 128, seed=3))[0]).split(1):
        assert large.align(image) == Alignment()


def test_a_whole_image_is_taken_as_it_is_and_an_unprotected_one_gets_no_alignment(large):
    images = natural_images(1, 128, 128, seed=8)
    assert large.align(large.encrypt(images)[0]) == Alignment()
    assert large.align(images) == Alignment()


def test_the_grid_has_the_aspect_of_the_image_and_the_area_of_the_training_size():
    assert grid_size(100, 400, 128, 1.0) == (64, 256)
    assert grid_size(100, 400, 128, 0.5) == (32, 128)


def test_only_one_image_is_aligned_at_a_time(large):
    with pytest.raises(ValueError, match="one image to align, got 2"):
        large.align(torch.zeros(2, 3, 32, 32))
