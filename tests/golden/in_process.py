"""Runs the golden runner's command line in this process."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from tests.golden.__main__ import main


def run(folder: Path, *names: str) -> tuple[int, list[str]]:
    """Exit status, and the lines that were printed."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main([str(folder), *names])
    return status, out.getvalue().splitlines()
