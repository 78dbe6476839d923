"""Augmentation before a discriminator: equal numbers change equally, the range is kept, gradients pass."""

from __future__ import annotations

import builtins

import pytest
import torch

from malp_disc.training.diff_augment import NUMBERS, augment, check_augmentation
from tests.tiny import sample_images

STILL = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize("kinds", [(), ("color",), ("translation",), ("color", "translation")])
def test_numbers_in_the_middle_change_nothing(kinds):
    images = sample_images(3)
    assert torch.allclose(augment(images, STILL.expand(3, -1), kinds), images, atol=2e-6)
    assert augment(images, STILL.expand(3, -1), ()) is images


@pytest.mark.parametrize("kinds", [("color",), ("translation",)])
def test_each_image_is_changed_by_its_own_numbers_alone(kinds):
    images, numbers = sample_images(3), torch.rand(3, NUMBERS, generator=torch.Generator().manual_seed(0))
    together = augment(images, numbers, kinds)
    assert together.shape == images.shape and together.abs().max() <= 1 and not torch.allclose(together, images, atol=0.05)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], augment(images[i : i + 1], numbers[i : i + 1], kinds), atol=1e-6)
    twins = augment(images[:1].expand(2, -1, -1, -1), numbers[:1].expand(2, -1), kinds)
    assert torch.equal(twins[0], twins[1])


def test_translation_moves_whole_pixels_and_mirrors_at_the_border():
    """32 pixels high: at most 4; 64 wide: at most 8. A number of 1 is 8 to the right, here 0.87 = 5.92, rounded to 6, and of 0 is 4 up."""
    images = sample_images(1, 32, 64)
    moved = augment(images, torch.tensor([[0.5, 0.5, 0.5, 0.87, 0.0]]), ("translation",))
    assert torch.allclose(moved[..., :-4, 6:], images[..., 4:, :-6], atol=1e-5)
    assert torch.allclose(moved[..., :-4, 5], images[..., 4:, 1], atol=1e-5)


def test_colour_does_what_its_numbers_say():
    grey = torch.full((1, 3, 8, 8), 0.2)
    grey[:, 0] = 0.4
    pale = augment(grey, torch.tensor([[0.0, 0.5, 0.5, 0.5, 0.5]]), ("color",))
    assert pale.std(dim=1).max() < 0.02, "saturation 0 is grey"
    assert torch.allclose(pale, grey.mean(1, keepdim=True).expand_as(grey), atol=1e-6), "the mean over the channels stays"
    bright = augment(grey, torch.tensor([[0.5, 0.5, 1.0, 0.5, 0.5]]), ("color",))
    assert torch.allclose(bright, grey + 0.5, atol=1e-3), "a quarter of the range, which is 2"


@pytest.mark.parametrize("number", [0.0, 0.25, 0.9])
def test_contrast_scales_around_the_mean_of_the_image(number):
    """The distance from the mean, by 0.5 plus the number; a constant image stays as it is, since it has no contrast."""
    numbers = torch.tensor([[0.5, number, 0.5, 0.5, 0.5]])
    constant, images = torch.full((1, 3, 8, 8), 0.5), 0.3 + 0.1 * sample_images(1)
    assert torch.allclose(augment(constant, numbers, ("color",)), constant, atol=1e-6)
    assert torch.allclose(augment(images, numbers, ("color",)), images.mean() + (0.5 + number) * (images - images.mean()), atol=1e-6)


def test_gradients_pass():
    images = (0.5 * sample_images(2)).requires_grad_(True)
    augment(images, torch.full((2, NUMBERS), 0.6), ("color", "translation")).square().sum().backward()
    assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.7


def test_an_unknown_kind_and_a_missing_library_are_told(monkeypatch):
    with pytest.raises(ValueError, match=r"out of \('color', 'translation'\), got \['cutout'\]"):
        check_augmentation(("cutout",))
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: (_ for _ in ()).throw(ImportError(name)) if name == "kornia" else real(name, *rest))
    check_augmentation(("color",))
    with pytest.raises(ValueError, match=r"translation needs kornia; install it with: pip install 'malp-disc\[augment\]'"):
        check_augmentation(("color", "translation"))
