"""glibc's allocator for a process that computes on a CPU: freed memory is kept for the next tensor.

By default glibc returns large blocks to the kernel at once, and the kernel clears every page that it gives out again. Networks allocate and free tensors of many
megabytes in every layer, so this takes up to a third of the time of measuring (docs/scaling.md).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import MutableMapping

KEPT, LARGEST = 256 * 2**20, 64 * 2**20
"""Bytes of freed memory that are kept at most at the end of the pool, and of a block that is kept. Larger blocks are returned: in one pass over a large image, holes
between them would cost more memory than the time is worth."""
_SETTINGS = (("MALLOC_TRIM_THRESHOLD_", -1, KEPT), ("MALLOC_MMAP_THRESHOLD_", -3, LARGEST), ("MALLOC_ARENA_MAX", -8, 1))  # numbers of malloc.h


def keep_freed_memory(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let glibc keep freed memory, in one pool for all threads, here and in processes that are started from here.

    Changes nothing, and returns False, without glibc, or where the environment sets up the allocator already (a variable MALLOC_…, GLIBC_TUNABLES, or another
    allocator by LD_PRELOAD).
    """
    chosen = any(name.startswith("MALLOC_") for name in environment) or {"GLIBC_TUNABLES", "LD_PRELOAD"} & environment.keys()
    if chosen or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    for variable, number, value in _SETTINGS:
        library.mallopt(number, value)
        environment[variable] = str(value)
    return True
