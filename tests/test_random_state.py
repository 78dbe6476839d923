"""Torch's global random numbers go on after a borrower as if it had drawn none, on every device."""

from __future__ import annotations

import pytest
import torch

from malp_disc.backbones import RANDOM, create_backbone
from malp_disc.runtime.random_state import random_state_kept


def test_what_is_drawn_within_follows_the_seed_and_nothing_is_missing_afterwards():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    with random_state_kept(seed=3):
        within = torch.rand(2)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(within, torch.rand(2, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(ZeroDivisionError), random_state_kept():
        torch.rand(1)
        raise ZeroDivisionError
    torch.manual_seed(5)
    torch.rand(4)
    following = torch.rand(4)
    torch.manual_seed(5)
    torch.rand(4)
    with random_state_kept():
        torch.rand(100)
    assert torch.equal(torch.rand(4), following)


@pytest.mark.parametrize("build", [lambda: create_backbone(weights=RANDOM), lambda: random_state_kept(seed=0).__enter__()], ids=["backbone", "seed"])
def test_no_gpu_is_seeded(monkeypatch, build):
    """`torch.manual_seed` seeds all of them, and only those that `fork_rng` was told of get their state back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    before = torch.get_rng_state()
    build()
    torch.set_rng_state(before)
    assert not seeded
