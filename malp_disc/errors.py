"""What the user got wrong ends in one plain message, not in a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


def make_output_printable() -> None:
    """A character that the terminal's encoding lacks (cp1252 on Windows, ASCII under ``LC_ALL=C``) is printed as its escape sequence instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def plain_errors(interrupted: str = "interrupted") -> Iterator[None]:
    """What the user got wrong ends in one message and status 1, Ctrl-C in one line, `interrupted`, and status 130: no traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # whoever read the output, as `| head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ConnectionError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.strerror or error}: {error.filename or ''}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)
