"""Crops: their place on the original is found, and not where there is nothing to find."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from malp_disc.degradations import cropped, gaussian_blur, jpeg, resized, to_8bit
from malp_disc.keyed import KeyedConfig, KeyedMaLP, alignment
from malp_disc.keyed.alignment import Alignment, TurnedBack, _Correlator, _peak, find_alignment, grid_size, whitened_and_turned
from malp_disc.keyed.carrier import carrier, carrier_phases, on_circle
from malp_disc.keyed.identification import raised_threshold
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.looks import look
from malp_disc.keyed.template import which_set
from tests.keyed.conftest import natural_images


@pytest.fixture(scope="module")
def large() -> KeyedMaLP:
    return KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=b"k" * 32).eval()


def test_a_crop_is_found_where_it_was_cut(large):
    protected = to_8bit(large.encrypt(natural_images(1, 128, 128), torch.tensor([5]))[0])
    crop = cropped(protected, 0.75, (0.5, 1.0))  # 96 of 128 pixels, from row 16 and column 32
    found = large.identify(crop, range(8))
    assert found.protected and found.number == 5
    assert found.alignment.share == pytest.approx(0.75, rel=0.01)
    assert found.alignment.offset == pytest.approx((16, 32), abs=0.6)
    assert large(crop, 5, found.alignment).presence > 5 > large(crop, 5).presence


@pytest.mark.parametrize("corner", [(0, 1), (5, 4), (16, 31)])
def test_a_crop_is_found_wherever_the_sets_of_weights_alternate(large, corner):
    protected = to_8bit(large.encrypt(natural_images(1, 128, 128, seed=6), torch.tensor([3]))[0])
    found = large.identify(protected[:, :, corner[0] : corner[0] + 96, corner[1] : corner[1] + 96], range(6))
    assert found.protected and found.number == 3
    assert found.alignment.share == pytest.approx(0.75, abs=0.01) and found.alignment.offset == pytest.approx(corner, abs=0.7)


def test_a_crop_that_begins_above_and_left_of_its_original_has_negative_offsets(large):
    """As one whose corner was rounded, here by a row and two columns that are mirrored."""
    protected = large.encrypt(natural_images(1, 128, 128, seed=4), torch.tensor([3]))[0]
    found, _ = find_alignment(F.pad(protected, (2, 0, 1, 0), mode="reflect")[:, :, :116, :116], large.secret, (3,), 128, least_share=0.88)
    assert found.strength > 8 and found.offset == pytest.approx((-1, -2), abs=0.3)


def test_the_peak_between_pixels_is_that_of_the_parabola():
    assert _peak(*(1 - (x - 0.2) ** 2 for x in (-1, 0, 1))) == pytest.approx(0.2)


@pytest.mark.parametrize("change", [to_8bit, lambda x: jpeg(x, 75), lambda x: gaussian_blur(x, 1.0), lambda x: resized(x, (256, 256))], ids=["png", "jpeg", "blur", "double"])
def test_untouched_images_keep_their_alignment_exactly(large, change):
    for number, image in enumerate(change(large.encrypt(natural_images(4, 128, 128, seed=3), torch.arange(4))[0]).split(1)):
        found = large.identify(image, range(70))  # more than are correlated at once
        assert found.number == number and found.alignment == Alignment() and found.protected


def test_an_unprotected_image_has_none_of_the_templates(large):
    for image in natural_images(2, 128, 128, seed=8).split(1):
        found = large.identify(image, range(10))
        assert not found.protected and found.alignment == Alignment() and found.presence < 4


def test_the_more_templates_are_tried_the_more_of_one_has_to_be_there():
    assert raised_threshold(5.0, 1) == pytest.approx(5.0)
    assert [round(raised_threshold(5.0, count), 1) for count in (1000, 10**6)] == [6.2, 7.2]


def test_without_a_template_no_strength_is_believed():
    """In standard deviations, the correlation is a standard normal number at every place, so that its largest of all is as large as that of so many of them."""
    images = natural_images(6, 64, 64, seed=2)
    strengths = torch.tensor([find_alignment(image, b"k" * 32, range(40), 64)[0].strength for image in images.split(1)])
    assert (strengths > 3.5).all() and (strengths < raised_threshold(5.0, 40 * 50_000)).all()
    normal = torch.stack([_single(image) for image in images.split(1)])
    assert normal.mean().abs() < 0.15 and 0.9 < normal.std() < 1.1


def _single(image: torch.Tensor) -> torch.Tensor:
    """Correlations of one image with 200 templates, each at a single place, in standard deviations."""
    residual = whitened_and_turned(image, b"k" * 32, 64, 1.0).residual[0]
    products = (carrier(b"k" * 32, range(200), 64, (64, 64)) * residual).sum((1, 2, 3))
    return products / residual.square().sum().div(2).sqrt()


def test_what_resembles_an_original_is_found_by_less_of_its_template(large):
    image = natural_images(1, 128, 128, seed=4)
    protected, _ = large.encrypt(image, torch.tensor([2]))
    faint = image + 0.24 * (protected - image)
    assert 3.5 < large(faint, 2).presence < 5
    assert not large.identify(faint, range(5)).protected
    seen = look(image)[0]
    found = large.trace(faint, Issued(tuple(range(5)), looks={2: seen})).found
    assert found.protected and found.number == 2
    assert large.trace(protected, Issued(tuple(range(5)), looks={4: seen})).found.number == 2, "a likely template that isn't there hides no other"


def test_the_grid_has_the_aspect_of_the_image_and_the_area_of_the_training_size():
    assert grid_size(100, 400, 128, 1.0) == (64, 256)
    assert grid_size(100, 400, 128, 0.5) == (32, 128)


def test_one_image_is_identified_at_a_time_among_one_template_or_more(large):
    with pytest.raises(ValueError, match="one image to identify, got 2"):
        large.identify(torch.zeros(2, 3, 32, 32), range(3))
    with pytest.raises(ValueError, match="expected the numbers of the templates"):
        large.identify(torch.zeros(1, 3, 32, 32), [])


def test_a_large_image_is_scaled_down_once_and_its_crop_found_as_exactly(malp, monkeypatch):
    size = malp.config.image_size
    published = malp.encrypt(natural_images(1, 11 * size, 12 * size, seed=4), torch.tensor([3]))[0]
    crop = published[:, :, 2 * size : 11 * size, size : 10 * size]
    seen = []
    monkeypatch.setattr(alignment, "resampled", lambda images, sides, own=alignment.resampled: seen.append(images.shape[2]) or own(images, sides))
    found, number = find_alignment(crop, malp.secret, (2, 3), size)
    assert seen.count(crop.shape[2]) == 1 and number == 3
    monkeypatch.setattr(alignment, "_ENOUGH", 100)
    exact, _ = find_alignment(crop, malp.secret, (2, 3), size)
    assert found.share == exact.share and found.offset == pytest.approx(exact.offset, abs=0.02) and found.strength == pytest.approx(exact.strength, rel=0.02)


@pytest.mark.parametrize(("whole", "side"), [((32, 32), (32, 32)), ((32, 32), (27, 20)), ((23, 45), (22, 31)), ((20, 51), (15, 51))])
def test_a_template_is_correlated_at_every_offset_that_is_possible(whole, side):
    """The correlations of a sliding window, whatever the sides: those of the transform are even and odd here."""
    generator, numbers, size = torch.Generator().manual_seed(8), tuple(range(2, 59, 3)), 32  # more than are correlated at once
    part = TurnedBack(0.8, torch.randn(3, 2, *side, generator=generator), whole)
    pattern = on_circle(carrier_phases(bytes(32), numbers, size)[:, : whole[0] + 3, : whole[1] + 3])
    by_set = torch.cat([pattern * (which_set(tuple(pattern.shape[2:])) == k) for k in range(3)], 1)
    rows, columns = (max(length - own, 0) + 7 for length, own in zip(whole, side))  # from 3 pixels above to 3 below
    window = part.residual.flatten(0, 1)[None]
    canvas = F.pad(by_set, (3, 200, 3, 200))[:, :, : side[0] + rows - 1, : window.shape[3] + columns - 1]
    expected = F.conv2d(canvas, window)[:, 0]  # (N, rows, columns)
    which, row, column = (int(at) for at in torch.unravel_index(expected.argmax(), expected.shape))
    found, number = max(_Correlator([part], size).best(bytes(32), numbers), key=lambda one: one[0].strength)
    assert (number, found.share) == (numbers[which], 0.8) and abs(found.offset[0] - row + 3) <= 0.5 and abs(found.offset[1] - column + 3) <= 0.5
    assert found.strength == pytest.approx((expected.max() / (window[:, :2].square().sum() / 2).sqrt()).item(), rel=1e-4)
