"""Attack templates against closed forms: linear losses, where every attack's optimum is known, and quadratic ones."""

import math

import pytest
import torch

from malp_disc.benchmark.attack_templates import EPSILON, PGD_STEP, cw, fgsm, pgd, psnr_of, scaled_to

SLOPE = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))


def linear(template, step):
    return (SLOPE * template).sum()


def test_fgsm_is_epsilon_times_the_sign_of_the_gradient():
    assert torch.equal(fgsm(linear, 6, epsilon=0.05), -0.05 * SLOPE.sign())


def test_fgsm_takes_the_mean_gradient_of_its_batches():
    slopes = [SLOPE, -3 * SLOPE]
    assert torch.equal(fgsm(lambda template, step: (slopes[step] * template).sum(), 6, batches=2), EPSILON * SLOPE.sign())


def test_pgd_of_a_linear_loss_ends_in_the_corner_of_the_ball():
    assert torch.allclose(pgd(linear, 6, epsilon=0.05, step_size=0.01, steps=10), -0.05 * SLOPE.sign())


def test_pgd_stays_in_its_ball_in_every_step():
    seen = []

    def watched(template, step):
        seen.append(template.detach().abs().max().item())
        return linear(template, step)

    last = pgd(watched, 6, epsilon=0.05, step_size=0.04, steps=8)
    assert max(seen + [last.abs().max().item()]) <= 0.05 + 1e-9 and len(seen) == 8


def test_pgd_finds_a_minimum_inside_the_ball_to_within_its_step():
    minimum = 0.03 * SLOPE.clamp(-1, 1)
    found = pgd(lambda template, step: (template - minimum).square().sum(), 6)
    assert (found - minimum).abs().max() <= PGD_STEP + 1e-7


def test_each_step_of_an_attack_sees_a_minibatch_of_its_own():
    for attack, steps in ((lambda loss: pgd(loss, 4, steps=3), 3), (lambda loss: cw(loss, 4, steps=3), 3), (lambda loss: fgsm(loss, 4, batches=3), 3)):
        seen = []
        attack(lambda template, step, seen=seen: seen.append(step) or template.sum())
        assert seen == list(range(steps))


def test_pgd_depends_on_its_seed_alone():
    one, same, other = (pgd(lambda template, step: 0 * template.sum(), 6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.abs().max() <= EPSILON


def test_cw_of_a_quadratic_loss_shrinks_its_minimum_by_the_penalty():
    """mean δ²/b² + c · mean (δ - a)²/b² has its minimum at δ = c a / (1 + c)."""
    a = 0.05 * SLOPE.clamp(-1, 1)
    found = cw(lambda template, step: ((template - a) / 0.1).square().mean(), 6, c=3, bound=0.1, steps=600)
    assert torch.allclose(found, 0.75 * a, atol=2e-3)


def test_cw_stays_below_its_bound_however_large_the_loss():
    found = cw(linear, 6, c=1e6, bound=0.1, steps=300)
    assert torch.equal(found.sign(), -SLOPE.sign())
    assert 0.08 < found.abs().min() and found.abs().max() <= 0.1


def test_cw_without_a_slope_goes_to_zero():
    assert cw(lambda template, step: 0 * template.sum(), 6, steps=300).abs().max() < 1e-4


def test_strength_can_be_made_equal_for_all_attacks():
    assert psnr_of(fgsm(linear, 6)) == pytest.approx(20 * math.log10(2 / EPSILON), abs=1e-4)
    assert psnr_of(scaled_to(SLOPE, 33.0)) == pytest.approx(33.0, abs=1e-4)
    assert psnr_of(torch.zeros(6, 6)) == math.inf
    weak = cw(linear, 6, c=1e-3, bound=0.5, psnr=30.0)
    assert psnr_of(weak) == pytest.approx(30.0, abs=0.01)


@pytest.mark.parametrize(
    "attack, said",
    [
        (lambda: fgsm(linear, 6, epsilon=3), "largest change in \\(0, 2\\]"),
        (lambda: fgsm(linear, 6, batches=0), "batches above 0"),
        (lambda: pgd(linear, 6, step_size=-1), "step size above 0"),
        (lambda: cw(linear, 6, c=math.inf), "c above 0"),
        (lambda: fgsm(lambda template, step: (template / 0).sum() * 0, 6), "isn't finite in step 0"),
    ],
)
def test_unusable_settings_are_refused(attack, said):
    with pytest.raises(ValueError, match=said):
        attack()
