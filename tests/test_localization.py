"""E_C and E_T: sizes, depth, un-patchify, and that neither the head nor the neighbours in a batch can spoil a map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from malp_disc.localization import GlobalTransformer, ShallowCNN
from tests.tiny import sample_images


@pytest.fixture(scope="module")
def cnn() -> ShallowCNN:
    torch.manual_seed(0)
    return ShallowCNN(8)


@pytest.fixture(scope="module")
def transformer() -> GlobalTransformer:
    torch.manual_seed(0)
    return GlobalTransformer(32, depth=2).eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (17, 33), (64, 16)])
def test_the_cnn_gives_a_map_and_a_template_at_full_resolution(cnn, height, width):
    maps, template = cnn(sample_images(2, height, width))
    assert maps.shape == template.shape == (2, 1, height, width)
    assert 0 < maps.min() and maps.max() < 1
    assert template.isfinite().all()


def test_ten_convolutions_lead_to_the_map_and_three_blocks_more_to_the_template(cnn):
    """Counted as they run. The authors' width is 64: 3·3 kernels throughout."""
    order: list[str] = []
    handles = [m.register_forward_hook(lambda *_, n=n: order.append(n)) for n, m in cnn.named_modules() if isinstance(m, nn.Conv2d)]
    cnn(sample_images(1))
    for handle in handles:
        handle.remove()
    to_map = [name for name in order if not name.startswith("recovery")]
    assert len(to_map) == 10 and to_map[-1] == "map_head"
    assert len([name for name in order if name.startswith("recovery")]) == 4
    assert {m.kernel_size for m in cnn.modules() if isinstance(m, nn.Conv2d)} == {(3, 3)}


def test_maps_start_low():
    """sigmoid(-2) = 0.12, give or take what the random weights add: most pixels are unchanged at first."""
    torch.manual_seed(0)
    assert ShallowCNN(16)(sample_images(4))[0].mean().item() == pytest.approx(0.12, abs=0.08)


@pytest.mark.parametrize("bias", [-12.0, -30.0])
def test_a_map_that_is_saturated_low_can_rise_again(bias):
    """A batch-norm-ReLU head would be dead here: gradient exactly 0. This one pulls the bias up, and reaches every layer before it."""
    torch.manual_seed(0)
    cnn = ShallowCNN(8)
    nn.init.constant_(cnn.map_head.bias, bias)
    maps, _ = cnn(sample_images(2))
    assert maps.max() < 1e-3
    (maps - 0.5).square().mean().mul(1e6).backward()
    assert cnn.map_head.bias.grad.item() < 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in [*cnn.trunk.parameters(), *cnn.map_head.parameters()])


def test_an_images_map_doesnt_depend_on_its_neighbours_nor_on_the_mode(cnn):
    images = sample_images(3)
    alone = cnn(images[:1])
    among_others = cnn(torch.cat([images[:1], 3 * images[1:].clamp(-0.3, 0.3)]))
    for one, other in zip(alone, among_others):
        assert torch.allclose(one, other[:1], atol=1e-5)
    cnn.eval()
    evaluated = cnn(images[:1])
    cnn.train()
    assert torch.equal(alone[0], evaluated[0]) and torch.equal(alone[1], evaluated[1])


def test_a_map_follows_the_image_when_it_is_shifted(cnn):
    """All convolutions have stride 1. Away from the borders a shift by 3 pixels shifts the map; the norms see the same values, rolled."""
    images = torch.zeros(1, 3, 48, 48)
    images[:, :, 20:26, 20:26] = 0.8
    maps, shifted = cnn(images)[0], cnn(images.roll(3, 3))[0]
    assert torch.allclose(maps.roll(3, 3)[..., 12:36, 15:36], shifted[..., 12:36, 15:36], atol=1e-4)
    assert not torch.allclose(maps[..., 12:36, 15:36], shifted[..., 12:36, 15:36], atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48), (40, 24)])
def test_the_transformer_gives_a_map_at_full_resolution(transformer, height, width):
    maps = transformer(sample_images(2, height, width))
    assert maps.shape == (2, 1, height, width)
    assert 0 < maps.min() and maps.max() < 1


def test_the_transformer_refuses_sides_that_its_patches_dont_divide(transformer):
    with pytest.raises(ValueError, match="divisible by its patch of 8, got 20x32"):
        transformer(sample_images(1, 20, 32))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_token_k_becomes_patch_k_and_its_numbers_that_patchs_pixels(transformer, monkeypatch, height, width):
    """Tokens that say their own number, and a last layer that adds 1/1000 of the pixel's number, row by row within the patch."""
    rows, columns = height // 8, width // 8
    tokens = torch.zeros(1, rows * columns, 64)
    tokens[0, :, 0] = torch.arange(rows * columns)
    monkeypatch.setattr(transformer.vit, "forward_features", lambda _: tokens)
    state = {name: value.clone() for name, value in transformer.to_pixels.state_dict().items()}
    with torch.no_grad():
        transformer.to_pixels.weight.zero_()[:, 0] = 0.1
        transformer.to_pixels.bias.copy_(torch.arange(64) / 1000)
        result = transformer(sample_images(1, height, width))[0, 0].logit()
        transformer.to_pixels.load_state_dict(state)
    for y in range(height):
        for x in range(width):
            token, pixel = (y // 8) * columns + x // 8, (y % 8) * 8 + x % 8
            assert result[y, x].item() == pytest.approx(0.1 * token + pixel / 1000, abs=1e-4)


def test_without_attention_a_patch_of_the_image_moves_its_own_patch_of_the_map_and_no_other():
    """From image to map: a transformer of depth 0 is patch embedding, norm and un-patchify."""
    torch.manual_seed(0)
    transformer = GlobalTransformer(32, depth=0).eval()
    images = sample_images(1, 24, 40)
    changed = images.clone()
    changed[:, :, 8:16, 24:32] *= -1
    difference = (transformer(images) - transformer(changed)).abs()[0, 0]
    inside = difference[8:16, 24:32].clone()
    difference[8:16, 24:32] = 0
    assert inside.max() > 1e-3 and difference.max() == 0


def test_with_attention_a_patch_moves_the_whole_map(transformer):
    images = sample_images(1)
    changed = images.clone()
    changed[:, :, :8, :8] *= -1
    assert ((transformer(images) - transformer(changed)).abs()[0, 0, 16:, 16:] > 0).float().mean() > 0.9


def test_the_transformer_learns_in_every_parameter():
    """The authors' is detached: none of its 74 parameters gets a gradient."""
    torch.manual_seed(0)
    transformer = GlobalTransformer(32, depth=2).train()
    (transformer(sample_images(2)) - 0.5).square().mean().backward()
    assert [name for name, parameter in transformer.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []
