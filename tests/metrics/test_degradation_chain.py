"""Chains of degradations: a function of their seeds, exact in value, transparent to gradients."""

from __future__ import annotations

import pytest
import torch

from malp_disc.degradation_chain import DRAWS, DegradationChain, straight_through
from malp_disc.degradations import cropped, gaussian_blur, jpeg, resized, resized_and_back, to_8bit, webp
from tests.tiny import sample_images


def test_a_chain_is_its_stages_one_after_another():
    images = sample_images(2)
    chain = DegradationChain((("blur", 0.8), ("jpeg", 60)))
    assert torch.equal(chain(images), jpeg(gaussian_blur(to_8bit(images), 0.8), 60))
    assert torch.equal(DegradationChain()(images), to_8bit(images))
    assert (str(chain), str(DegradationChain())) == ("blur 0.8 + jpeg 60", "8 bits")


def test_chains_are_a_function_of_seed_step_and_image_and_of_every_kind():
    chains = [DegradationChain.seeded(3, 5, image) for image in range(200)]
    assert chains == [DegradationChain.seeded(3, 5, image) for image in range(200)]
    assert {name for chain in chains for name, _ in chain.stages} == {"resize", "blur", "noise", "jpeg", "webp"}
    assert any(not chain.stages for chain in chains)
    levels = {kind: [level for chain in chains for name, level in chain.stages if name == kind] for kind in ("resize", "blur", "noise", "jpeg", "webp")}
    for kind, low, high in (("resize", 0.45, 2), ("blur", 0, 1.2), ("noise", 0, 6), ("jpeg", 45, 95), ("webp", 60, 95)):
        assert low <= min(levels[kind]) < low + (high - low) / 6 and high - (high - low) / 6 < max(levels[kind]) <= high
    assert 0.2 < sum(scale < 0.6 for scale in levels["resize"]) / len(levels["resize"]) < 0.5
    noisy = next(chain for chain in chains if any(name == "noise" for name, _ in chain.stages))
    images = sample_images(1)
    assert torch.equal(noisy(images), noisy(images))


def test_the_gradient_is_the_identitys_and_the_value_the_chains():
    images = sample_images(1).requires_grad_()
    chain = DegradationChain((("jpeg", 50),))
    seen = straight_through(images, chain)
    torch.testing.assert_close(seen, chain(images.detach()))
    (3 * seen).sum().backward()
    assert torch.equal(images.grad, torch.full_like(images, 3))
    assert straight_through(images, None) is images


def test_webp_is_worse_at_lower_quality_and_resizing_keeps_flat_images():
    images = sample_images(2)
    errors = [(webp(images, quality) - images).square().mean().item() for quality in (None, 90, 50, 10)]
    assert errors == sorted(set(errors))
    flat = to_8bit(torch.full((1, 3, 20, 30), 0.25))
    for scale in (0.5, 0.7, 2.0):
        torch.testing.assert_close(resized_and_back(flat, scale), flat)
    assert resized(images, (10, 70)).shape == (2, 3, 10, 70)


def test_a_crop_is_a_window():
    images = to_8bit(sample_images(1))
    assert torch.equal(cropped(images, 0.5, (0, 1)), images[:, :, :16, 16:])
    assert torch.equal(cropped(images, 1, (0.3, 0.4)), images)


def test_bad_input_is_refused():
    images = sample_images(1)
    for call, message in (
        (lambda: DegradationChain((("sepia", 1),)), "got sepia"),
        (lambda: DegradationChain.from_draws([0.5]), f"expected {DRAWS} numbers"),
        (lambda: webp(images, 0), "WebP quality of 1 … 100"),
        (lambda: resized(images, (0, 4)), "at least 1x1"),
        (lambda: resized_and_back(images, 0), "scale above 0"),
        (lambda: cropped(images, 1.5, (0, 0)), "share in"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
