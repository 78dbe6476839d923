"""Failures of a generator's or a localizer's own code, as errors that say what failed and where."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from malp_disc.import_object import users_line

_PACKAGE = Path(__file__).resolve().parents[1]
_OURS = (_PACKAGE, _PACKAGE.parent / "generators")
_LONGEST = 300  # characters of a message: a KeyError may hold a whole array


@contextmanager
def named_failures(what: str) -> Iterator[None]:
    """Raise any exception of the block as a ValueError: "manipulate failed: IndexError: list index out of range (my_module.py, line 3)".

    A ValueError or FileNotFoundError that this project raises stays as it is: its text is written for the user. KeyboardInterrupt passes.

    Args:
        what: what the block does, at the beginning of the message. Its first line says everything that the tables need.

    Raises:
        ValueError: the block raised an exception.
    """
    try:
        yield
    except Exception as error:  # user code may raise anything
        if isinstance(error, (ValueError, FileNotFoundError)) and _raised_here(error):
            raise
        first, *rest = str(error).splitlines() or [""]
        first = f"{first[:_LONGEST]} …" if len(first) > _LONGEST else first
        said = f"{type(error).__name__}: {first}" if first else type(error).__name__
        raise ValueError("\n".join([f"{what} failed: {said}{users_line(error)}", *rest])) from error


def _raised_here(error: Exception) -> bool:
    """Whether the line that raised the error is in this package or in the zoo."""
    file = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return any(file.is_relative_to(place) for place in _OURS)
