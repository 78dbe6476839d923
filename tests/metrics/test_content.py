"""Edge agreement falls with known damages of the content, and not with what a translation may change."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from malp_disc.data.faces import draw_faces
from malp_disc.metrics.content import edge_agreement


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return draw_faces(range(8), 64)[0]


def agreement(images: torch.Tensor, edited: torch.Tensor) -> float:
    return edge_agreement(images, edited.clamp(-1, 1)).mean().item()


def test_a_copy_keeps_everything_and_an_unrelated_or_flat_image_nothing(images):
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert agreement(images, images) > 0.99
    assert abs(agreement(images, noise)) < 0.1 and agreement(images, torch.zeros_like(images)) == 0
    assert edge_agreement(torch.zeros_like(images), noise).tolist() == [0.0] * 8


def test_gradients_at_right_angles_disagree_by_hand():
    """cos 2θ is 1 along the same direction, either way, -1 at right angles and 0 at 45°."""
    ramp = torch.linspace(-0.9, 0.9, 32)
    across, down = ramp.expand(1, 3, 32, 32), ramp[:, None].expand(1, 3, 32, 32)
    inner = (..., slice(8, 24), slice(8, 24))  # away from the reflected border
    for edited, expected in ((across, 1), (-across, 1), (0.3 * across, 1), (down, -1), ((across + down) / 2, 0)):
        assert edge_agreement(across[inner].contiguous(), edited[inner].contiguous()).item() == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda x, s: x.roll(int(s), dims=-1),
        lambda x, s: F.interpolate(F.interpolate(x, scale_factor=1 / (1 + s), mode="bilinear", antialias=True), x.shape[2:], mode="bilinear"),
        lambda x, s: x + 0.15 * s * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
        lambda x, s: torch.cat([torch.zeros_like(x[..., : int(12 * s)]), x[..., int(12 * s) :]], dim=-1),
    ],
    ids=["moved", "blurred", "noisy", "partly erased"],
)
def test_it_falls_the_more_the_stronger_the_damage(images, damage):
    values = [agreement(images, damage(images, strength)) for strength in (0, 1, 2, 4)]
    assert all(later < earlier - 0.01 for earlier, later in zip(values, values[1:])), values


def test_brightness_contrast_inversion_and_colour_leave_it(images):
    for edited in (-images, 0.5 * images, images.flip(1), ((images + 1) / 2).square() * 2 - 1, 0.5 * images + 0.4):
        assert agreement(images, edited) > 0.9


def test_stripes_on_smooth_places_cost_less_than_a_shift_of_two_pixels(images):
    """What horse to zebra adds: edges where there were none."""
    rows = torch.sin(torch.arange(64.0) * 2 * torch.pi / 8)[:, None]
    smooth = (F.avg_pool2d((images - F.avg_pool2d(images, 5, 1, 2)).abs().mean(1, keepdim=True), 9, 1, 4) < 0.05).float()
    striped = images + 0.3 * rows * smooth
    assert smooth.mean() > 0.2
    assert agreement(images, striped) > agreement(images, images.roll(2, -1))


def test_half_precision_is_computed_in_float32_and_wrong_input_refused(images):
    assert torch.allclose(edge_agreement(images.bfloat16(), images.bfloat16()), edge_agreement(images.bfloat16().float(), images.bfloat16().float()))
    with pytest.raises(ValueError, match="divide by 127.5"):
        edge_agreement(images, images * 127.5 + 127.5)
    with pytest.raises(ValueError, match="at least 5 pixels, got 4x4"):
        edge_agreement(images[..., :4, :4], images[..., :4, :4])
