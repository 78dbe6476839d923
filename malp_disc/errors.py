"""User errors end in a one-line message instead of a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


def make_output_printable() -> None:
    """Print characters that the terminal's encoding lacks (cp1252 on Windows, ASCII under ``LC_ALL=C``) as escape sequences instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        sys.exit(f"error: {error.strerror or error}: {error.filename or ''}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)
