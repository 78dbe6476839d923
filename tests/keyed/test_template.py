"""The template: hidden at the promised PSNR, bound to key and image, found after what happens to images, and not in their mean."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from malp_disc.degradations import gaussian_blur, gaussian_noise, jpeg, resized, resized_and_back, to_8bit, webp
from malp_disc.detection import cosine
from malp_disc.keyed.carrier import carrier, phases
from malp_disc.keyed.evidence import evidence
from malp_disc.keyed.secret import new_secret
from malp_disc.keyed.spectrum import filtered, moved, resampled, smoothed
from malp_disc.keyed.template import CHROMA, LEVEL, LUMA, content_filter, content_phase, filter_turn, level_weights, template
from tests.keyed.conftest import natural_images

OTHER = b"\1" * 32
NUMBERS = torch.arange(6)


def test_protection_has_the_psnr_of_the_configuration_and_none_where_none_was_asked_for(malp, images):
    protected, _ = malp.encrypt(images, NUMBERS)
    psnr = -10 * torch.log10((protected - images).square().mean((1, 2, 3)) / 4)
    torch.testing.assert_close(psnr, torch.full((6,), malp.config.psnr), atol=0.15, rtol=0)
    kept, _ = malp.encrypt(images, torch.tensor([0, -1, 2, 3, -1, 5]))
    assert torch.equal(kept[[1, 4]], images[[1, 4]])
    assert torch.equal(kept[[0, 2]], protected[[0, 2]])


@pytest.mark.parametrize(("side", "least"), [(12, 26.5), (20, 28.5)])
def test_an_object_on_a_plain_background_doesnt_take_all_of_the_noise(side, least, malp, images):
    """At the PSNR of the configuration over the whole image, that of the object would be lower by 2 dB."""
    scene = torch.full((6, 3, 128, 128), 0.9)
    place = (..., slice(50, 50 + side), slice(50, 50 + side))
    scene[place] = images[..., :side, :side]
    protected = malp.encrypt(scene, NUMBERS)[0]
    psnr, inside = (-10 * torch.log10(part.square().mean((1, 2, 3)) / 4) for part in (protected - scene, (protected - scene)[place]))
    assert (psnr > malp.config.psnr + 1).all() and (inside > least).all()
    assert (malp(to_8bit(protected), NUMBERS).presence > 2 * malp.config.present_above).all()


@pytest.mark.parametrize(
    "change",
    [
        to_8bit,
        lambda x: jpeg(x, 75),
        lambda x: webp(x, 75),
        lambda x: gaussian_blur(x, 0.7),
        lambda x: gaussian_noise(x, 5, torch.Generator().manual_seed(1)),
        lambda x: resized(x, (40, 40)),
        lambda x: resized(x, (128, 128)),
        lambda x: resized_and_back(x, 0.6),
        lambda x: 0.8 * x + 0.1,
    ],
    ids=["png", "jpeg", "webp", "blur", "noise", "smaller", "double", "resized", "contrast"],
)
def test_the_template_is_found_after_what_happens_to_images_and_only_with_its_key(change, malp, images):
    seen = change(malp.encrypt(images, NUMBERS)[0])
    assert malp(seen, NUMBERS).presence.mean() > 4
    assert malp(seen, NUMBERS, secret=OTHER).presence.mean().abs() < 1.5
    assert malp(seen, NUMBERS + 6).presence.mean().abs() < 1.5
    assert malp(change(images), NUMBERS).presence.mean().abs() < 1.5


def test_without_a_template_the_presence_is_standard_normal(malp):
    presence = malp(natural_images(150, seed=5), torch.arange(150)).presence
    assert presence.mean().abs() < 0.3
    assert 0.8 < presence.std() < 1.2


@pytest.mark.parametrize("scene", ["banner", "speck", "one level"])
def test_so_it_is_of_plain_images_with_little_in_them(scene):
    """There, the template lies in the few pixels that the residual does."""
    images = torch.full((1, 3, 96, 288), 0.99)
    if scene == "banner":
        images[:, :, 40:60, 20:80] = natural_images(1, 20, 60)
    elif scene == "speck":
        images[:, :, 40:46, 100:106] = -0.9
    else:
        images[:, :, 50, 50] -= 2 / 255
    presence = torch.cat([evidence(images, bytes([key]) * 32, [number], 64).presence for key in range(12) for number in range(8)])
    assert presence.mean().abs() < 0.3 and 0.8 < presence.std() < 1.2 and presence.abs().max() < 4.5


def test_a_template_doesnt_fit_another_image(malp, images):
    """The copy attack: what was added to one image is added to the next."""
    protected, _ = malp.encrypt(images, NUMBERS)
    forged = (images.roll(1, 0) + (protected - images)).clamp(-1, 1)
    assert malp(forged, NUMBERS).presence.mean() < 1.5 < 5 < malp(protected, NUMBERS).presence.mean()


@pytest.mark.parametrize("same", [False, True], ids=["a template each", "one for all"])
def test_the_mean_of_many_templates_vanishes(same, malp):
    """Its length falls as 1 / sqrt(N), as for independent templates: by their numbers, and even without by the images' φ."""
    images = natural_images(100, seed=3)
    templates = template(images, malp.secret, [0] * 100 if same else range(100), 64)
    ratio = templates.mean(0).norm() / templates.flatten(1).norm(dim=1).mean()
    assert ratio < 2 / math.sqrt(100)


def agreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean of cos(φ' − φ) of each image."""
    return (first * second.conj()).real.mean((1, 2, 3))


def test_the_phase_ignores_the_template_and_its_filters_part_the_contrast(malp, images):
    protected = malp.encrypt(images, NUMBERS)[0]
    assert agreement(content_phase(images, malp.secret), content_phase(protected, malp.secret)).min() > 0.9
    grey = images.mean(1, keepdim=True)
    torch.testing.assert_close(filter_turn(grey, malp.secret), filter_turn(0.5 * grey + 0.2, malp.secret), atol=0.1, rtol=0)


@pytest.mark.parametrize("number", range(4))
def test_changes_of_brightness_and_colours_by_30_levels_turn_the_phase_and_by_5_hardly(number, images):
    """Also one that keeps R + G + B, in any direction."""
    secret = hashlib.sha256(b"key %d" % number).digest()
    phase, kept = content_phase(images, secret), {}
    for levels in (5, 30):
        directions = [torch.tensor([1.0, 1.0, 1.0]) / 3**0.5]
        directions += [math.cos(turn) * torch.tensor([1.0, -1.0, 0.0]) / 2**0.5 + math.sin(turn) * torch.tensor([1.0, 1.0, -2.0]) / 6**0.5 for turn in torch.arange(12) * math.pi / 12]
        kept[levels] = [agreement(phase, content_phase(images + levels / 127.5 * 3**0.5 * one.view(3, 1, 1), secret)).mean().item() for one in directions]
    assert max(kept[30]) < 0.4 and min(kept[5]) > 0.75


def test_the_weights_of_the_levels_differ_from_key_to_key_within_their_ranges():
    weights = torch.stack([level_weights(hashlib.sha256(b"%d" % number).digest()) for number in range(50)])
    luma = weights.sum(2)
    chroma = (weights - luma[:, :, None] / 3).norm(dim=2)
    for found, (low, high) in (*zip(luma.T, LUMA), (chroma, CHROMA)):
        assert low <= found.min() < low + 0.2 * (high - low) and high - 0.2 * (high - low) < found.max() <= high
    torch.testing.assert_close(((weights - luma[:, :, None] / 3) / chroma[:, :, None]).sum(1), torch.zeros(50, 3), atol=1e-5, rtol=0)


def test_the_carrier_is_white_and_of_absolute_value_1_and_its_phases_are_uniform(malp):
    """So it is the same at random whatever φ it is turned by, and a published template tells nothing about the key's filter."""
    real, imaginary = carrier(malp.secret, [3], 64, (128, 128))[0]
    torch.testing.assert_close(real.square() + imaginary.square(), torch.ones(128, 128))
    spectrum = torch.fft.fft2(torch.complex(real, imaginary)).abs().square() / 128**2
    assert spectrum.mean() == pytest.approx(1, abs=1e-4) and spectrum.std() == pytest.approx(1, abs=0.1)  # exponentially distributed
    counts = np.bincount(np.concatenate([phases(malp.secret, number, 64).ravel() for number in range(8)]), minlength=256)
    assert (np.square(counts - 512) / 512).sum() < 350  # χ² with 255 degrees of freedom: 347 is exceeded in one of 8,000


def test_a_part_of_the_carrier_is_that_of_the_whole_across_its_tiles(malp):
    whole = carrier(malp.secret, [3], 64, (300, 300), (-20, -150))
    for top, left, height, width in ((0, 0, 20, 30), (-3, 5, 40, 10), (120, 100, 30, 40), (200, -150, 80, 300)):
        part = carrier(malp.secret, [3], 64, (height, width), (top, left))
        assert torch.equal(part, whole[:, :, top + 20 : top + 20 + height, left + 150 : left + 150 + width])


def test_the_carrier_never_repeats(malp):
    """In an elongated image, a V that repeats would be turned by different φ and show both."""
    pattern = torch.complex(*carrier(malp.secret, [3], 64, (140, 900))[0])
    spectrum = torch.fft.fft2(pattern, s=(280, 1800))
    correlation = torch.fft.ifft2(spectrum.abs().square()).abs().flatten()[1:]
    assert correlation.max() < 6 * pattern.numel() ** 0.5  # in places without overlap of parts, the absolute value of a sum of random phases; 6² exceeds the expected maximum of 500,000


@pytest.mark.parametrize("offset", [(20.0, 8.0), (20.5, 8.0), (19.7, 8.4)])
def test_the_template_of_a_crop_is_that_part_of_the_whole_images_also_between_pixels(offset, malp):
    """Images that are moved by a fraction of a pixel, and cut: away from the borders, their template is that of the whole ones, moved likewise."""
    images = natural_images(4, 128, 128)
    place = (..., slice(20, 116), slice(8, 104))
    down, right = 20 - offset[0], 8 - offset[1]
    expected = moved(template(images, malp.secret, range(4), 128), down, right)[place]
    found = template(moved(images, down, right)[place], malp.secret, range(4), 128, offset)
    inner = (..., slice(28, -28), slice(28, -28))
    assert cosine(found[inner], expected[inner]).min() > 0.9


def test_every_template_of_every_key_and_grid_has_a_carrier_of_its_own():
    """Over all bytes that they have in common, a quarter of a percent agree by chance."""
    first, second = new_secret(), new_secret()
    assert first != second
    kinds = [phases(first, 0, 64), phases(first, 1, 64), phases(first, 10, 64), phases(first, 2**53 - 1, 64), phases(second, 0, 64), phases(first, 0, 128)[:128, :128], phases(first, 0, 64, (0, 1)), phases(first, 0, 64, (1, 0)), phases(first, 0, 64, (-1, 0))]
    shared = [(one == other).mean() for i, one in enumerate(kinds) for other in kinds[:i]]
    assert max(shared) < 0.01


def test_the_carrier_is_fixed_for_all_time():
    assert phases(bytes(32), 5, 32)[0, :8].tolist() == [6, 221, 138, 93, 218, 83, 237, 133]


def waves() -> torch.Tensor:
    """An image without random numbers, (1, 3, 48, 32)."""
    rows, columns = torch.arange(48.0)[:, None], torch.arange(32.0)
    return torch.stack([0.7 * torch.sin(rows / 3 + columns / 5 + colour) * torch.cos(rows * columns / 40) for colour in range(3)])[None]


def test_the_template_of_an_image_is_fixed_for_all_time():
    """Or images that were published with this scheme aren't found any more: templates that follow from key and image in another way need another `SCHEME`."""
    image = waves()
    expected = torch.tensor([-0.6150, 0.3657, 0.4087, -0.1004, 0.5480, 0.2164])
    torch.testing.assert_close(template(image, bytes(32), [5], 40)[0, 0, 20, :6], expected, atol=1e-3, rtol=0)


def test_the_evidence_is_what_the_shipped_detector_was_trained_on():
    image = waves()
    found = evidence(image + 0.05 * template(image, bytes(32), [5], 40), bytes(32), [5], 40)
    expected = torch.tensor([-0.0796, -0.1384, -0.0159, -0.8347, 0.3852, 0.9033, 0.8839, 0.7296, -1.2868, 2.0608])
    torch.testing.assert_close(found.channels[0, :, 20, 7], expected, atol=5e-3, rtol=0)
    assert found.similarity.item() == pytest.approx(0.4077, abs=1e-3) and found.presence.item() == pytest.approx(13.31, abs=0.05)


def test_filters_keep_their_band_and_remove_the_rest():
    wave = torch.cos(2 * torch.pi * 0.2 * torch.arange(64.0)).expand(1, 1, 64, 64)
    torch.testing.assert_close(filtered(wave, 0.1, 0.4)[..., 16:48, 16:48], wave[..., 16:48, 16:48], atol=0.05, rtol=0)
    assert filtered(wave, 0.3, 0.45).abs().amax() < 0.25
    assert filtered(torch.ones(1, 1, 64, 64), 0.1, 0.4).abs().amax() < 1e-3


def test_an_image_is_moved_down_and_right_and_shrunk_by_averaging():
    images = waves()
    torch.testing.assert_close(moved(images, 2.0, 1.0)[..., 20:30, 12:20], images[..., 18:28, 11:19], atol=1e-3, rtol=0)
    stripes = torch.tensor([-1.0, 1.0, 1.0, -1.0]).repeat(16).expand(1, 3, 64, 64)  # of a period of 4 pixels, which become one
    assert resampled(stripes, (16, 16))[..., 1:-1].abs().amax() < 0.01


@pytest.mark.parametrize("number", range(6))
def test_no_key_has_a_phase_that_all_images_share(number):
    """The two parts of the filter are orthogonal: parts that resemble each other would give all images one of two opposite phases."""
    secret = hashlib.sha256(b"key %d" % number).digest()
    real, imaginary = content_filter(secret)
    assert (real * imaginary).sum().abs() < 1e-5
    torch.testing.assert_close(torch.stack([real.norm(), imaginary.norm()]), torch.ones(2))
    assert torch.stack([real.sum(), imaginary.sum()]).abs().max() < 1e-4
    phases = content_phase(natural_images(60, seed=number), secret)
    assert phases.mean(0).abs().square().mean().sqrt() < 2 / math.sqrt(60)


def test_published_templates_show_nothing_of_the_weights_of_the_levels():
    """Not even with the originals. Weights that differ between overlapping parts of the template, such as its orientations, would show in the local power where these overlap."""
    images, powers = natural_images(60, 128, 128, seed=5), []
    secret = hashlib.sha256(b"levels").digest()
    for part, numbers in zip(images.split(20), torch.arange(60).split(20)):
        spectrum = torch.fft.fft2(template(part, secret, numbers.tolist(), 128))
        angle = torch.atan2(torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(128)[None])
        seen = [torch.fft.ifft2(spectrum * (angle - math.radians(degrees)).cos().clamp(min=0) ** 8).abs().square() for degrees in (30, 90, 150)]
        powers.append(torch.cat(seen, 1))
    power = torch.cat(powers)
    power = power / power.mean((0, 2, 3), keepdim=True) - 1

    weights = level_weights(secret)
    turns = torch.stack([torch.einsum("c,bchw->bhw", weights[i] - weights[j], smoothed(images, LEVEL)).cos() for i, j in ((0, 1), (1, 2), (2, 0))], 1)
    turns = turns - turns.mean((0, 2, 3), keepdim=True)
    agreement = (power * turns).mean((0, 2, 3)) / turns.square().mean((0, 2, 3)).sqrt()
    assert agreement.abs().sum() < 0.05  # 0.86 where each orientation has its set of weights


def test_what_is_remembered_in_inference_mode_is_of_use_with_gradients(images):
    secret = hashlib.sha256(b"first used in inference mode").digest()
    with torch.inference_mode():
        content_phase(images, secret)
    changed = images.clone().requires_grad_(True)
    content_phase(changed, secret).real.sum().backward()
    assert changed.grad.abs().sum() > 0
