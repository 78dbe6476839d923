"""One thread, and where the shared material lies.

The networks here are tiny, and two OpenMP threads on two busy cores are 3 to 20 times slower than one (measured).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


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
