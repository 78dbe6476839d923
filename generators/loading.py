"""Helpers for loading published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def agree(found: Mapping[str, Any], asked: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Constructor arguments: those inferred from a checkpoint, and those given by the user.

    Raises:
        ValueError: an argument differs from the checkpoint's.
    """
    wrong = [
        f"{key} is {found[key]} in the file and {value} was asked for"
        for key, value in asked.items()
        if key in found and found[key] != value
    ]
    if wrong:
        raise ValueError(f"{source}: " + "; ".join(wrong))
    return {**found, **asked}


def numbered_kernels(tensors: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    """The 4-d tensors whose whole key matches the pattern, sorted by the number in its group."""
    found = {int(match[1]): value for key, value in tensors.items() if (match := re.fullmatch(pattern, key)) and value.ndim == 4}
    return [found[number] for number in sorted(found)]
