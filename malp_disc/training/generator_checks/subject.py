"""What is looked at before a fine-tuning, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from malp_disc.manipulate import Editor


@dataclass
class Finding:
    """One thing that was looked at: all right, worth knowing, or in the way; and what to do."""

    name: str
    level: Literal["ok", "note", "problem"]
    said: str
    advice: str = ""


@dataclass
class Subject:
    """A copy of a generator, and the images (B, 3, H, W) and labels that it is looked at with.

    Attributes:
        target, current: the desired labels and those of the images, (B, A) in {0, 1}, or None.
        original: whose copy it is.
    """

    generator: nn.Module
    images: Tensor
    target: Tensor | None
    original: nn.Module
    current: Tensor | None = None

    def edit(self, images: Tensor) -> Tensor:
        """G(I) of up to B images."""
        desired, current = (None if labels is None else labels[: len(images)] for labels in (self.target, self.current))
        return self.editor(images, desired, current)

    @property
    def editor(self) -> Editor:
        """The copy's `edit`, as its own losses are given it."""
        return Editor(self.generator)
