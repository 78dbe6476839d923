"""User errors end in a one-line message instead of a traceback, and warnings of this library are lines without a place in its code."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
_OWN = (_PACKAGE, *(_PACKAGE.parent / name for name in ("generators", "recipes")))

_MEMORY = ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "Invalid buffer size")  # CPU, Windows, GPUs, cuDNN and cuBLAS, Apple's MPS


def make_output_printable() -> None:
    """Print characters that the terminal's encoding lacks (cp1252 on Windows, ASCII under ``LC_ALL=C``) as escape sequences instead of raising; drop what goes to a
    closed stream."""
    sys.stdout, sys.stderr = (open(os.devnull, "w", encoding="utf-8") if stream is None else stream for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each warning of this library once, as a line ``warning: …``. Those of other packages look as before."""
    shown, before = set(), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
        if not any(folder in Path(filename).resolve().parents for folder in _OWN):
            before(message, category, filename, lineno, *more)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextlib.contextmanager
def plain_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn user errors into a one-line message and exit status 1, and Ctrl-C into the line `interrupted` and status 130."""
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # the reader of a pipe, such as `| head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ConnectionError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def did_you_mean(name: str, names: Iterable[str], *, quoted: bool = False) -> str:
    """``"; did you mean X?"`` with the most similar of the names, or an empty string."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {repr(near[0]) if quoted else near[0]}?" if near else ""


@contextlib.contextmanager
def memory_suffices(message: str) -> Iterator[None]:
    """Raise ValueError with `message` if the body runs out of memory. PyTorch has a type of its own for that on GPUs only, and a RuntimeError on the CPU."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _MEMORY):
            raise
        raise ValueError(message) from error
