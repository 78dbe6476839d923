"""GDWCT: the colouring against its literal form, and the files people have of it, one per domain."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.gdwct import GDWCT, Coloring, GDWCTGenerator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"conv_dim": 4, "n_group": 4, "repeat_num": 2, "mlp_dim": 8, "bias_dim": 6}


class TestContract(GeneratorContract):
    name = "gdwct"
    config = TINY
    untouched = ("G_A.s_encoder", "G_A.decoder", "G_B.c_encoder")


def tiny(seed: int = 0) -> GDWCT:
    torch.manual_seed(seed)
    return GDWCT(**TINY).eval()


# --- the transformation ------------------------------------------------------------------------------------------------------------


def literal(layer: Coloring, content: Tensor, style: Tensor) -> Tensor:
    """One matrix of all channels, zero outside its diagonal blocks, as the paper writes it; the mean is the batch's."""
    count, n = layer.groups, layer.size
    flat = content.flatten(2)
    centred = flat - flat.mean(dim=(0, 2), keepdim=True)
    images_out = []
    for own, code, whole in zip(centred, style.flatten(1), flat):
        numbers = torch.cat([layer.mlp_CT(code[i * n : (i + 1) * n][None])[0] for i in range(count)])
        matrix = torch.zeros(count * n, count * n)
        for i in range(count):
            square = numbers[i * n * n : (i + 1) * n * n].view(n, n)
            lengths = torch.diag(square.square().sum(dim=0).sqrt())
            unit = square @ lengths.inverse()
            matrix[i * n : (i + 1) * n, i * n : (i + 1) * n] = unit @ lengths @ unit.T
        mean = layer.mlp_mu(code[None])[0][:, None]
        images_out.append(layer.alpha * (matrix @ own + mean) + (1 - layer.alpha) * whole)
    return torch.stack(images_out).view(content.shape)


@pytest.fixture
def layer() -> Coloring:
    torch.manual_seed(0)
    return Coloring(12, 3, 8, 6)


def test_the_colouring_is_its_literal_form(layer):
    content, style = torch.randn(2, 12, 5, 6) + 3, torch.randn(2, 12, 1, 1)
    assert torch.allclose(layer(content, style)[0], literal(layer, content, style), atol=1e-5)


def test_taken_image_by_image_the_neighbours_dont_matter(layer):
    content, style = torch.randn(2, 12, 5, 6), torch.randn(2, 12, 1, 1)
    alone = layer(content[:1], style[:1])[0]
    assert torch.allclose(layer(content, style, per_image=True)[0][:1], alone, atol=1e-6)
    assert not torch.allclose(layer(content, style)[0][:1], alone, atol=1e-3)
    assert torch.allclose(layer(content[:1], style[:1], per_image=True)[0], alone, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, -3.0])
def test_without_alpha_the_content_passes_and_with_all_of_it_its_mean_is_the_styles(layer, alpha):
    content, style = torch.randn(2, 12, 5, 6) + 3, torch.randn(2, 12, 1, 1)
    layer.alpha.data[:] = alpha
    assert torch.equal(layer(content, style)[0], content)
    layer.alpha.data[:] = 1 - alpha
    assert torch.allclose(layer(content, style, per_image=True)[0].mean(dim=(2, 3)), layer.mlp_mu(style.flatten(1)), atol=1e-5)


def test_the_lists_for_the_losses_are_covariances_and_unit_columns(layer):
    content, style = torch.randn(4, 12, 8, 8) * 2 + 5, torch.randn(4, 12, 1, 1)
    _, covariances, bases = layer(content, style)
    assert covariances.shape == (3, 4, 4) and bases.shape == (12, 4, 4)
    expected = torch.cov(content.transpose(0, 1).flatten(1)[4:8]) + 1e-5 * torch.eye(4)  # of the second group
    assert torch.allclose(covariances[1], expected, atol=1e-4)
    assert torch.allclose(bases.norm(dim=1), torch.ones(12, 4), atol=1e-5)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="a number of groups that divides the 16 channels, got n_group=3"):
        GDWCTGenerator(conv_dim=4, n_group=3)


# --- translation -------------------------------------------------------------------------------------------------------------------


def test_the_content_is_the_sources_and_the_style_the_goals():
    network, image, reference = tiny(), sample_images(1), sample_images(1, seed=1)
    expected = network.G_B.decode(network.G_A.c_encoder(image), network.G_B.s_encoder(reference))  # a batch of one, as the authors' test
    assert torch.equal(network.manipulate(image, reference), expected)


def test_without_a_target_an_image_is_its_own_reference():
    network, images = tiny(), sample_images(2)
    assert torch.equal(network.manipulate(images), network.manipulate(images, images))


# --- published files ---------------------------------------------------------------------------------------------------------------


def save(network: GDWCT, folder) -> None:
    for name in ("G_A", "G_B"):
        state = getattr(network, name).state_dict()
        torch.save({key: value for key, value in state.items() if "tracked" not in key}, folder / f"{name}_CelebA_Bangs_G4_320000.pth")


@pytest.mark.parametrize("given", ["G_A", "G_B"])
def test_either_domains_file_finds_the_other_beside_it_and_the_widths_are_read(tmp_path, given):
    network, images = tiny(), sample_images(2)
    save(network, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = create_generator("gdwct", tmp_path / f"{given}_CelebA_Bangs_G4_320000.pth").eval()
    assert loaded.config == {"direction": "a2b", **TINY}
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


def test_a_partner_under_another_name_is_given(tmp_path):
    network, images = tiny(), sample_images(2)
    torch.save(network.G_A.state_dict(), tmp_path / "one.pth")
    torch.save(network.G_B.state_dict(), tmp_path / "two.pth")
    loaded = create_generator("gdwct", tmp_path / "one.pth", partner=tmp_path / "two.pth").eval()
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


def test_one_file_alone_does_both_sides_and_says_so(tmp_path):
    network, images = tiny(), sample_images(2)
    torch.save(network.G_B.state_dict(), tmp_path / "G_B_CelebA_Bangs_G4_320000.pth")
    with pytest.warns(UserWarning, match=r"G_B_CelebA.*is one domain's network and the other's isn't beside it.*give partner="):
        loaded = create_generator("gdwct", tmp_path / "G_B_CelebA_Bangs_G4_320000.pth").eval()
    network.G_A = network.G_B
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


def test_other_arguments_and_halves_that_dont_match_are_refused(tmp_path):
    save(tiny(), tmp_path)
    path = tmp_path / "G_A_CelebA_Bangs_G4_320000.pth"
    with pytest.raises(ValueError, match="G_A_CelebA_Bangs_G4_320000.pth: n_group is 4 in the file and 8 was asked for"):
        create_generator("gdwct", path, n_group=8)
    other = GDWCTGenerator(**{**TINY, "mlp_dim": 5})
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        ValueError,
        match=r"is not a checkpoint of this GDWCT: G_B\.decoder\.gdwct_modules\.0\.mlp_CT.*\(5, 4\) in the file and \(8, 4\) here",
    ):
        create_generator("gdwct", path, partner=tmp_path / "other.pth")
