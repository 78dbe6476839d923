"""Frozen backbones: which weights they have, that they never learn, and clear errors."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from malp_disc.backbones import create_backbone, enlarged_without_nyquist, fold_batch_norms, near_nyquist, without_nyquist
from malp_disc.runtime.freezing import unfreeze

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def tiny():
    return create_backbone(TINY, "random")


def test_feature_maps_of_four_depths_from_the_finest_and_images_are_enlarged_to_the_least_side(tiny):
    assert tiny.strides == (4, 8, 16, 32)
    for size, height, width in (((20, 40), 64, 128), ((96, 64), 96, 64)):
        maps = tiny(torch.zeros(2, 3, *size), least_side=64)
        assert [tuple(m.shape) for m in maps] == [(2, c, height // s, width // s) for c, s in zip(tiny.channels, tiny.strides)]


def test_random_weights_are_the_same_every_time_and_leave_the_callers_random_numbers_alone(tiny):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = create_backbone(TINY, "random")
    assert torch.equal(torch.rand(3), expected) and again.fingerprint == tiny.fingerprint


def test_it_never_learns_whatever_its_parents_do(tiny):
    parent = nn.ModuleList([nn.Linear(1, 1), create_backbone(TINY, "random")])
    unfreeze(parent).requires_grad_(True).train()
    assert parent[0].weight.requires_grad and not any(p.requires_grad for p in parent[1].parameters())
    assert not any(part.training for part in parent[1].modules())
    images = torch.rand(1, 3, 64, 64).requires_grad_(True)
    sum(m.sum() for m in parent[1](images, least_side=64)).backward()
    assert images.grad.abs().max() > 0
    assert parent[1].half().network.network.conv_stem.weight.dtype == torch.float32


def test_weights_from_a_file_give_the_features_of_timms_own_model(tmp_path):
    torch.manual_seed(1)
    model = timm.create_model(TINY, pretrained=False).eval()
    save_file(model.state_dict(), str(tmp_path / "w.safetensors"))
    backbone, images = create_backbone(TINY, tmp_path / "w.safetensors"), torch.rand(1, 3, 64, 64) * 2 - 1
    cfg = timm.get_pretrained_cfg(TINY)
    normalized = ((without_nyquist(images) + 1) / 2 - torch.tensor(cfg.mean).view(3, 1, 1)) / torch.tensor(cfg.std).view(3, 1, 1)
    with torch.no_grad():
        expected = model.forward_intermediates(normalized, intermediates_only=True)
        for ours, theirs in zip(backbone(images, least_side=64), expected[-4:]):
            torch.testing.assert_close(ours, theirs)
    assert backbone.fingerprint != create_backbone(TINY, "random").fingerprint


@pytest.mark.parametrize("pattern", ["rows", "columns", "checkerboard"])
def test_a_pattern_of_the_nyquist_frequency_is_neither_seen_nor_asked_for(tiny, pattern):
    signs = (-1.0) ** torch.arange(64)
    wave = {"rows": signs[:, None].expand(64, 64), "columns": signs[None].expand(64, 64), "checkerboard": signs[:, None] * signs[None]}[pattern]
    images = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5).requires_grad_(True)
    plain, patterned = tiny(images, least_side=64), tiny(images + 0.3 * wave, least_side=64)
    for a, b in zip(plain, patterned):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    sum(maps.square().sum() for maps in plain).backward()
    along = lambda direction: (images.grad * direction).sum((2, 3)).abs().max()  # noqa: E731
    assert along(wave) < 1e-5 * along(torch.ones(64, 64)) and images.grad.abs().max() > 0


def test_the_filter_keeps_the_size_and_plain_colours():
    assert torch.equal(without_nyquist(torch.full((2, 3, 5, 8), 0.25)), torch.full((2, 3, 5, 8), 0.25))
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 16
    assert torch.equal(without_nyquist(point)[0, 0, 1:4, 1:4], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))


@pytest.mark.parametrize("size", [(7, 10), (64, 64)])
def test_enlarging_and_filtering_by_matrices_is_torchs_interpolation_and_the_filter(size):
    images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = without_nyquist(nn.functional.interpolate(images, size=(128, 130), mode="bilinear", align_corners=False))
    ours, weights = enlarged_without_nyquist(images, (128, 130)), torch.randn(2, 3, 128, 130, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(*(torch.autograd.grad((values * weights).sum(), images) for values in (ours, expected)))
    single = images.detach().float()
    expected = without_nyquist(nn.functional.interpolate(single, size=(128, 130), mode="bilinear", align_corners=False))
    torch.testing.assert_close(enlarged_without_nyquist(single, (128, 130)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", [TINY, "tf_efficientnet_lite0"])
def test_folded_batch_norms_leave_features_and_gradients_as_they_were(name):
    """Weights and statistics are drawn far from their initial values, which folding would leave alone."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, features_only=True).eval().double()  # rounding to float32 moves kinks of ReLU6
    for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
        for values, low in ((norm.weight, 0.5), (norm.bias, -0.5), (norm.running_mean, -0.5), (norm.running_var, 0.5)):
            nn.init.uniform_(values, low, low + 1)
    folded, images = copy.deepcopy(network), torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    fold_batch_norms(folded)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    expected, found = network(images), folded(images)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-12 * a.abs().max().item())
    gradients = [torch.autograd.grad(sum(maps.square().mean() for maps in every), images)[0] for every in (expected, found)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-10 * gradients[0].abs().max().item())


