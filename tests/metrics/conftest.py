"""Where the shared material lies, for tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared():
    """``shared("a/b")`` is the path of a shared file; the test is skipped, with the reason, where it's absent."""
    root = Path(os.environ.get("MALP_DISC_SHARED", REPOSITORY / ".." / "shared"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared folder (MALP_DISC_SHARED, or ../shared)")
        return path

    return find
