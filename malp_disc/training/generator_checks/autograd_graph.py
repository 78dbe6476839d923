"""What a tensor was computed from, read from its autograd graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

_REENTRANT = "CheckpointFunctionBackward"


@dataclass
class Graph:
    """Attributes:
    leaves: ids of the leaf tensors (parameters, inputs) that gradients go to.
    reentrant: a part of it was run by `torch.utils.checkpoint` with ``use_reentrant=True``.
    """

    leaves: set[int] = field(default_factory=set)
    reentrant: bool = False


def graph_of(output: Tensor) -> Graph:
    """Walk the graph behind `output` once, without a backward pass. What a custom function or a reentrant checkpoint hides isn't seen."""
    graph, seen, waiting = Graph(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        graph.reentrant |= node.name() == _REENTRANT
        variable = getattr(node, "variable", None)
        if variable is not None:
            graph.leaves.add(id(variable))
        waiting.extend(following for following, _ in node.next_functions)
    return graph
