"""The adaptive weight: at G's last layer, MaLP's gradient gets the share of G's own that was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from malp_disc.training.gradient_balance import GradientBalance, last_layer


def test_the_last_layer_is_the_last_one_executed_not_registered():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.inside, self.norm = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 3)

        def forward(self, x):
            return self.norm(self.out(self.inside(x)))

    network, x = Backwards(), torch.zeros(1, 3, 2, 2)
    assert last_layer(network, lambda: network(x)) is network.out.weight
    network.out.requires_grad_(False)
    assert last_layer(network, lambda: network(x)) is network.inside.weight
    with pytest.raises(ValueError, match="no layer of Backwards with a trainable weight took part; is the generator frozen"):
        last_layer(network.requires_grad_(False), lambda: network(x))
    assert not any(module._forward_hooks for module in network.modules())


def losses(weight: nn.Parameter) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients (3, 4) and (0, 0.5): lengths 5 and 0.5."""
    return (weight * torch.tensor([[3.0, 4.0]])).sum(), (weight * torch.tensor([[0.0, 0.5]])).sum()


def test_the_weighted_gradient_has_the_share_asked_for():
    weight = nn.Parameter(torch.ones(1, 2))
    balance = GradientBalance(weight, 0.2)
    own, malp = losses(weight)
    balance.measure(own, malp)
    assert balance.update() == pytest.approx(0.2 * 5 / 0.5)
    (gradient,) = torch.autograd.grad(balance.weight * malp, weight)  # the graph is still there
    assert gradient.norm().item() == pytest.approx(0.2 * 5)
    assert weight.grad is None


def test_passes_are_added_before_the_lengths_are_taken():
    """Two passes with opposite gradients of MaLP cancel: by the sum, not by the mean length."""
    weight = nn.Parameter(torch.ones(1, 2))
    balance = GradientBalance(weight, 1.0, weight=7.0)
    for sign in (1, -1):
        own, malp = losses(weight)
        balance.measure(own, sign * malp)
    assert balance.update() == 7.0, "no gradient, no new weight"
    own, malp = losses(weight)
    balance.measure(own, malp)
    assert balance.update() == pytest.approx(0.5 * 7 + 0.5 * 10), "it follows smoothly"
    with pytest.raises(ValueError, match="nothing was measured"):
        balance.update()


def test_without_any_measurable_gradient_there_is_no_weight():
    weight = nn.Parameter(torch.ones(1, 2))
    balance = GradientBalance(weight, 1.0)
    for own, malp in ((0 * weight.sum(), losses(weight)[1]), (float("inf") * weight.sum(), losses(weight)[1]), (weight.sum(), float("nan") * weight.sum())):
        balance.measure(own, malp)
        assert balance.update() is None
    with pytest.raises(ValueError, match="share of the gradient above 0, got 0"):
        GradientBalance(weight, 0.0)


class Functional(nn.Module):
    """Uses its weights without calling a layer, and calls one whose result it throws away."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last, self.unused = nn.Parameter(torch.ones(3, 3, 1, 1)), nn.Parameter(torch.ones(3, 3, 1, 1)), nn.Conv2d(3, 3, 1)

    def manipulate(self, images):
        self.unused(images)
        return nn.functional.conv2d(nn.functional.conv2d(images, self.weight), self.last)


def test_weights_used_without_a_layer_are_found_and_a_layer_without_effect_is_not():
    network = Functional()
    assert last_layer(network, lambda: network.manipulate(torch.ones(1, 3, 4, 4))) is network.last


def test_a_torchscript_network_which_takes_no_hooks_has_a_last_layer_too():
    network = nn.Sequential(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))))
    assert last_layer(network, lambda: network(torch.ones(1, 3, 4, 4))) is list(network.parameters())[2]
