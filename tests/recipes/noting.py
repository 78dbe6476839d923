"""A toy generator that notes what it is given, in two kinds, and losses that call it again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.recipes.engine import ToyGenerator

GIVEN: list[Tensor] = []
"""The targets of every call of a `Noting`, also of its copies."""


class Noting(ToyGenerator):
    """Notes what it is given. As drawn faces have five attributes, so has its target."""

    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        GIVEN.append(target.detach().clone())
        return super().manipulate(images, target)


class NotingChange(Noting):
    target_kind = "change"


def fresh(kind: type[Noting]) -> nn.Module:
    """One that has noted nothing yet."""
    torch.manual_seed(0)
    GIVEN.clear()
    return kind().eval()


def check(generator: nn.Module, *asked: tuple[Tensor, Tensor]) -> None:
    """The generator was called once for each pair of desired and current labels, in this order."""
    changes = isinstance(generator, NotingChange)
    assert len(GIVEN) == len(asked)
    for given, (desired, current) in zip(GIVEN, asked):
        assert torch.equal(given, desired - current if changes else desired)
    assert any((current > desired).any() for desired, current in asked), "a poor test: nothing is to be removed"


class Cycle(nn.Module):
    """Losses that call the generator again, from the edit back to the image's own labels."""

    def generator_loss(self, fake, batch, edit):
        return {"cycle": (edit(fake, batch.labels, batch.target) - batch.images).abs().mean()}
