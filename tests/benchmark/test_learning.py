"""Every method learns: steps on the same pairs, with its authors' optimizer and rate, lower its loss."""

from __future__ import annotations

import pytest
import torch

from malp_disc.benchmark.methods import METHODS
from tests.benchmark.small import losses_of, small_method, small_pairs

pytestmark = pytest.mark.slow  # some seconds of arithmetic each
STEPS = 12


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_on_the_same_pairs(name):
    method, pairs = small_method(name).train(), small_pairs(2)
    method.prepare(*pairs)
    optimizer, losses = method.make_optimizer(method.learning_rate), []
    for _ in range(STEPS):
        total = sum(losses_of(method, pairs).values())
        losses.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    print(name, [round(loss, 4) for loss in losses])
    assert min(losses[-3:]) < losses[0] and torch.tensor(losses).isfinite().all(), losses
