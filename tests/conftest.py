"""One thread, and where the shared material lies.

The networks here are tiny, and two OpenMP threads on two busy cores are 3 to 20 times slower than one (measured).
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# The source distribution leaves out the weights that are for research only.
collect_ignore = [] if (REPOSITORY / "weights" / "survive" / "model.safetensors").is_file() else ["keyed/test_shipped_detector.py"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

FIRST = ("tests/golden/test_data.py", "tests/recipes/", "tests/test_shipped_weights.py", "tests/test_feature_branch.py")
"""The longest files: started last, one worker would be left with them. The goldens are bound by memory: two workers that are at them at once hinder each other."""


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # it starts the workers, which wait while it imports torch, and runs no test
    import torch

    from malp_disc.runtime.allocator import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((place for place, name in enumerate(FIRST) if item.nodeid.startswith(name)), len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """As many workers as there are cores. Each collects all tests, for 29 CPU seconds; on two cores, two took 608 and 640 seconds, and three 646, with fewer tests."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else os.cpu_count()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave out of every later garbage collection what is never freed, torch and the tests themselves: Accelerate collects after every training."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def largest_file():
    """``with largest_file(4096):`` limits the size of a file that this process writes; beyond it, the system refuses to write (EFBIG), much as a full disk does."""
    resource = pytest.importorskip("resource", reason="limits of a process are Unix only")

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


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
