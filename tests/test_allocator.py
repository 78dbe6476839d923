"""Freed memory is kept by a command's process, unless the user set up the allocator."""

from __future__ import annotations

import subprocess
import sys

import pytest

from malp_disc.runtime.allocator import KEPT, LARGEST, keep_freed_memory

FAULTS = """
import ctypes
import resource
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = libc.malloc(40 * 2**20)
        libc.memset(block, 1, 40 * 2**20)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")


def page_faults(first: str) -> int:
    """Pages that the kernel had to give for twenty blocks of 40 MiB, one after the other, after `first`."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FAULTS.format(first=first)], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@linux
def test_freed_memory_is_used_again():
    default = page_faults("")
    assert default > 100  # also with pages of 2 MiB
    assert page_faults("from malp_disc.runtime.allocator import keep_freed_memory; assert keep_freed_memory()") < default / 10


@linux
def test_processes_that_are_started_do_the_same():
    environment: dict[str, str] = {}
    if not keep_freed_memory(environment):
        pytest.skip("not glibc")
    assert environment == {"MALLOC_TRIM_THRESHOLD_": str(KEPT), "MALLOC_MMAP_THRESHOLD_": str(LARGEST), "MALLOC_ARENA_MAX": "1"}


@pytest.mark.parametrize("chosen", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.check=1"}, {"LD_PRELOAD": "libjemalloc.so.2"}])
def test_what_the_user_chose_stays(chosen):
    environment = dict(chosen)
    assert not keep_freed_memory(environment) and environment == chosen
