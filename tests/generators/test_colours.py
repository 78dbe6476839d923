"""L*a*b* against what is known of it."""

from __future__ import annotations

import pytest
import torch

from generators.colours import lab_to_rgb, rgb_to_lab


def one(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
    ],
)
def test_colours_are_where_tables_have_them(rgb, lab):
    assert rgb_to_lab(one(*rgb)).flatten().tolist() == pytest.approx(lab, abs=0.02)
    assert lab_to_rgb(one(*lab)).flatten().tolist() == pytest.approx(rgb, abs=5e-3)


def test_there_and_back_is_the_identity():
    """Up to the last printed digit of the two matrices, each the other's inverse."""
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-4)


def test_what_no_screen_shows_is_clipped():
    rgb = lab_to_rgb(one(50, 120, -120))
    assert rgb.flatten().tolist() == pytest.approx([0.722, 0, 1], abs=1e-3) and rgb.min() >= 0 and rgb.max() <= 1


def test_gradients_are_right_and_finite_at_black_and_white():
    rgb = torch.rand(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(0.8).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, rgb)
    assert torch.autograd.gradcheck(lab_to_rgb, rgb_to_lab(rgb).detach().requires_grad_())
    for ends in (torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)):
        ends.requires_grad_()
        lab_to_rgb(rgb_to_lab(ends)).sum().backward()
        assert ends.grad.isfinite().all()


def test_autocast_doesnt_coarsen_it():
    rgb = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = rgb_to_lab(rgb)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rgb_to_lab(rgb), expected)
