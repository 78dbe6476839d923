"""A copied module computes the same with weights of its own, or the attribute that can't be copied is named."""

from __future__ import annotations

import copy
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from malp_disc.runtime.copying import copy_module
from malp_disc.training.moving_average import moving_average
from tests.tiny import sample_images

old_weight_norm, old_spectral_norm = torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm


class Keeper(nn.Module):
    """Keeps what it made last, in a list in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.kept = nn.Conv2d(3, 3, 1), {"last": []}

    def forward(self, images):
        self.kept["last"] = [self.net(images)]
        return self.kept["last"][0]


def with_attribute(value) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    network[0].extra = value
    return network


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(old_weight_norm(nn.Conv2d(3, 3, 1))),
        lambda: nn.Sequential(old_spectral_norm(nn.Conv2d(3, 3, 1))),
        lambda: nn.Sequential(prune.l1_unstructured(nn.Conv2d(3, 3, 1), "weight", amount=0.3)),
        Keeper,
        lambda: with_attribute(threading.Lock()),
        lambda: with_attribute({"in": [SimpleNamespace(lock=threading.RLock())]}),
        lambda: with_attribute(torch.Generator()),
        lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 3, 1)), nn.ReLU()),
        lambda: torch.nn.Sequential(torch.compile(nn.Conv2d(3, 3, 1), backend="eager")),
    ],
)
def test_a_copy_after_a_forward_pass_learns_alone(make):
    torch.manual_seed(0)
    network, images = make().eval(), sample_images(2)
    expected = network(images)
    copied = copy_module(network)
    assert torch.equal(copied(images), expected)
    weights = [p.detach().clone() for p in network.parameters()]
    copied(images).square().sum().backward()
    torch.optim.SGD(copied.parameters(), lr=0.1).step()
    assert not torch.allclose(copied(images), expected) and all(p.grad is None for p in network.parameters())
    assert all(torch.equal(p, kept) for p, kept in zip(network.parameters(), weights))
    average = moving_average(copied, 0.5)
    average.update_parameters(copied)
    assert torch.equal(average.module(images), copied(images))


def test_the_decay_is_the_share_of_the_average_so_far():
    network = nn.Linear(1, 1)
    average = moving_average(network, 0.9)
    for value in (1.0, 2.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 2)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda: (i for i in range(3)), "0.extra is a generator"),
        (lambda: open(__file__), "0.extra is a TextIOWrapper"),
        (lambda: {"log": [open(__file__)]}, r"0.extra\['log'\]\[0\] is a TextIOWrapper"),
        (lambda: SimpleNamespace(stream=iter(i for i in [])), "0.extra.stream is a generator"),
    ],
)
def test_what_cant_be_copied_is_named(value, path):
    network = with_attribute(value())
    with pytest.raises(TypeError):
        copy.deepcopy(network)
    with pytest.raises(ValueError, match=f"the generator can't be copied, as fine-tuning has to: its attribute {path}"):
        copy_module(network)
