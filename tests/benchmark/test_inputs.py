"""What the methods make of an image: resampling, spectra, co-occurrences and augmentation, against closed forms and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.benchmark.autogan import AutoGANDetector, spectrum_feature
from malp_disc.benchmark.cnndetection import CNNDetection
from malp_disc.benchmark.lanczos import lanczos_resize, lanczos_weights
from malp_disc.benchmark.nataraj import co_occurrence
from malp_disc.benchmark.template_choice import template_of
from malp_disc.benchmark.xception import CADENE, XceptionEntry, map_side
from malp_disc.degradations import to_8bit
from tests.tiny import sample_images


@pytest.mark.parametrize("size", [(20, 31), (64, 48), (75, 80)])
def test_lanczos_is_pillows(size):
    image = sample_images(1, 40, 48)[0, 0]
    expected = np.array(Image.fromarray(image.numpy()).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(lanczos_resize(image[None, None], size)[0, 0].numpy(), expected, atol=2e-6)


def test_lanczos_keeps_constants_and_does_nothing_at_the_same_size():
    torch.testing.assert_close(lanczos_weights(40, 17).sum(1), torch.ones(17, dtype=torch.float64))
    images = sample_images(1)
    assert lanczos_resize(images, images.shape[2:]) is images


def test_co_occurrences_are_counted_by_hand():
    levels = torch.tensor([[0, 0, 255, 0], [7, 8, 7, 8]])
    images = (levels / 127.5 - 1).expand(1, 3, 2, 4).clone()
    images[:, 1] = -1
    found = co_occurrence(images) * 6
    expected = torch.zeros(256, 256)
    for left, right in ((0, 0), (0, 255), (255, 0), (7, 8), (8, 7), (7, 8)):
        expected[left, right] += 1
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found[0, 2], expected)
    assert found[0, 1, 0, 0].item() == pytest.approx(6) and found[0, 1].sum().item() == pytest.approx(6)


def test_a_spectrum_ignores_contrast_and_shows_a_checkerboard_at_nyquist():
    """Without the constant in the logarithm the scaling would cancel contrast exactly; a periodic pattern is the highest value at its frequency."""
    noise = 0.2 * torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) - 0.1
    torch.testing.assert_close(spectrum_feature(noise), spectrum_feature(4 * noise), rtol=0, atol=0.05)
    rows = torch.arange(224)
    board = 0.3 * (1 - 2 * ((rows[:, None] + rows) % 2))
    assert spectrum_feature(noise + board)[0, :, 112, 112].tolist() == [1, 1, 1]
    assert spectrum_feature(noise)[0, :, 112, 112].max() < 1


def test_the_bands_of_a_spectrum_add_up():
    images = sample_images(1, 224, 224)
    full = spectrum_feature(images)
    torch.testing.assert_close(sum(spectrum_feature(images, band) for band in ("low", "mid", "high")), full)
    assert spectrum_feature(images, "high")[..., 0, 0].abs().sum() == 0, "frequency 0 is in the low band"
    with pytest.raises(ValueError, match="full, low, mid, high"):
        AutoGANDetector(band="all")


def test_the_augmentation_depends_on_an_images_own_numbers():
    method, images = CNNDetection(side=32), sample_images(3, 64, 64)
    none, jpeg_only = torch.tensor([0.9, 0.5, 0.9, 0.5]), torch.tensor([0.9, 0.5, 0.1, 0.0])
    found = method.augment(images, torch.stack([none, jpeg_only, none]))
    assert torch.equal(found[0], images[0]) and torch.equal(found[2], images[2])
    assert not torch.equal(found[1], images[1]) and torch.equal(found[1:2], to_8bit(found[1:2]))
    assert torch.equal(method.augment(images[1:2], jpeg_only[None]), found[1:2])
    blurred = method.augment(images, torch.tensor([0.1, 1.0, 0.9, 0.5]).expand(3, 4))
    assert blurred.diff(dim=3).abs().mean() < images.diff(dim=3).abs().mean()


def test_an_images_template_doesnt_depend_on_its_batch():
    images = sample_images(16)
    chosen = template_of(images, 3)
    assert torch.equal(template_of(images.flip(0), 3).flip(0), chosen) and set(chosen.tolist()) == {0, 1, 2}
    assert torch.equal(template_of(to_8bit(images), 3), chosen), "a saved image has the template that the original got"


@pytest.mark.parametrize("side", [75, 96, 224, 299])
def test_the_side_of_xceptions_map_is_known_before_it_runs(side):
    network = XceptionEntry(3, names=CADENE).to("meta")
    assert network.features(torch.empty(1, 3, side, side, device="meta")).shape[2] == map_side(side)
