"""What a repost does to a whole image, tone, mirroring and stretching, is recognised and undone; regions that were edited besides are seen as before, and nothing is found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.degradations import cropped, jpeg, to_8bit
from malp_disc.evaluation.survival import FAINT, TONES
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.alignment import Alignment
from malp_disc.keyed.evidence import evidence
from malp_disc.keyed.identification import LIKELY_ABOVE, raised_threshold
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.looks import look
from malp_disc.keyed.template import level_weights
from malp_disc.keyed.tone import TRIED, Tone, _coarse_correlations, _correlation, _presence_and_gradient, describe_tone, find_tone
from malp_disc.keyed.trace import _ways, trace
from tests.keyed.conftest import natural_images

KEY = b"k" * 32


@pytest.fixture(scope="module")
def large() -> KeyedMaLP:
    return KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=KEY).eval()


@pytest.fixture(scope="module")
def originals() -> Tensor:
    return natural_images(4, 128, 128, seed=11)


@pytest.fixture(scope="module")
def published(large, originals) -> Tensor:
    return to_8bit(large.encrypt(originals, torch.arange(4))[0])


@pytest.fixture(scope="module")
def issued(originals) -> Issued:
    return Issued(tuple(range(4)), looks=dict(enumerate(look(originals))), shapes={number: (128, 128) for number in range(4)})


def presence(images: Tensor, number: int) -> float:
    return evidence(images, KEY, (number,), 128).presence.item()


CHANGES = {name: TONES[name] for name in ("20 levels brighter", "gamma 0.8", "gamma 1.25", "red 10 % stronger, blue 10 % weaker")} | {
    "45 levels darker": lambda images: images - 45 / 127.5,
    "0.4 times the contrast": lambda images: 0.4 * images,
}


@pytest.fixture(scope="module")
def levels_and_sums() -> tuple[np.ndarray, np.ndarray]:
    """Seven levels, and what two templates leave there by each set of weights."""
    drawn = np.random.default_rng(5)
    return drawn.uniform(-0.9, 0.9, (7, 3)), drawn.normal(size=(2, 7, 3)) + 1j * drawn.normal(size=(2, 7, 3))


def test_the_gradient_of_a_tone_is_that_of_its_presence(levels_and_sums):
    levels, sums = levels_and_sums
    weights = level_weights(KEY).double().numpy()
    tone = np.array([0.12, -0.3, 0.2, 0.25, -0.1, 0.05])
    value, gradient = _presence_and_gradient(tone, levels, sums[1], weights)
    higher, lower = (_correlation(tone + step * np.eye(6), levels, sums[1:], weights)[:, 0] for step in (1e-6, -1e-6))
    assert value == pytest.approx(_correlation(tone[None], levels, sums[1:], weights).item())
    assert gradient == pytest.approx((higher - lower) / 2e-6, rel=1e-6)


def test_coarse_tones_have_the_presence_of_each_of_them(levels_and_sums):
    weights = level_weights(KEY).double().numpy()
    tones, reached = _coarse_correlations(*levels_and_sums, weights)
    assert len(np.unique(tones, axis=0)) == len(tones) == 2970
    assert reached[::97] == pytest.approx(_correlation(tones[::97], *levels_and_sums, weights))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_tone_is_undone(name, large, published, issued):
    for number, image in enumerate(published[:2].split(1)):
        seen = to_8bit(CHANGES[name](image).clamp(-1, 1))
        found = large.trace(seen, issued)
        assert found.found.protected and found.found.number == number and found.found.alignment == Alignment() and found.tone != Tone()
        assert found.found.presence == pytest.approx(presence(found.image, number)) and found.found.presence > 0.75 * presence(image, number)
        assert not found.mirrored and found.stretched == 1
        assert (found.image - image).abs().mean() < 0.35 * (seen - image).abs().mean()


@pytest.mark.parametrize("brighter", [0.0, 0.2])
def test_a_strong_loss_of_contrast_is_undone_in_images_with_dark_and_light_halves(brighter, large):
    """Levels that lie far apart turn by angles that are far apart: the tones to start from, and the levels that are put together, have to be near enough."""
    half = (20 * torch.linspace(-0.8, 0.8, 128) + torch.linspace(-5, 5, 128)[:, None]).tanh()
    images = (0.5 * natural_images(4, 128, 128, seed=11) + 0.6 * half).clamp(-0.95, 0.95)
    for number, image in enumerate(large.encrypt(images, torch.arange(4))[0].split(1)):
        seen = to_8bit(0.4 * image + brighter)
        _, tone = find_tone(seen, KEY, (number,), 128)
        assert presence(tone.undone(seen), number) > 0.9 * presence((seen - brighter) / 0.4, number)


def test_an_image_as_it_was_published_keeps_its_tone(large, published, issued):
    for number, image in enumerate(published.split(1)):
        for seen in (image, to_8bit(jpeg(image, 75))):
            found = large.trace(seen, issued)
            assert found.found.number == number and found.tone == Tone() and torch.equal(found.image, seen)


def test_a_changed_region_is_no_change_of_tone(large, published, issued):
    """Of a region of a quarter of the image, the rest's tone counts: it is the same as before, so that the region is seen."""
    region = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    region[..., 30:94, 30:94] = True
    for name in ("red and blue exchanged", "20 levels brighter", "half the contrast"):
        for image in published.split(1):
            assert large.trace(to_8bit(torch.where(region, FAINT[name](image), image).clamp(-1, 1)), issued).tone == Tone(), name


