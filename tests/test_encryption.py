"""T(I) = I + m·S_i, Eq. 3 and 6, against a loop over pixels; the index; resampled templates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from malp_disc.encryption import NO_TEMPLATE, Encryption


@pytest.fixture
def encryption() -> Encryption:
    torch.manual_seed(0)
    return Encryption(3, template_size=8, strength=0.3)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def literal(images: torch.Tensor, templates: torch.Tensor, index: list[int], strength: float) -> torch.Tensor:
    """Eq. 6, pixel by pixel: the same one-channel template on all three colours, then cut to the range of images."""
    result = images.clone().double()
    for b, i in enumerate(index):
        for c in range(3):
            for y in range(images.shape[2]):
                for x in range(images.shape[3]):
                    added = strength * templates[i, y, x].item() if i >= 0 else 0.0
                    result[b, c, y, x] = max(-1.0, min(1.0, images[b, c, y, x].item() + added))
    return result


def test_it_is_eq_6_pixel_by_pixel(encryption, images):
    index = [2, 0, NO_TEMPLATE, 1]
    encrypted = encryption(images, torch.tensor(index))
    expected = literal(images, encryption.templates.detach(), index, 0.3)
    assert torch.allclose(encrypted.double(), expected, atol=1e-6)
    assert torch.equal(encrypted[2], images[2])  # -1: left as it was, to the last bit


def test_by_hand():
    """0.5 + 0.3·0.4 = 0.62 on every colour; 0.9 + 0.3·0.4 = 1.02 is cut to 1."""
    encryption = Encryption(1, template_size=2, strength=0.3)
    with torch.no_grad():
        encryption.templates.fill_(0.4)
    encrypted = encryption(torch.tensor([0.5, -0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 2, 2), torch.tensor([0]))
    assert encrypted[0, :, 0, 0].tolist() == pytest.approx([0.62, -0.38, 1.0])


def test_the_result_is_clamped_to_the_range_of_images(encryption):
    with torch.no_grad():
        encryption.templates.copy_(torch.tensor([9.0, -9.0, 0.0])[:, None, None].expand(3, 8, 8))
    encrypted = encryption(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    assert encrypted.amax().item() == 1 and encrypted.amin().item() == -1


def test_strength_zero_is_the_identity(images):
    passive = Encryption(2, template_size=8, strength=0.0)
    assert torch.equal(passive(images, torch.tensor([0, 1, 1, NO_TEMPLATE])), images)


def test_the_input_is_left_alone_and_the_output_is_float32(encryption, images):
    before = images.clone()
    encrypted = encryption(images.to(torch.bfloat16), torch.zeros(4, dtype=torch.long))
    assert encrypted.dtype == torch.float32
    encryption(images, torch.zeros(4, dtype=torch.long))
    assert torch.equal(images, before)


def test_the_gradient_reaches_exactly_the_chosen_templates(encryption):
    """dT/dS_i = m on each of three colours of each image that got i: 3 colours · 2 images · 0.3 = 1.8 for S_2, nothing elsewhere."""
    images = torch.zeros(3, 3, 8, 8)
    encryption(images, torch.tensor([2, NO_TEMPLATE, 2])).sum().backward()
    gradient = encryption.templates.grad
    assert torch.allclose(gradient[2], torch.full((8, 8), 1.8))
    assert not gradient[:2].any()


def test_the_gradient_reaches_the_image_where_it_isnt_clamped(encryption):
    images = torch.zeros(1, 3, 8, 8, requires_grad=True)
    encryption(images, torch.tensor([0])).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (4, 4), (6, 20), (5, 3)])
def test_templates_are_resampled_to_the_image(encryption, size):
    """At their own size they come out unchanged; a constant template is the same constant at every size; the mean is kept roughly."""
    assert encryption.at(size).shape == (3, 1, *size)
    if size == (8, 8):
        assert torch.equal(encryption.at(size)[:, 0], encryption.templates)
    encrypted = encryption(torch.zeros(2, 3, *size), torch.tensor([0, 1]))
    assert torch.allclose(encrypted[1], 0.3 * encryption.at(size)[1].expand(3, *size), atol=1e-6)
    with torch.no_grad():
        encryption.templates.fill_(0.25)
    assert torch.allclose(encryption.at(size), torch.full((3, 1, *size), 0.25), atol=1e-6)


def test_shrinking_averages_and_doesnt_skip(encryption):
    """Columns + - - + + - - + have the mean 0. Shrunk by 4 without antialiasing only the two inner columns of four would count: -1."""
    with torch.no_grad():
        encryption.templates.copy_(torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(2))
    assert encryption.at((2, 2)).abs().amax() < 0.3
    assert torch.nn.functional.interpolate(encryption.templates[:, None], (2, 2), mode="bilinear").amax() == -1


def test_enlarging_is_bilinear_between_pixel_centres():
    """(0, 1) to four pixels, edges not aligned: centres at -1/4, 1/4, 3/4, 5/4 of the old pixels: 0, 1/4, 3/4, 1."""
    encryption = Encryption(1, template_size=2)
    with torch.no_grad():
        encryption.templates.copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert encryption.at((2, 4))[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_every_template_is_drawn_about_equally_often(encryption):
    """3000 draws out of 3: 1000 expected each, σ = √(3000·⅓·⅔) ≈ 26; 5 σ."""
    counts = torch.bincount(encryption.draw(3000, torch.Generator().manual_seed(0)), minlength=3)
    assert len(counts) == 3 and (counts - 1000).abs().max() < 130


def test_a_draw_is_reproduced_by_its_generator_alone(encryption):
    first = encryption.draw(50, torch.Generator().manual_seed(7))
    torch.manual_seed(123)  # the global generator has no say
    assert torch.equal(first, encryption.draw(50, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, encryption.draw(50, torch.Generator().manual_seed(8)))
    assert first.dtype == torch.long


def test_a_draw_with_a_generator_leaves_the_global_one_alone(encryption):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    encryption.draw(10, torch.Generator().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)


def test_new_templates_are_centred_and_faint():
    """N(0, 0.2²): at m = 0.3 the mean square error of an encrypted image is (0.06)², near 30 dB for a range of 2."""
    torch.manual_seed(0)
    templates = Encryption(2).templates.detach()
    assert templates.shape == (2, 128, 128)
    assert templates.mean().abs() < 0.01
    psnr = 10 * torch.log10(4 / (0.3 * templates).square().mean())
    assert 29 < psnr < 32


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_whole_numbers_of_any_kind_become_long(encryption, images, kind):
    index = encryption.check_index(torch.tensor([0, 1, 2, 0], dtype=kind), 4)
    assert index.dtype == torch.long and index.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 1, 3, 0]), r"template numbers 0 … 2 \(or -1 for none\), got 0 … 3"),
        (torch.tensor([0, -2, 1, 0]), r"got -2 … 1"),
        (torch.tensor([0, 1]), r"index of 4 whole numbers, one per image, got torch.int64 \(2,\)"),
        (torch.tensor([[0], [1], [2], [0]]), r"\(4, 1\)"),
        (torch.tensor([0.0, 1.0, 0.0, 0.0]), "whole numbers.*float32"),
        (torch.tensor([True, False, True, True]), "whole numbers.*bool"),
    ],
)
def test_a_wrong_index_is_refused(encryption, images, index, message):
    with pytest.raises(ValueError, match=message):
        encryption(images, index)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(4, 1, 8, 8), r"\(B, 3, H, W\), got \(4, 1, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\), got \(3, 8, 8\)"),
        (torch.full((4, 3, 8, 8), 200.0), "got min 200 max 200; divide by 127.5 and subtract 1"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "floating point"),
    ],
)
def test_what_are_no_images_is_refused(encryption, images, message):
    with pytest.raises(ValueError, match=message):
        encryption(images, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"set_size": 0}, "template set of at least 1, got 0; for a passive detector give strength=0"),
        ({"strength": -0.1}, r"strength in \[0, 1\], got -0.1; the paper's is 0.3"),
        ({"strength": 30}, r"strength in \[0, 1\], got 30"),
        ({"strength": float("nan")}, "got nan"),
    ],
)
def test_impossible_sets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Encryption(**arguments)


def test_an_empty_batch_passes(encryption):
    assert encryption(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long)).shape == (0, 3, 8, 8)


def test_a_limit_scales_down_what_is_too_strong_and_leaves_the_rest():
    """30 dB over a range of 2: an error of 2 / 10^1.5 = 0.0632, so at m = 0.3 a template of root mean square 0.211."""
    encryption = Encryption(set_size=2, template_size=16, strength=0.3)
    with torch.no_grad():
        encryption.templates[0].normal_().mul_(2.0)
        encryption.templates[1].normal_().mul_(0.05)
    strong, faint = encryption.templates.detach().clone()
    encryption.limit_(30)
    assert encryption.templates[0].square().mean().sqrt().item() == pytest.approx(0.2108, rel=1e-3)
    assert torch.allclose(encryption.templates[0] / encryption.templates[0].norm(), strong / strong.norm(), atol=1e-6)
    assert torch.equal(encryption.templates[1], faint)
    error = (encryption(torch.zeros(1, 3, 16, 16), torch.tensor([0]))).square().mean().item()
    assert 10 * np.log10(4 / error) == pytest.approx(30, abs=0.01)
    before = encryption.templates.detach().clone()
    encryption.limit_(0)
    assert torch.equal(encryption.templates, before)
    passive = Encryption(template_size=16, strength=0.0)
    passive.limit_(30)
    assert passive.templates.isfinite().all()
