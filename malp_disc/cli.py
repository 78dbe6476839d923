"""The command line, ``malp-disc COMMAND``. A command is a dataclass, whose fields are its flags, and a function that takes it.

Both live in a module of their own, which imports nothing heavy at its top, so that help comes at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tyro

import malp_disc
from malp_disc.commands.detect import Detect, detect
from malp_disc.commands.export import Export, export
from malp_disc.commands.localize import Localize, localize
from malp_disc.commands.protect import Protect, protect
from malp_disc.doctor import Doctor, doctor
from malp_disc.fid import Fid, fid
from malp_disc.report.command import Report, report

# One line per command; its name is the dataclass's in lower case, its help the dataclass's docstring.
COMMANDS: dict[type, Callable[[Any], None]] = {
    Doctor: doctor,
    Protect: protect,
    Localize: localize,
    Detect: detect,
    Export: export,
    Fid: fid,
    Report: report,
}


def main() -> None:
    """Run the command that ``sys.argv`` names."""
    make_output_printable()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if sys.argv[1:] == ["--version"]:
        print(malp_disc.__version__)
        return
    with plain_errors():
        arguments = tyro.extras.subcommand_cli_from_dict(
            {command.__name__.lower(): command for command in COMMANDS},
            prog="malp-disc",
            description="MaLP: see what a generator changed, and measure what fine-tuning did. Each command has a --help of its own.",
        )
        COMMANDS[type(arguments)](arguments)


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


if __name__ == "__main__":
    main()
