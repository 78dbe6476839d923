"""Structural similarity: known values, the definition written out, and the numbers of torchmetrics up to rounding."""

from __future__ import annotations

import pytest
import torch

from malp_disc.ssim import structural_similarity


def pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))


def test_an_image_is_like_itself_and_the_order_does_not_matter():
    a, b = pair(2, 3, 20, 24)
    assert torch.allclose(structural_similarity(a, a, data_range=1.0), torch.ones(2))
    assert torch.allclose(structural_similarity(a, b, data_range=1.0), structural_similarity(b, a, data_range=1.0))


def test_constant_images_have_the_closed_form():
    """Variances and covariance are 0, so only the means are left: (2 μx μy + c1) / (μx² + μy² + c1)."""
    a, b = (torch.full((1, 1, 16, 16), value, dtype=torch.float64) for value in (0.2, 0.6))
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert structural_similarity(a, b, data_range=1.0).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shape", "data_range"), [((3, 1, 32, 32), 1.0), ((1, 5, 16, 24), 1.0), ((2, 3, 64, 48), 2.0), ((1, 1, 6, 6), 1.0)])
def test_values_and_gradients_are_those_of_torchmetrics(shape, data_range):
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = pair(*shape)
    gradients = []
    for similarity in (structural_similarity, lambda *x, **k: structural_similarity_index_measure(*x, **k, reduction="none")):
        image = a.clone().requires_grad_()
        values = similarity(image, b, data_range=data_range)
        values.sum().backward()
        gradients.append((values.detach(), image.grad))
    (value, gradient), (their_value, their_gradient) = gradients
    torch.testing.assert_close(value, their_value.reshape(-1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-3, atol=1e-7)


def literal_similarity(a: torch.Tensor, b: torch.Tensor, data_range: float) -> torch.Tensor:
    """The formula with each pixel's window of 11×11 neighbours, mirrored at the border, weighted by a Gaussian of two variables."""
    place = torch.arange(-5, 6, dtype=a.dtype)
    weights = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    weights = weights / weights.sum()
    x, y = (torch.nn.functional.pad(values, (5, 5, 5, 5), mode="reflect").unfold(2, 11, 1).unfold(3, 11, 1) for values in (a, b))  # (B, C, H, W, 11, 11)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (weights * values).sum((-2, -1))

    mx, my = mean(x), mean(y)
    away_x, away_y = x - mx[..., None, None], y - my[..., None, None]
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mx * my + c1) * (2 * mean(away_x * away_y) + c2) / ((mx**2 + my**2 + c1) * (mean(away_x**2) + mean(away_y**2) + c2))
    return similarity.mean((1, 2, 3))


@pytest.mark.parametrize(("shape", "data_range"), [((3, 1, 32, 32), 1.0), ((1, 5, 16, 24), 1.0), ((2, 3, 33, 18), 2.0), ((1, 1, 6, 6), 1.0)])
def test_rows_and_columns_of_the_window_one_after_the_other_are_the_window(shape, data_range):
    a, b = pair(*shape, dtype=torch.float64)
    torch.testing.assert_close(structural_similarity(a, b, data_range=data_range), literal_similarity(a, b, data_range), rtol=1e-9, atol=0)
    single = structural_similarity(a.float(), b.float(), data_range=data_range)
    torch.testing.assert_close(single.double(), literal_similarity(a, b, data_range), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_the_derivative():
    a, b = pair(1, 2, 8, 9, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: structural_similarity(x, b, data_range=1.0), a.requires_grad_())


@pytest.mark.parametrize(("a", "b", "words"), [((1, 1, 16, 16), (1, 1, 16, 8), "one shape"), ((1, 16, 16), (1, 16, 16), "one shape"), ((1, 1, 5, 16), (1, 1, 5, 16), "at least 6x6")])
def test_shapes_that_do_not_fit_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        structural_similarity(torch.zeros(a), torch.zeros(b), data_range=1.0)


def test_levels_of_0_to_255_are_refused_on_either_side():
    images, levels = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    for pair in ((images, levels), (levels, images)):
        with pytest.raises(ValueError, match="in floating point, got .*uint8"):
            structural_similarity(*pair, data_range=2.0)
