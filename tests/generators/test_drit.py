"""DRIT in both forms: the files people have of it, and an image's content with another domain's attribute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.drit import DRIT, joined
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images


class TestContract(GeneratorContract):
    name = "drit"
    config = {"dim": 4, "nz": 3}
    untouched = ("enc_a", "enc_c.convB", "gen.decA")

    def target(self, count: int) -> Tensor:
        return torch.linspace(-1, 1, 3 * count).view(count, 3)


class TestFeatureWiseContract(TestContract):
    config = {"dim": 4, "nz": 3, "concat": False}
    untouched = (*TestContract.untouched, "gen.mlpA")


def tiny(concat: bool = True) -> DRIT:
    torch.manual_seed(0)
    return DRIT(dim=4, nz=3, concat=concat).eval()


def test_a_code_joins_as_channels_that_are_the_same_everywhere():
    output = joined(torch.zeros(2, 4, 3, 5), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert output.shape == (2, 6, 3, 5) and not output[:, :4].any()
    assert (output[0, 5] == 2).all() and (output[1, 4] == 3).all()


@pytest.mark.parametrize("concat", [True, False])
def test_the_content_is_the_sources_and_the_attribute_the_goals(concat):
    network, images, code = tiny(concat), sample_images(2, 16, 24), torch.randn(2, 3)
    content = network.enc_c(images, "A")
    assert torch.equal(network.manipulate(images, code), network.gen(content, code, "B"))
    assert not torch.allclose(network.gen(content, code, "A"), network.gen(content, code, "B"), atol=1e-3)


@pytest.mark.parametrize("concat", [True, False])
def test_a_references_gradient_reaches_the_goals_attribute_encoder(concat):
    network = tiny(concat)
    (network.manipulate(sample_images(2), sample_images(2, seed=1)) * sample_images(2, seed=3)).sum().backward()
    trained = {name for name, parameter in network.enc_a.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    own = {name for name, _ in network.enc_a.named_parameters() if ("_B" in name or "_b" in name) and "Var" not in name}
    assert trained == own


def test_noise_joins_the_content_in_training_only():
    network, images = tiny(), sample_images(2)
    with torch.no_grad():
        clean = network.enc_c(images, "A")
        assert torch.equal(clean, network.enc_c(images, "A"))
        noise = torch.cat([network.train().enc_c(images, "A") - clean for _ in range(8)])
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize("concat", [True, False])
def test_the_published_layout_loads_and_its_form_is_read_from_it(tmp_path, concat):
    """The file is a whole training state; discriminators and optimizers are left alone."""
    network, images = tiny(concat), sample_images(2)
    optimizer = torch.optim.Adam(network.parameters())
    network.manipulate(images).sum().backward()
    optimizer.step()
    file = {name: getattr(network, name).state_dict() for name in ("enc_c", "enc_a", "gen")}
    file |= {"disA": torch.nn.Linear(2, 2).state_dict(), "gen_opt": optimizer.state_dict(), "ep": 1199, "total_it": 123456}
    torch.save(file, tmp_path / "example.pth")
    loaded = create_generator("drit", tmp_path / "example.pth").eval()
    assert loaded.config == {"direction": "a2b", "concat": concat, "input_dim_a": 3, "input_dim_b": 3, "nz": 3, "dim": 4}
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))
    with pytest.raises(ValueError, match=f"example.pth: concat is {concat} in the file and {not concat} was asked for"):
        create_generator("drit", tmp_path / "example.pth", concat=not concat)


def test_a_file_without_the_encoders_is_refused(tmp_path):
    torch.save({"gen": tiny().gen.state_dict(), "ep": 3}, tmp_path / "gen.pth")
    with pytest.raises(
        ValueError, match=r"gen.pth .*DRIT.*\['enc_c', 'enc_a', 'gen'\].*\['gen', 'ep'\]"
    ):
        create_generator("drit", tmp_path / "gen.pth")
