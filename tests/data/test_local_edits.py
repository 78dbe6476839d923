"""Local edits: masks cover what was asked, nothing outside a mask changes, and inpainting solves Laplace's equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from malp_disc.data.local_edits import LOCAL_EDITS, _around_grey, inpainted, local_edit, random_masks
from malp_disc.data.masks import MASK_SHAPES, random_mask
from tests.tiny import sample_images


@pytest.mark.parametrize("shape", MASK_SHAPES)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_a_mask_covers_the_share_that_was_asked_for(shape, share):
    for seed in range(12):
        mask = random_mask(96, 160, np.random.default_rng(seed), shape=shape, shares=(share, share))
        assert mask.shape == (96, 160)
        assert share - 0.015 <= mask.mean() <= share + (0.03 if shape == "brush" else 0.015)


def test_masks_depend_on_each_images_seed_alone():
    images = sample_images(3)
    together = random_masks(images, [[1, 2, 0], [1, 2, 1], [1, 2, 2]])
    assert torch.equal(together[1:2], random_masks(images[1:2], [[1, 2, 1]]))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("kind", LOCAL_EDITS)
def test_the_region_changes_and_nothing_else(kind):
    images, sources = sample_images(4), sample_images(4, seed=9)
    masks = random_masks(images, [[0, i] for i in range(4)])
    edited = local_edit(images, masks, kind, sources=sources)
    assert torch.equal(edited[(~masks).expand_as(images)], images[(~masks).expand_as(images)])
    changed = (edited != images).any(1, keepdim=True)
    assert (changed[masks]).float().mean() > 0.95
    assert edited.abs().max() <= 1


def test_inpainting_continues_a_linear_ramp():
    """A linear function is harmonic: the solution in the hole is the ramp itself, up to the noise."""
    ramp = torch.linspace(-0.8, 0.8, 32).expand(1, 3, 32, 32).contiguous()
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 10:20, 8:24] = True
    error = inpainted(ramp, masks) - ramp
    assert error.mean().abs() < 0.01
    assert error.abs().max() < 0.12


def test_bad_input_is_refused():
    images = sample_images(2)
    masks = random_masks(images, [[0], [1]])
    with pytest.raises(ValueError, match="splice pastes from sources"):
        local_edit(images, masks, "splice")
    with pytest.raises(ValueError, match="boolean masks of shape"):
        local_edit(images, masks.float(), "inpaint")
    with pytest.raises(ValueError, match="copy_move, splice"):
        local_edit(images, masks, "erase")
    with pytest.raises(ValueError, match="a seed for each of 2"):
        random_masks(images, [[0]])
    with pytest.raises(ValueError, match="interval in"):
        random_mask(8, 8, np.random.default_rng(0), shares=(0.1, 0.9))
    with pytest.raises(ValueError, match="rectangle, ellipse, brush"):
        random_mask(8, 8, np.random.default_rng(0), shape="star")


def test_retouching_changes_light_and_colours_visibly_and_keeps_details_and_the_rest():
    images = sample_images(12)
    masks = random_masks(images, [[i] for i in range(12)])
    for seed in range(12):
        edited = local_edit(images, masks, "retouch", seed=seed)
        assert torch.equal(edited, local_edit(images, masks, "retouch", seed=seed))
        assert not (edited != images)[~masks.expand_as(images)].any()
        change = ((edited - images).abs() * masks).sum((1, 2, 3)) / (3 * masks.sum((1, 2, 3)))
        assert (change * 127.5 > 6).all(), "up to clamping"
    assert len({local_edit(images[:1], masks[:1], "retouch", seed=seed).sum().item() for seed in range(12)}) == 12


def test_a_turn_of_colours_keeps_their_mean_and_norm():
    colours = torch.rand(3, 100)
    turned = _around_grey(1.0) @ colours
    torch.testing.assert_close(turned.mean(0), colours.mean(0))
    torch.testing.assert_close(turned.norm(dim=0), colours.norm(dim=0))
    torch.testing.assert_close(_around_grey(2 * torch.pi / 3) @ torch.eye(3), torch.eye(3).roll(1, 0), atol=1e-5, rtol=0)
