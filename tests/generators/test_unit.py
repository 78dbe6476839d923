"""UNIT: the files people have of it, and one domain's encoder before the other's decoder."""

from __future__ import annotations

import pytest
import torch

from generators import create_generator
from generators.unit import UNIT
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"dim": 4, "n_res": 1, "n_downsample": 1}


class TestContract(GeneratorContract):
    name = "unit"
    config = {"dim": 4, "n_res": 1}
    untouched = ("a.dec", "b.enc")


def tiny() -> UNIT:
    torch.manual_seed(0)
    return UNIT(**TINY).eval()


def test_images_go_through_one_domains_encoder_and_the_others_decoder():
    network, images = tiny(), sample_images(2, 12, 20)
    assert torch.equal(network.manipulate(images), network.b.decode(network.a.encode(images)))
    network.source, network.goal = "b", "a"
    assert torch.equal(network.manipulate(images), network.a.decode(network.b.encode(images)))


def test_a_target_is_ignored():
    network, images = tiny(), sample_images(2)
    assert torch.equal(network.manipulate(images, torch.ones(2, 5)), network.manipulate(images))


def published(network: UNIT) -> dict[str, dict]:
    return {"a": network.a.state_dict(), "b": network.b.state_dict()}


def with_old_statistics(state: dict) -> dict:
    """As PyTorch 0.3 wrote instance norms."""
    old = {
        key.replace("conv.weight", f"norm.running_{kind}"): torch.zeros(2)
        for key in state
        if "conv.weight" in key
        for kind in ("mean", "var")
    }
    return {**state, **old}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_the_published_layout_loads_and_the_widths_are_read_from_it(tmp_path, old, direction):
    network, images = tiny(), sample_images(2)
    file = {side: with_old_statistics(state) if old else state for side, state in published(network).items()}
    torch.save(file, tmp_path / "unit_gta2city.pt", _use_new_zipfile_serialization=not old)
    loaded = create_generator("unit", tmp_path / "unit_gta2city.pt", direction=direction).eval()
    assert loaded.config == {"direction": direction, "input_dim": 3, **TINY}
    source, goal = (network.a, network.b) if direction == "a2b" else (network.b, network.a)
    assert torch.equal(loaded.manipulate(images), goal.decode(source.encode(images)))


def test_one_domain_alone_and_other_widths_are_refused(tmp_path):
    network = tiny()
    torch.save(published(network), tmp_path / "both.pt")
    torch.save(network.a.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt .*UNIT.*\['a', 'b'\].*\['enc\.model\.0"):
        create_generator("unit", tmp_path / "a.pt")
    with pytest.raises(ValueError, match="both.pt: dim is 4 in the file and 64 was asked for"):
        create_generator("unit", tmp_path / "both.pt", dim=64)
    torch.save({**published(network), "b": {}}, tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"half.pt .*UNIT.*\['b'\] without tensors"):
        create_generator("unit", tmp_path / "half.pt")
