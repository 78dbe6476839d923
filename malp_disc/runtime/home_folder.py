"""``~`` in paths of the command line: a shell replaces it in ``--flag ~/x``, but not in ``--flag=~/x``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

Options = TypeVar("Options")


def expand_home(options: Options) -> Options:
    """The same options, a dataclass, in whose paths the user's home folder replaces ``~``. One of a user who doesn't exist stays, as in a shell."""
    for name, value in vars(options).items():
        if (expanded := _expanded(value)) != value:
            setattr(options, name, expanded)
    return options


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))
    return tuple(map(_expanded, value)) if isinstance(value, tuple) else value
