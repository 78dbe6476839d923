"""The rule by which weights and images are drawn from names."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import nn

from tests.golden import seeded


def test_a_weight_follows_from_name_shape_and_seed_by_numpy_alone():
    x = np.random.Generator(np.random.PCG64(zlib.crc32(b"a.weight"))).standard_normal((2, 3, 4, 4), dtype=np.float32)
    assert np.allclose(seeded.weight("a.weight", (2, 3, 4, 4)).numpy(), x / np.sqrt(48), rtol=1e-6)
    assert not torch.equal(seeded.weight("a.weight", (2, 3)), seeded.weight("b.weight", (2, 3)))
    assert not torch.equal(seeded.weight("a.weight", (2, 3)), seeded.weight("a.weight", (2, 3), seed=1))


def test_kinds_of_weights_are_scaled_by_their_kind():
    draw = {name: seeded.weight(name, (4000,)) for name in ("n.running_var", "n.running_mean", "n.weight", "n.bias")}
    assert draw["n.running_var"].min() >= 0.5
    assert draw["n.running_mean"].std().item() == pytest.approx(0.1, rel=0.1)
    assert draw["n.weight"].mean().item() == pytest.approx(1, abs=0.01) and draw["n.weight"].std().item() == pytest.approx(0.1, rel=0.1)
    assert draw["n.bias"].mean().item() == pytest.approx(0, abs=0.01)
    assert seeded.weight("c.weight", (50, 100)).std().item() == pytest.approx(0.1, rel=0.1)
    assert seeded.weight("scalar", ()).shape == ()


def test_counters_stay_as_built_and_the_rules_apply_in_order():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4))
    built = {name: value.clone() for name, value in network.state_dict().items()}
    rules = [
        {"match": r"^0\.weight$", "op": "keep"},
        {"match": r"bias$", "op": "zero"},
        {"match": r"^1\.weight$", "op": "affine", "factor": 2.0, "offset": 1.0},
        {"match": r"^2\.", "ndim": 2, "op": "unit", "factor": 0.5},
    ]
    seeded.fill(network, 5, rules)
    state = network.state_dict()
    assert torch.equal(state["0.weight"], built["0.weight"]) and state["1.num_batches_tracked"] == 0
    assert not state["0.bias"].any() and not state["2.bias"].any()
    assert torch.allclose(state["1.weight"], 2 * seeded.weight("1.weight", (4,), 5) + 1)
    assert torch.allclose(state["2.weight"], seeded.weight("2.weight", (4, 4), 5) * 2 * 0.5)
    assert torch.equal(state["1.running_var"], seeded.weight("1.running_var", (4,), 5))


def test_the_spectral_rule_gives_u_and_v_of_the_weight():
    network = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))
    seeded.fill(network, 0, [{"match": "weight_orig$", "op": "spectral", "iterations": 200}])
    matrix = network.weight_orig.detach().flatten(1)
    assert (network.weight_u @ matrix @ network.weight_v).item() == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-4)


def test_an_image_is_smooth_within_range_and_depends_on_its_name():
    x = seeded.image("x", (2, 3, 16, 24))
    assert x.shape == (2, 3, 16, 24) and x.abs().max() <= 1 and x.dtype == torch.float32
    assert torch.equal(x, seeded.image("x", (2, 3, 16, 24))) and not torch.equal(x, seeded.image("y", (2, 3, 16, 24)))
