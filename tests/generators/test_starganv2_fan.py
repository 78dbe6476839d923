"""The masks of StarGAN v2: what moves where, and a landmark network that is never trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generators.starganv2_fan import FAN, face_alignment, face_masks, shifted, with_coordinates
from tests.tiny import sample_images


def test_coordinates_by_hand():
    """Three rows and two columns: rows -1 0 1, columns -1 1, and the corners farthest from the middle."""
    rows, columns, radius = with_coordinates(torch.zeros(1, 1, 3, 2))[0, 1:]
    assert torch.equal(rows, torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]))
    assert torch.equal(columns, torch.tensor([[-1.0, 1.0]]).expand(3, 2))
    assert torch.allclose(radius, torch.tensor([[1.0, 1.0], [0.5**0.5, 0.5**0.5], [1.0, 1.0]]))


def test_shifting_goes_up_by_positive_rows_and_round():
    x = torch.arange(4.0).view(1, 1, 4, 1)
    assert shifted(x, 1).flatten().tolist() == [1, 2, 3, 0] and shifted(x, -1).flatten().tolist() == [3, 0, 1, 2]


def bump(landmark: int, row: int = 32) -> Tensor:
    """Heat maps that are empty but for one."""
    heatmaps = torch.zeros(1, 98, 64, 64)
    squares = (torch.arange(64)[:, None] - row) ** 2 + (torch.arange(64)[None, :] - 32) ** 2
    heatmaps[:, landmark] = torch.exp(-squares / (2 * 1.5**2))
    return heatmaps


@pytest.mark.parametrize(
    ("landmark", "down", "fine"),
    [
        (10, 0, False),
        (40, 7, False),
        (51, 0, True),
        (54, -4, True),
        (57, -8, True),
        (80, 8, False),
        (85, -8, False),
        (90, 2, False),
        (95, 2, False),
    ],
)
def test_each_part_of_the_face_moves_by_its_rows(landmark, down, fine):
    """Chin, brow, nose, nostril, lips; landmark row 32 of 64 is near row 130 of 256. What isn't fine isn't in the second mask."""
    coarse, second = face_masks(bump(landmark))
    assert coarse.shape == second.shape == (1, 1, 256, 256) and 0.99 < coarse.max() <= 1
    reference = face_masks(bump(51))[0][0, 0].amax(dim=1).argmax()
    assert coarse[0, 0].amax(dim=1).argmax() - reference == down
    assert bool(second.any()) == fine


def test_an_eye_is_kept_twice_and_lower_than_it_is():
    row = face_masks(bump(60))[0][0, 0].amax(dim=1)
    reference = face_masks(bump(51))[0][0, 0].amax(dim=1).argmax()
    assert row[reference + 24] > 0.99 and row[reference + 8] > 0.99 and row[reference + 24 :].argmax() == 0


@pytest.mark.parametrize("landmark", [0, 7, 25, 33, 46, 76, 82])
def test_some_landmarks_dont_count(landmark):
    assert not any(mask.any() for mask in face_masks(bump(landmark)))


def test_masks_are_between_0_and_1_whatever_the_heat_maps():
    for mask in face_masks(torch.randn(2, 98, 64, 64) * 5):
        assert mask.min() >= 0 and mask.max() <= 1 and mask.isfinite().all()


def test_the_network_stays_as_it_is_and_its_masks_carry_no_gradient():
    torch.manual_seed(0)
    parent = nn.Sequential(FAN()).train()
    assert not any(module.training for module in parent[0].modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    images = sample_images(1, 64, 64).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = parent[0].masks(images)
    assert all(mask.shape == (1, 1, 256, 256) and mask.dtype == torch.float32 and not mask.requires_grad for mask in masks)
    assert torch.equal(masks[0], parent[0].masks(images)[0])


def test_wing_ckpt_loads_and_what_the_network_hasnt_is_left_alone(tmp_path):
    torch.manual_seed(0)
    network = FAN()
    state = {key: value for key, value in network.state_dict().items() if "tracked" not in key}
    torch.save({"epoch": 3, "state_dict": {**state, "m1.odd.weight": torch.zeros(2)}}, tmp_path / "wing.ckpt")
    loaded = face_alignment(tmp_path / "wing.ckpt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    torch.save(nn.Conv2d(3, 7, 3).state_dict(), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt is not a checkpoint of this FAN: .*conv1\.conv.*unknown, first \['weight', 'bias'\]"):
        face_alignment(tmp_path / "other.ckpt")