def test_a_region_that_stayed_as_it_was_in_a_brighter_image_differs(large, published, issued):
    image = published[:1]
    kept = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    kept[..., :40, :40] = True
    found = large.trace(to_8bit(torch.where(kept, image, image + 0.25).clamp(-1, 1)), issued)
    assert found.found.protected and found.tone.brightness == pytest.approx(-0.25, abs=0.06)
    difference = (found.image - image).mean((0, 1))
    assert difference[:40, :40].mean() < -0.18 and difference[45:, 45:].abs().mean() < 0.05


def test_what_an_edit_left_of_a_template_gets_no_other_tone(large, originals, published, issued):
    """Though half of the template would be enough for an image of that tone, and for a trained eye."""
    for left, expected in ((0.5, False), (1.0, True)):
        seen = (originals[:1] + left * (published[:1] - originals[:1]) + 0.25).clamp(-1, 1)
        number, tone = find_tone(seen, KEY, (0,), 128)
        assert number == 0 and presence(tone.undone(seen), 0) > raised_threshold(LIKELY_ABOVE, TRIED)
        found = large.trace(seen, issued)
        assert found.found.protected is expected and (found.tone != Tone()) is expected


def test_a_crop_of_a_slightly_brighter_image_is_found_as_it_is(large, published, issued):
    crop = to_8bit((cropped(published[1:2], 0.75, (0.5, 1.0)) + 14 / 127.5).clamp(-1, 1))
    found = large.trace(crop, issued)
    assert found.found.protected and found.found.number == 1 and found.found.alignment.share == pytest.approx(0.75, rel=0.01)
    assert found.tone == Tone() and torch.equal(found.image, crop)


def test_without_a_template_no_tone_reaches_the_presence_that_counts():
    images = natural_images(30, 128, 128, seed=2)
    reached = []
    for number, image in enumerate(images.split(1)):
        _, tone = find_tone(image, KEY, (number,), 128)
        reached.append(presence(tone.undone(image), number))
    assert max(reached) < raised_threshold(LIKELY_ABOVE, TRIED) and 5.5 < raised_threshold(LIKELY_ABOVE, TRIED) < 6


@pytest.mark.parametrize("brighter", [0.0, 0.3], ids=["", "brighter"])
def test_a_mirrored_image_is_found_and_its_map_mirrored_back(brighter, large, published, issued):
    seen = to_8bit((published[2:3].flip(3) + brighter).clamp(-1, 1))
    found = large.trace(seen, issued)
    assert found.mirrored and found.found.protected and found.found.number == found.resembles == 2
    assert (found.tone != Tone()) == bool(brighter)
    left = torch.zeros(1, 1, 128, 128)
    left[..., :20] = 1
    assert found.as_given(left, (128, 128))[..., -20:].min() == 1 and found.as_given(left, (128, 128)).sum() == left.sum()


@pytest.mark.parametrize("size", [(128, 100), (96, 128), (120, 128)])
def test_a_stretched_image_is_found_by_the_shape_of_its_original(size, large, published, issued):
    seen = to_8bit(F.interpolate(published[3:4], size, mode="bilinear", antialias=True, align_corners=False))
    found = large.trace(seen, issued)
    assert found.found.protected and found.found.number == 3
    assert found.stretched == pytest.approx(size[1] / size[0], rel=0.01)
    assert found.found.presence > 0.5 * presence(published[3:4], 3)
    assert found.as_given(torch.ones(1, 1, *found.image.shape[2:]), size).shape[2:] == size
    unknown = Issued(issued.numbers, looks=issued.looks)
    assert large.trace(seen, unknown).stretched == 1, "of lists of former versions, which have no shapes"


