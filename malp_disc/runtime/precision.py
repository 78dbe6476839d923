"""Numerical precision: float32 without autocast or TF32 where values are compared, and deterministic kernels for bitwise reproducible runs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def full_precision(function: Function) -> Function:
    """Decorator that converts float16 and bfloat16 arguments to float32 and disables autocast. Gradients have the dtype of the original tensors.

    Float64 isn't converted: gradient checks by finite differences need it.
    """

    @functools.wraps(function)
    def in_full_precision(*arguments: Any, **options: Any) -> Any:
        arguments = tuple(_not_half(value) for value in arguments)
        options = {name: _not_half(value) for name, value in options.items()}
        kinds = {value.device.type for value in (*arguments, *options.values()) if isinstance(value, Tensor)}
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                if torch.amp.is_autocast_available(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **options)

    return in_full_precision


def _not_half(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64 else value


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Within this context, matrix products and convolutions use IEEE float32 instead of TF32; the previous settings are restored afterwards.

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
    """Use deterministic kernels from now on: the same seed gives the same bytes on the same GPU. An operation without one raises RuntimeError.

    Call it before the first use of the GPU: cuBLAS reads ``CUBLAS_WORKSPACE_CONFIG`` once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def is_nondeterminism_error(error: BaseException) -> bool:
    """Whether torch raised `error` because a kernel has no deterministic form."""
    return isinstance(error, RuntimeError) and "deterministic" in str(error) and "use_deterministic_algorithms" in str(error)
