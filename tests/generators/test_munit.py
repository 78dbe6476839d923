"""MUNIT: the files people have of it; an image's content with another domain's style."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.munit import MUNIT
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"dim": 4, "n_res": 1, "style_dim": 5, "mlp_dim": 8}


class TestContract(GeneratorContract):
    name = "munit"
    config = TINY
    untouched = ("a.dec", "a.mlp", "a.enc_style", "b.enc_content", "b.enc_style")

    def target(self, count: int) -> Tensor:
        return torch.linspace(-1, 1, 5 * count).view(count, 5)


def tiny() -> MUNIT:
    torch.manual_seed(0)
    return MUNIT(**TINY).eval()


def test_the_content_is_the_sources_and_the_style_the_goals():
    network, images, style = tiny(), sample_images(2), torch.randn(2, 5)
    assert torch.equal(network.manipulate(images, style), network.b.decode(network.a.enc_content(images), style))


def test_each_image_gets_its_own_style():
    network, image = tiny(), sample_images(1).expand(2, -1, -1, -1)
    style = torch.randn(2, 5)
    output = network.manipulate(image, style)
    assert not torch.allclose(output[0], output[1], atol=1e-4)
    assert torch.allclose(output.flip(0), network.manipulate(image, style.flip(0)), atol=1e-6)


def test_a_references_gradient_reaches_the_goals_style_encoder():
    network = tiny()
    (network.manipulate(sample_images(2), sample_images(2, seed=1)) * sample_images(2, seed=3)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.b.enc_style.parameters())
    assert all(parameter.grad is None for parameter in network.a.enc_style.parameters())


@pytest.mark.parametrize("old", [False, True])
def test_the_published_layout_loads_and_the_widths_are_read_from_it(tmp_path, old):
    """PyTorch 0.3 wrote statistics of the content encoder's norms, too; those of the adaptive norms mean nothing in either."""
    network, images = tiny(), sample_images(2)
    file = {side: dict(getattr(network, side).state_dict()) for side in "ab"}
    if old:
        for state in file.values():
            state |= {
                key.replace("conv.weight", "norm.running_mean"): torch.ones(1)
                for key in state
                if re.match(r"enc_content.*conv\.weight", key)
            }
            assert any("enc_content" in key and "running" in key for key in state)
    else:
        for state in file.values():
            state |= {key: torch.randn_like(value) for key, value in state.items() if "running" in key}
    torch.save(file, tmp_path / "edges2shoes.pt")
    loaded = create_generator("munit", tmp_path / "edges2shoes.pt").eval()
    assert loaded.config == {"direction": "a2b", "input_dim": 3, "n_downsample": 2, **TINY}
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


def test_units_file_is_refused(tmp_path):
    create = {"dim": 4, "n_res": 1}
    other = create_generator("unit", **create)
    torch.save({"a": other.a.state_dict(), "b": other.b.state_dict()}, tmp_path / "unit.pt")
    with pytest.raises(
        ValueError, match=r"unit.pt is not a checkpoint of this MUNIT: \d+ missing, first \['a\.enc_style.*unknown, first \['a\.enc\.model"
    ):
        create_generator("munit", tmp_path / "unit.pt")
    with pytest.raises(ValueError, match=r"style_dim is 5 in the file and 8 was asked for"):
        network = tiny()
        torch.save({"a": network.a.state_dict(), "b": network.b.state_dict()}, tmp_path / "munit.pt")
        create_generator("munit", tmp_path / "munit.pt", style_dim=8)
