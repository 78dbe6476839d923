"""Control over gradients and dtypes of weights.

`freeze` freezes a module permanently, `gradients_to_inputs_only`, `called_on_copies` and `called_for_two_losses` keep a loss from reaching a module's weights,
and `Float32Module` keeps weights in float32.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Module = TypeVar("Module", bound=nn.Module)


class FrozenParameter(nn.Parameter):
    """A parameter that never requires a gradient.

    GAN training loops call ``parent.requires_grad_(True)`` or set ``p.requires_grad = True`` for all parameters before every discriminator update, which
    bypasses the modules in between. So a frozen submodule has to be protected at the level of its parameters.
    """

    def requires_grad_(self, requires_grad: bool = True) -> FrozenParameter:
        return self

    @property
    def requires_grad(self) -> bool:
        return False

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        pass


class Freezable(nn.Module):
    """A module that `freeze` also keeps in evaluation mode, even if a parent calls ``train()``. Moved, copied and unpickled instances stay frozen."""

    frozen: bool = False
    permanently_frozen: bool = False
    """Set by a class whose instances `unfreeze` leaves frozen, also as parts of other modules."""

    def train(self: Module, mode: bool = True) -> Module:
        return super().train(mode and not self.frozen)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if self.frozen:
            _freeze_parameters(self)  # a move to another kind of device, or to the meta device, makes new parameters
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.frozen:
            _freeze_parameters(self)  # pickle makes plain parameters


def freeze(module: Module) -> Module:
    """Permanently switch a module to evaluation mode without gradients: ``requires_grad_(True)`` on it or a parent has no effect. `unfreeze` undoes it."""
    _freeze_parameters(module)
    for part in module.modules():
        if isinstance(part, Freezable):
            part.frozen = True
    return module.eval()


def unfreeze(module: Module) -> Module:
    """Undo `freeze`: frozen parameters require gradients again; others, those of permanently frozen parts, and the mode stay unchanged."""
    permanent = [part for part in module.modules() if isinstance(part, Freezable) and part.permanently_frozen]
    kept = {id(parameter) for part in permanent for parameter in part.parameters()}
    for parameter in module.parameters():
        if isinstance(parameter, FrozenParameter) and id(parameter) not in kept:
            parameter.__class__ = nn.Parameter
            parameter.requires_grad_(True)
    for part in module.modules():
        if isinstance(part, Freezable) and not any(part is inner for whole in permanent for inner in whole.modules()):
            part.frozen = False
    return module


def _freeze_parameters(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.__class__ = FrozenParameter  # in place, so that optimizers and tied weights keep their reference


@contextlib.contextmanager
def gradients_to_inputs_only(*modules: nn.Module | None, evaluation: bool = False) -> Iterator[None]:
    """Within this context, results of the modules carry gradients to their inputs but not to their parameters, as a generator's loss needs.

    On exit, also after an exception, every parameter that required a gradient does so again, and every submodule has its previous mode. ``backward`` may
    be called at any time: the graph doesn't contain the parameters.

    Args:
        modules: None is skipped.
        evaluation: switch the modules to evaluation mode in this context.
    """
    present = [module for module in modules if module is not None]
    learning = [parameter for module in present for parameter in module.parameters() if parameter.requires_grad]
    modes = [(part, part.training) for module in present for part in module.modules()] if evaluation else []
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        if evaluation:
            for module in present:
                module.eval()
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for part, mode in modes:
            part.training = mode


def called_on_copies(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """``module(*inputs, **options)`` with detached copies of its weights and buffers, so that gradients reach the inputs only.

    Unlike a graph on the weights themselves, this graph stays valid if the weights or the running statistics of a batch norm change before ``backward``.
    """
    values = itertools.chain(module.named_parameters(), module.named_buffers())
    copies = {name: value.detach().clone() for name, value in values if not isinstance(value, FrozenParameter)}  # frozen ones don't change
    return torch.func.functional_call(module, copies, inputs, options)


class _GradientToInputs(torch.autograd.Function):
    """A known output of a module, with the gradient to its inputs alone; `graph` is (inputs, output), whose graph is kept for another loss."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, graph: tuple[Tensor, Tensor]) -> Tensor:
        ctx.graph = graph  # in a tuple, so that autograd doesn't follow the output to the weights
        return graph[1].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        inputs, output = ctx.graph
        return torch.autograd.grad(output, inputs, gradient, retain_graph=True)[0], None


def called_for_two_losses(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """``function(inputs)`` twice, from one forward pass: with a graph to `inputs` alone, and with one to the weights alone.

    ``backward`` of the first has to be called before that of the second, and before the weights change; torch raises RuntimeError otherwise.
    """
    seen = inputs.detach().requires_grad_(True)
    output = function(seen)
    return _GradientToInputs.apply(inputs, (seen, output)), output


class Float32Module(nn.Module):
    """A module whose weights stay in float32: ``.half()``, ``.bfloat16()``, ``.double()`` and ``.to(dtype)``, on it or a parent, don't change their dtype.

    Such a module computes in float32 for inputs of any dtype; rounding its small weights to 16 bits would change its results and stall its training.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def in_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.is_floating_point() and moved.dtype != torch.float32:
                moved = tensor.to(moved.device, torch.float32)  # from the original: a round trip through 16 bits would lose precision
            return moved

        return super()._apply(in_float32, recurse)

    def check_weights(self) -> None:
        """Raise ValueError for weights of another dtype, which only ``parameter.data = …`` and ``load_state_dict(assign=True)`` can cause."""
        for name, parameter in self.named_parameters():
            if parameter.dtype != torch.float32:
                raise ValueError(f"expected the weights of {type(self).__name__} in float32, got {name} in {parameter.dtype}; call .float() on it")
