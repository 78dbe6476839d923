"""What is looked at before a fine-tuning, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from malp_disc.manipulate import call_manipulate


@dataclass
class Finding:
    """One thing that was looked at: all right, worth knowing, or in the way; and what to do."""

    name: str
    level: Literal["ok", "note", "problem"]
    said: str
    advice: str = ""


@dataclass
class Subject:
    """A copy of a generator, and the images (B, 3, H, W) and target (B, A), or None, that it is looked at with.

    Attributes:
        original: whose copy it is.
    """

    generator: nn.Module
    images: Tensor
    target: Tensor | None
    original: nn.Module

    def edit(self, images: Tensor) -> Tensor:
        """G(I) of up to B images."""
        return call_manipulate(self.generator.manipulate, images, None if self.target is None else self.target[: len(images)])
