"""The arithmetic of diffusion against its closed forms, and noise that belongs to an image."""

from __future__ import annotations

import math

import pytest
import torch

from generators.diffusion_steps import Diffusion, Noise, step_with_gradient
from tests.tiny import sample_images


def normal(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [2, 25, 100, 1000])
def test_a_respaced_schedule_goes_from_image_to_noise(steps):
    """The first and the last time are those of training, where 1e-4 and all but 4e-5 of the variance is noise."""
    diffusion = Diffusion(steps)
    assert diffusion.timesteps[0] == 0 and diffusion.timesteps[-1] == 999 and sorted(set(diffusion.timesteps)) == diffusion.timesteps
    assert diffusion.alphas_cumprod[0].item() == pytest.approx(1 - 1e-4) and diffusion.alphas_cumprod[-1].item() == pytest.approx(
        4.04e-5, rel=1e-2
    )
    assert torch.allclose(torch.cumprod(1 - diffusion.betas, 0), diffusion.alphas_cumprod)


def test_on_all_times_betas_are_linear():
    assert torch.allclose(Diffusion().betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))


def test_a_step_into_noise_leads_to_the_next_marginal():
    """Mean and variance of q(x_t | x_{t-1}) after q(x_{t-1} | x_0) are those of q(x_t | x_0)."""
    diffusion, images, zero, one = Diffusion(50), sample_images(2).double(), torch.zeros(()), torch.ones(())
    for t in (1, 20, 49):
        mean = diffusion.forward_step(diffusion.noised(images, t - 1, zero), t, zero)
        assert torch.allclose(mean, diffusion.noised(images, t, zero))
        carried = diffusion.forward_step(diffusion.noised(zero, t - 1, one), t, zero)
        added = diffusion.forward_step(zero, t, one)
        assert torch.allclose(carried**2 + added**2, diffusion.noised(zero, t, one) ** 2)


def test_who_knows_the_noise_finds_the_image():
    diffusion, images, eps = Diffusion(50), 0.9 * normal().clamp(-1, 1), normal(1)
    for t in (0, 1, 30, 49):
        output = torch.cat([eps, normal(2)], dim=1)
        sample, found = diffusion.reverse_step(diffusion.noised(images, t, eps), t, output, normal(3))
        assert torch.allclose(found, images, atol=1e-6)
    sample, _ = diffusion.reverse_step(diffusion.noised(images, 0, eps), 0, torch.cat([eps, eps], dim=1), normal(3))
    assert torch.allclose(sample, images, atol=1e-6)  # the last step adds no noise


def test_the_image_in_mind_is_clipped():
    _, found = Diffusion(50).reverse_step(3 * normal(), 10, torch.zeros(2, 6, 8, 8, dtype=torch.float64), normal(3))
    assert found.abs().max() == 1


def test_the_variance_lies_between_its_bounds_in_logarithms():
    """-1, 0, 1 mean the posterior's variance, the geometric mean of both, and beta."""
    diffusion, x, t = Diffusion(50), normal(), 20
    beta, kept, before = (values[t].item() for values in (diffusion.betas, diffusion.alphas_cumprod, diffusion.alphas_cumprod_before))
    posterior = beta * (1 - before) / (1 - kept)
    for position, variance in ((-1.0, posterior), (0.0, math.sqrt(posterior * beta)), (1.0, beta)):
        output = torch.cat([normal(1), torch.full_like(x, position)], dim=1)
        with_noise, without = (diffusion.reverse_step(x, t, output, noise)[0] for noise in (torch.ones_like(x), torch.zeros_like(x)))
        assert torch.allclose((with_noise - without) ** 2, torch.full_like(x, variance))


def test_the_mean_is_the_posteriors():
    """q(x_{t-1} | x_t, x_0) by Bayes: precisions of q(x_{t-1} | x_0) and q(x_t | x_{t-1}) add up."""
    diffusion, images, eps, t = Diffusion(50), 0.9 * normal().clamp(-1, 1), normal(1), 20
    x = diffusion.noised(images, t, eps)
    mean, _ = diffusion.reverse_step(x, t, torch.cat([eps, eps], dim=1), torch.zeros_like(x))
    beta, before = diffusion.betas[t], diffusion.alphas_cumprod_before[t]
    precision = 1 / (1 - before) + (1 - beta) / beta
    assert torch.allclose(mean, (before.sqrt() * images / (1 - before) + (1 - beta).sqrt() * x / beta) / precision, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f"2 to 1000 steps, got {steps}"):
        Diffusion(steps)


# --- noise -------------------------------------------------------------------------------------------------------------------------


def test_noise_belongs_to_its_image_and_seed():
    images = sample_images(3)
    first, second = (noise := Noise([5, 6, 5], images))(), noise()
    assert first.shape == images.shape and torch.equal(first[0], first[2]) and not torch.allclose(first[0], first[1], atol=0.1)
    assert not torch.allclose(first, second, atol=0.1)
    alone = Noise(torch.tensor([6]), images[1:2])
    assert torch.equal(alone(), first[1:2]) and torch.equal(alone(), second[1:2])
    same = Noise(6, images)()
    assert torch.equal(same, first[1].expand(3, -1, -1, -1)) and torch.equal(Noise(torch.tensor(6), images)(), same)
    assert first.mean().item() == pytest.approx(0, abs=0.05) and first.std().item() == pytest.approx(1, abs=0.05)
    assert Noise(0, images.double())().dtype == torch.float64


def test_noise_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    Noise(0, sample_images(1))()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_other_numbers_of_seeds_are_refused():
    for seeds in ([1, 2], [1], torch.tensor([1])):
        with pytest.raises(ValueError, match=f"one for each of the 3 images, got {len(seeds)}"):
            Noise(seeds, sample_images(3))


# --- gradients ---------------------------------------------------------------------------------------------------------------------


def test_a_step_is_kept_for_the_gradient_only_where_wanted():
    calls = []

    def step(x):
        calls.append(x)
        return x**3

    x = torch.tensor([2.0], requires_grad=True)
    y = step_with_gradient(step, x, wanted=True)
    y.backward()
    assert x.grad.item() == pytest.approx(12) and len(calls) == 2  # once more on the way back
    assert not step_with_gradient(step, x, wanted=False).requires_grad
    with torch.no_grad():
        assert not step_with_gradient(step, x, wanted=True).requires_grad