def test_unprotected_images_are_claimed_in_no_way(large, originals, issued):
    """Not even the originals, which resemble themselves."""
    for number, image in enumerate(originals[:2].split(1)):
        for seen in (image, image.flip(3), (image + 0.2).clamp(-1, 1), F.interpolate(image, (128, 96), mode="area")):
            found = large.trace(to_8bit(seen), issued)
            assert not found.found.protected and found.resembles == number
            assert (found.tone, found.mirrored, found.stretched) == (Tone(), False, 1) and found.image.shape == seen.shape


def test_what_is_looked_for_can_be_narrowed_and_counts_as_much(large, published, issued):
    faint = to_8bit(published[:1])
    whole, one, other = (trace(faint, KEY, issued, 128, present_above=5.0, among=among) for among in (None, [0], [1]))
    assert whole.found == one.found and not other.found.protected and other.resembles == 0
    many = Issued(tuple(range(10**6)))
    assert trace(faint, KEY, many, 128, present_above=5.0, among=[0], crops=False).found.threshold == pytest.approx(raised_threshold(5.0, 10**6))


def test_a_tone_is_described_by_what_changed():
    before = natural_images(1, 64, 64).clamp(-0.7, 0.7)
    assert describe_tone(before, before) == {"red": 0, "green": 0, "blue": 0, "contrast": 1, "saturation": 1}
    assert describe_tone(before, before + 10 / 127.5) == {"red": 10, "green": 10, "blue": 10, "contrast": 1, "saturation": 1}
    grey = before.mean(1, keepdim=True)
    half = describe_tone(before, 0.5 * grey + 1.5 * (before - grey))
    assert half["contrast"] == 0.5 and half["saturation"] == 1.5


def test_a_grey_image_doesnt_count_as_one_that_lost_its_colour(large):
    """Nor does one that is undone to be grey but for a fraction of a level."""
    grey = to_8bit(natural_images(1, 128, 128, seed=11).mean(1, keepdim=True).expand(-1, 3, -1, -1))
    published = to_8bit(large.encrypt(grey, torch.tensor([0]))[0])
    seen = to_8bit((published + 0.2).clamp(-1, 1))
    found = large.trace(seen, Issued((0,), looks={0: look(grey)[0]}))
    described = describe_tone(found.image, seen)
    assert found.tone != Tone() and described["saturation"] == 1 and described["contrast"] == pytest.approx(1, abs=0.05)
    plain = torch.full((1, 3, 8, 8), 0.5)
    assert describe_tone(plain, 0.4 * plain) == {"red": -38.2, "green": -38.2, "blue": -38.2, "contrast": 1, "saturation": 1}


def test_a_thumbnail_of_a_long_strip_is_examined(large):
    """Stretched back, it would have a side of less than a pixel, or more pixels than fit into memory."""
    image = natural_images(1, 16, 16, seed=3)
    for shape in ((16, 24000), (24000, 16), (1, 2**31 - 1)):
        issued = Issued((0,), looks={0: look(image)[0]}, shapes={0: shape})
        found = large.trace(image, issued, crops=False)
        assert not found.found.protected and found.resembles == 0
        assert all(1 / 8 <= way.stretched <= 8 for way in _ways(image, issued))
    (_, there, *_) = _ways(image, Issued((0,), looks={0: look(image)[0]}, shapes={0: (16, 64)}))
    assert there.stretched == 0.25 and tuple(there.image.shape[2:]) == (8, 32), "nearly the area of the image"


def test_undoing_a_tone_inverts_it():
    image = natural_images(1, 32, 32).clamp(-0.6, 0.6)
    assert Tone().undone(image) is image
    torch.testing.assert_close(Tone(brightness=-0.1).undone(image + 0.1), image)
    assert Tone(brightness=0.7).undone(image).amax() == 1, "an image again"
    torch.testing.assert_close(Tone(gamma=0.5).undone(2 * ((image + 1) / 2) ** torch.tensor(-0.5).exp() - 1), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(Tone(contrast=0.3).undone(image * torch.tensor(-0.3).exp()), image)
    gains = torch.tensor([0.2, 0.0, -0.2]).exp().view(1, 3, 1, 1)
    torch.testing.assert_close(Tone(warmth=-0.2).undone((image + 1) * gains - 1), image, atol=1e-5, rtol=0)
    grey = image.mean(1, keepdim=True)
    torch.testing.assert_close(Tone(saturation=0.4).undone(grey + (image - grey) * torch.tensor(-0.4).exp()), image)
