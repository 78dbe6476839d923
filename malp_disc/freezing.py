"""Which weights learn: frozen for good (`freeze`), or left out of a loss that another network takes (`gradients_to_inputs_only`, `called_on_copies`). And weights that stay in float32."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class FrozenParameter(nn.Parameter):
    """A parameter that never requires a gradient.

    ``parent.requires_grad_(True)`` and ``for p in parent.parameters(): p.requires_grad = True``, which GAN training loops run before every discriminator
    update, go straight to the parameters of the whole tree. A frozen network inside can only resist here.
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
    """A module that `freeze` also keeps in evaluation mode, whatever is asked of a module around it. Moves, copies and pickles of it are frozen too."""

    frozen: bool = False

    def train(self: Module, mode: bool = True) -> Module:
        return super().train(mode and not self.frozen)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if self.frozen:
            _hold(self)  # a move to another kind of device, or to the meta device, makes new parameters
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.frozen:
            _hold(self)  # pickle makes plain parameters


def freeze(module: Module) -> Module:
    """Evaluation mode and no gradients, for good: ``requires_grad_(True)`` on it or on a parent changes nothing. `unfreeze` undoes it."""
    _hold(module)
    for part in module.modules():
        if isinstance(part, Freezable):
            part.frozen = True
    return module.eval()


def unfreeze(module: Module) -> Module:
    """Undo `freeze`: its frozen parameters require gradients again; the others stay as they are. The mode isn't changed."""
    for parameter in module.parameters():
        if isinstance(parameter, FrozenParameter):
            parameter.__class__ = nn.Parameter
            parameter.requires_grad_(True)
    for part in module.modules():
        if isinstance(part, Freezable):
            part.frozen = False
    return module


def _hold(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.__class__ = FrozenParameter  # in place, so that optimizers and tied weights keep their reference


@contextlib.contextmanager
def gradients_to_inputs_only(*modules: nn.Module | None, evaluation: bool = False) -> Iterator[None]:
    """For the generator's loss from a network that learns too: what is computed inside passes gradients to the inputs, none to the modules' parameters.

    Afterwards, also after an exception, every parameter that required a gradient does so again (one that the user fixed stays fixed), and every submodule
    has its own mode again. When ``backward`` is called doesn't matter: the graph doesn't contain the parameters.

    Args:
        modules: may contain None, which is skipped.
        evaluation: switch them to evaluation mode meanwhile.
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


def called_on_copies(module: nn.Module, *inputs: Any) -> Any:
    """``module(*inputs)`` on copies of its weights and buffers that no gradient reaches: gradients pass to the inputs alone.

    The module may change before ``backward``: an optimizer's step, or the running statistics of a batch norm, would spoil a graph on the weights themselves.
    """
    copies = {name: value.detach().clone() for name, value in itertools.chain(module.named_parameters(), module.named_buffers())}
    return torch.func.functional_call(module, copies, inputs)


class Float32Module(nn.Module):
    """A module whose weights stay in float32: ``.half()``, ``.bfloat16()``, ``.double()`` and ``.to(dtype)``, on it or on a parent, only move it between devices.

    Its arithmetic is float32 whatever the dtype of its inputs, and rounding small weights to 16 bits would change what it computes and stall its training.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def in_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.is_floating_point() and moved.dtype != torch.float32:
                moved = tensor.to(moved.device, torch.float32)  # from the original: a round trip would lose digits
            return moved

        return super()._apply(in_float32, recurse)

    def check_weights(self) -> None:
        """Raise ValueError for weights of another dtype, which only ``parameter.data = …`` and ``load_state_dict(assign=True)`` can bring about."""
        for name, parameter in self.named_parameters():
            if parameter.dtype != torch.float32:
                raise ValueError(f"expected the weights of {type(self).__name__} in float32, got {name} in {parameter.dtype}; call .float() on it")
