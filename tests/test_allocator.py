"""Freed memory is kept by a command's process, unless the user set up the allocator."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from malp_disc.allocator import KEPT, LARGEST, keep_freed_memory

FAULTS = """
import resource
import torch
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")


def page_faults(first: str) -> int:
    """Pages that the kernel had to give for twenty tensors of 40 MiB, one after the other, after `first`."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FAULTS.format(first=first)], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@linux
def test_freed_memory_is_used_again():
    pages = 20 * 40 * 2**20 // resource.getpagesize()
    assert page_faults("") > pages / 2
    assert page_faults("from malp_disc.allocator import keep_freed_memory; assert keep_freed_memory()") < pages / 20


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
