"""Gradients that are differentiated again, for gradient penalties."""

from __future__ import annotations

import torch
from torch import Tensor


def differentiable_gradient(output: Tensor, inputs: Tensor, penalty: str) -> Tensor:
    """∂output/∂inputs of a scalar, with a graph of its own.

    Args:
        penalty: what needs it, and how to do without: the beginning of the error's message.

    Raises:
        ValueError: a network between the two was compiled by `torch.compile`, whose backward pass can't be differentiated. torch itself would say so during the
            second backward pass only.
    """
    if _compiled(output):
        raise ValueError(f"{penalty}; or leave the network uncompiled: torch.compile gives no second derivative")
    return torch.autograd.grad(output, inputs, create_graph=True)[0]


def _compiled(output: Tensor) -> bool:
    """Whether the graph of `output` has a part that `torch.compile` made."""
    waiting, seen = [output.grad_fn], {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if type(node).__name__ == "CompiledFunctionBackward":
            return True
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False
