"""A weight for MaLP's loss from the gradient norms at the generator's last layer, as in VQGAN (Esser et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from malp_disc.distributed import mean_over_processes
from malp_disc.training.generator_checks.autograd_graph import graph_of

_SMOOTHING = 0.5  # share of the previous weight in a new one


def last_layer(network: nn.Module, run: Callable[[], object]) -> nn.Parameter:
    """The weight of the last layer in the order of execution, not of registration.

    A layer whose result isn't used doesn't count. Where weights are used without calling a layer (``F.conv2d(x, self.weight)``), it is the last one registered.

    Args:
        run: computes the images, with gradients.

    Raises:
        ValueError: no trainable weight took part.
    """
    seen: list[nn.Parameter] = []

    def note(module: nn.Module, *_: object) -> None:
        seen.extend(p for p in module.parameters(recurse=False) if p.ndim > 1 and p.requires_grad)

    handles = [module.register_forward_hook(note) for module in network.modules() if not isinstance(module, torch.jit.ScriptModule)]
    try:
        output = run()
    finally:
        for handle in handles:
            handle.remove()
    if isinstance(output, Tensor) and output.requires_grad:
        leaves = graph_of(output).leaves
        used = [p for p in network.parameters() if id(p) in leaves]
        seen = [p for p in seen if id(p) in leaves] or [p for p in used if p.ndim > 1] or used or seen
    if not seen:
        raise ValueError(f"no layer of {type(network).__name__} with a trainable weight took part; is the generator frozen?")
    return seen[-1]


class GradientBalance:
    """A weight for MaLP's loss such that its gradient has `share` of the norm of the generator's own at the last layer:

        weight = share · ‖∇L_own‖ / ‖∇L_MaLP‖, smoothed over measurements.

    Call `measure` on every micro-batch of a step, and then `update`. A new weight applies from the next step on, so that all micro-batches and
    processes of a step use the same one.

    Args:
        parameter: of `last_layer`.
        share: wanted ratio of the norms, above 0.
        weight: from a checkpoint; None for a new run.
    """

    def __init__(self, parameter: nn.Parameter, share: float, *, weight: float | None = None) -> None:
        if not share > 0:
            raise ValueError(f"expected a share of the gradient above 0, got {share}")
        self.parameter, self.share, self.weight = parameter, share, weight
        self._own = self._malp = None

    def measure(self, own: Tensor, malp: Tensor) -> None:
        """Add this micro-batch's gradients of both unweighted losses. Their graphs are kept."""
        gradients = [torch.autograd.grad(loss, self.parameter, retain_graph=True)[0].float() for loss in (own, malp)]
        if self._own is None:
            self._own, self._malp = gradients
        else:
            self._own, self._malp = self._own + gradients[0], self._malp + gradients[1]

    def update(self) -> float | None:
        """The new weight, from all micro-batches and processes; the previous one (at first None) if a gradient is zero or not finite."""
        if self._own is None:
            raise ValueError("nothing was measured; call measure on each micro-batch first")
        both = mean_over_processes(torch.stack([self._own.flatten(), self._malp.flatten()]))
        own, malp = both.norm(dim=1).tolist()
        self._own = self._malp = None
        if 0 < own < float("inf") and 0 < malp < float("inf"):
            new = self.share * own / malp
            self.weight = new if self.weight is None else _SMOOTHING * self.weight + (1 - _SMOOTHING) * new
        return self.weight
