"""The arithmetic of a GPU: full float32 for measurements, deterministic kernels for runs that must be repeatable to the bit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products and convolutions in IEEE float32 instead of TF32, whatever the process has set; restored afterwards.

    cuDNN uses TF32 by default on Ampere GPUs and newer, with which the features of an evaluation network differ from the CPU's by about 0.1 %.
    """
    if hasattr(torch.backends.cudnn, "conv") and hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.9 and newer
        switches: list[tuple[Any, str, Any]] = [
            (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
            (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        ]
    else:
        switches = [(torch.backends.cudnn, "allow_tf32", False), (torch.backends.cuda.matmul, "allow_tf32", False)]
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before):
            setattr(owner, name, value)


def use_deterministic_kernels() -> None:
    """From now on the same bytes from the same seed on the same GPU; a kernel that can't promise that raises RuntimeError when it is called.

    Has to come before the first use of the GPU: cuBLAS reads ``CUBLAS_WORKSPACE_CONFIG`` once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def is_nondeterminism_error(error: BaseException) -> bool:
    """Whether torch raised `error` because a kernel has no deterministic form."""
    return isinstance(error, RuntimeError) and "deterministic" in str(error) and "use_deterministic_algorithms" in str(error)
