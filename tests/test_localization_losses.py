"""Localization losses (Eq. 8) against a slow restatement in float64 loops and by hand."""

from __future__ import annotations

import pytest
import torch

from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from tests.reference_losses import cs, j_l_encrypted, j_l_manipulated, only, rand


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    truth = rand(3, 1, 13, 14, seed=2)
    truth[1] = 0  # the generator left this one untouched
    return rand(3, 1, 13, 14, seed=1), truth


def test_j_l_of_encrypted_images_is_eq_8_first_case(maps):
    predicted, truth = maps[0], rand(3, 1, 13, 14, seed=3)
    weights = LossWeights(encrypted_zero=4.0, encrypted_cosine=0.7)
    expected = j_l_encrypted(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_encrypted(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


def test_j_l_of_manipulated_images_is_eq_8_second_case(maps):
    predicted, truth = maps
    weights = LossWeights(manipulated_cosine=1.7, manipulated_ssim=0.6, map_error=3.0, map_correlation=0.9)
    expected = j_l_manipulated(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_manipulated(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["manipulated_cosine", "manipulated_ssim", "map_error", "map_correlation"])
def test_each_weight_of_the_second_case_drives_its_own_term(maps, name):
    predicted, truth = maps
    weights = only(**{name: 2.0})
    expected = j_l_manipulated(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_manipulated(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


def test_weights_of_zero_switch_both_cases_off(maps):
    assert localization_loss_encrypted(*maps, only()).item() == 0
    assert localization_loss_manipulated(*maps, only()).item() == 0
    assert localization_loss_encrypted(*maps, only(manipulated_cosine=9.0, manipulated_ssim=9.0, map_error=9.0, map_correlation=9.0)).item() == 0
    assert localization_loss_manipulated(*maps, only(encrypted_zero=9.0, encrypted_cosine=9.0)).item() == 0


def test_a_perfect_map_costs_nothing(maps):
    truth = maps[0]
    assert localization_loss_manipulated(truth, truth, LossWeights()).item() == pytest.approx(0, abs=1e-5)


def test_a_zero_map_of_an_encrypted_image_costs_nothing(maps):
    assert localization_loss_encrypted(torch.zeros_like(maps[0]), maps[0], LossWeights()).item() == 0


def test_a_bright_spot_off_the_truth_gains_an_encrypted_image_nothing():
    """By the plain cosine a spot where nothing changes would lower λ5's term for a faint map; it must not."""
    truth, faint = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.01)
    truth[..., 14:, 14:] = 0
    spotted = faint.clone()
    spotted[..., 14:, 14:] = 0.5
    weights = only(encrypted_cosine=1.0)
    assert torch.nn.functional.cosine_similarity(spotted.flatten(), truth.flatten(), dim=0) < 0.2 < 0.9 < cs(faint.numpy(), truth.numpy())
    plain, marked = (localization_loss_encrypted(maps, truth, weights).item() for maps in (faint, spotted))
    assert plain < 0.06 and marked > 0.99 * plain
    assert localization_loss_encrypted(faint / 10, truth, weights).item() < 0.1 * plain + 1e-3, "the term goes to zero with the map"


def test_encrypted_by_hand():
    """M̂ = ½ everywhere: ‖M̂‖² is ¼; a constant truth is parallel to it: CS 1."""
    predicted, truth = torch.full((2, 1, 12, 12), 0.5), torch.full((2, 1, 12, 12), 0.2)
    assert localization_loss_encrypted(predicted, truth, only(encrypted_zero=4.0)).item() == pytest.approx(1.0)
    assert localization_loss_encrypted(predicted, truth, only(encrypted_cosine=3.0)).item() == pytest.approx(3.0, rel=1e-5)


def test_scale_is_free_for_the_cosine_and_costs_in_the_squared_error(maps):
    truth = maps[0]
    assert localization_loss_manipulated(truth / 2, truth, only(manipulated_cosine=1.0)).item() == pytest.approx(0, abs=1e-5)
    expected = (truth / 2).square().mean().item()
    assert localization_loss_manipulated(truth / 2, truth, only(map_error=1.0)).item() == pytest.approx(expected, rel=1e-5)


def test_a_constant_map_has_a_high_cosine_and_no_correlation():
    """Why Pearson's correlation stands beside Eq. 8: for maps that change everywhere a little, "everywhere alike" is nearly right by the cosine."""
    truth = 0.3 + 0.1 * torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    constant = torch.full_like(truth, 0.2)
    assert localization_loss_manipulated(constant, truth, only(manipulated_cosine=1.0)).item() < 0.01
    assert localization_loss_manipulated(constant, truth, only(map_correlation=1.0)).item() == pytest.approx(1, abs=1e-4)
    assert localization_loss_manipulated(0.5 * truth - 0.1, truth, only(map_correlation=1.0)).item() == pytest.approx(0, abs=1e-4)