def test_networks_that_arent_efficientnets_keep_their_norms():
    network = timm.create_model("test_resnet", pretrained=False, features_only=True)
    before = {name: type(part) for name, part in network.named_modules()}
    fold_batch_norms(network)
    assert {name: type(part) for name, part in network.named_modules()} == before


def test_lite0_of_the_installed_package_is_the_published_one():
    """The fingerprint was taken when the same weights, with the package's classifier, recognised 18 of 20 photographs of zebras."""
    backbone = create_backbone()
    state = backbone.network.network.state_dict()
    assert backbone.backbone == "tf_efficientnet_lite0" and backbone.channels == (24, 40, 112, 320)
    assert state["blocks.6.0.conv_pwl.bias"].any() and state["conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(value.abs().sum() > 0 for name, value in state.items() if name.endswith("weight"))
    assert backbone.fingerprint == "11d26e3d6dd304e7"


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [("resnettt", None, "no backbone 'resnettt'"), (TINY, "other", "is not a checkpoint of this"), (TINY, "missing", "1 missing, first .*conv_stem.weight")],
)
def test_wrong_names_and_weights_of_another_network_are_refused(tmp_path, name, keys, message):
    path = None
    if keys is not None:
        state = timm.create_model(TINY, pretrained=False).state_dict() if keys == "missing" else nn.Linear(2, 2).state_dict()
        state.pop("conv_stem.weight", None)
        path = tmp_path / "w.safetensors"
        save_file(state, str(path))
    with pytest.raises(ValueError, match=message):
        create_backbone(name, path)


@pytest.mark.parametrize("name", [TINY, "tf_efficientnet_lite0"])
def test_fewer_depths_are_the_finest_maps_of_the_same_network(name):
    whole, fine = create_backbone(name, "random"), create_backbone(name, "random", depths=2)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = fine(images, least_side=64)
    assert len(maps) == 2 and fine.strides == (4, 8) == whole.strides[:2] and fine.channels == whole.channels[:2]
    assert all(torch.equal(a, b) for a, b in zip(maps, whole(images, least_side=64)))
    assert fine.fingerprint == whole.fingerprint


def test_stages_that_no_head_looks_at_are_cut_off_an_efficientnet():
    fine = create_backbone("tf_efficientnet_lite0", "random", depths=2)
    assert sum(p.numel() for p in fine.parameters()) < sum(p.numel() for p in create_backbone("tf_efficientnet_lite0", "random").parameters()) / 20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pth"):
        create_backbone(TINY, tmp_path / "none.pth")


def test_a_backbone_for_one_size_names_it():
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 can't take images of 64x64 \(Input height \(64\) doesn't match model \(224\)"):
        create_backbone("vit_tiny_patch16_224", "random")(torch.zeros(1, 3, 64, 64), least_side=64)


def test_near_nyquist_measures_what_the_backbone_doesnt_see():
    flat, rows = torch.full((2, 3, 24, 20), 0.4), torch.ones(2, 3, 24, 20)
    rows[:, :, ::2] = -1
    columns, both = rows.transpose(2, 3), rows * torch.ones(20).index_fill(0, torch.arange(0, 20, 2), -1)
    for images, expected in ((flat, 0.0), (rows, 1.0), (columns, 1.0), (both, 2.0)):
        torch.testing.assert_close(near_nyquist(images), torch.tensor(expected))
    wave = torch.cos(torch.pi / 2 * torch.arange(20)).expand(2, 3, 24, 20)  # 0.25 cycles per pixel
    torch.testing.assert_close(near_nyquist(wave), torch.tensor(0.5 / 16), rtol=0.2, atol=0)
    torch.testing.assert_close(without_nyquist(rows)[:, :, 1:-1].abs().max(), torch.tensor(0.0))
