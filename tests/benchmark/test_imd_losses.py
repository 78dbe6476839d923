"""The losses of proactive IMD are the authors', and a constant recovered template doesn't end the training."""

from __future__ import annotations

import torch

from malp_disc.official.imd_losses import imd_losses
from tests.golden.authors_arithmetic import imd_losses as authors
from tests.tiny import sample_images


def test_the_terms_are_those_of_the_authors_code():
    templates = torch.rand(3, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    signals = [sample_images(4, 128, 128, seed=seed)[:, :1].relu() for seed in (1, 2)]
    index = torch.tensor([2, 0, 0, 1])
    ours = imd_losses(templates, index, 0.3, *signals)
    theirs = authors(templates=templates, index=index, strength=0.3, signal_encrypted=signals[0], signal_fake=signals[1])
    order = ("magnitude", "orthogonality", "recover_encrypted", "low_frequency", "recover_manipulated")
    for number, name in enumerate(order, start=1):
        torch.testing.assert_close(ours[name], theirs[f"loss{number}"], msg=name)
    torch.testing.assert_close(sum(ours.values()), theirs["total"])


def test_a_constant_recovered_template_gives_finite_losses_and_gradients():
    templates = torch.rand(2, 1, 128, 128, requires_grad=True)
    dead = torch.zeros(2, 1, 128, 128, requires_grad=True)
    losses = imd_losses(templates, torch.tensor([0, 1]), 0.3, dead, dead)
    sum(losses.values()).backward()
    assert all(term.isfinite() for term in losses.values()) and templates.grad.isfinite().all() and dead.grad.isfinite().all()
    assert losses["recover_encrypted"].item() == 10 and losses["recover_manipulated"].item() == 0
