"""Deep copies of user modules, also of those that `copy.deepcopy` alone can't copy."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from malp_disc.manipulate import describe

Module = TypeVar("Module", bound=nn.Module)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_REGISTRIES = ("_parameters", "_modules")


def copy_module(module: Module, name: str = "the generator") -> Module:
    """A deep copy with weights of its own.

    Non-leaf tensors in attributes, such as the computed weights of ``torch.nn.utils.weight_norm``, ``spectral_norm`` and ``prune``, are detached, and
    locks are replaced by new ones.

    Args:
        name: of the module in messages.

    Raises:
        ValueError: an attribute can't be copied (an open file, a running generator function, a process group …); the message names it.
    """
    try:
        return copy.deepcopy(module, _substitutes(module))
    except Exception as error:  # an object may raise anything when it is copied
        where = next(_uncopyable(module), None)
        if where is None:
            raise ValueError(f"{name} can't be copied: {type(error).__name__}: {error}") from error
        path, value = where
        raise ValueError(
            f"{name} can't be copied, as fine-tuning has to: its attribute {path} is {describe(value)} ({type(error).__name__}: {error}). Make it where it is "
            "used, or keep it outside the module"
        ) from error


def _substitutes(module: nn.Module) -> dict[int, Any]:
    """Replacements for objects that `copy.deepcopy` can't copy, by their id."""
    found = {id(part): _copy_scripted(part) for part in module.modules() if isinstance(part, torch.jit.ScriptModule)}
    for _, value in _attributes(module):
        if isinstance(value, Tensor) and not value.is_leaf:
            found[id(value)] = value.detach().clone()
        elif isinstance(value, _LOCKS):
            found[id(value)] = threading.Lock() if isinstance(value, _LOCKS[0]) else threading.RLock()
    return found


def _copy_scripted(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A copy of a TorchScript module through save and load: the methods of its deepcopy would use the original's weights."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    copied = torch.jit.load(file)
    for ours, theirs in zip(copied.parameters(), module.parameters()):
        ours.requires_grad_(theirs.requires_grad)
    return copied


def _uncopyable(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Path and value of the objects that can't be copied, the innermost first."""
    substitutes = _substitutes(module)
    paths = list(_attributes(module))
    for path, value in sorted(paths, key=lambda entry: -entry[0].count(".") - entry[0].count("[")):
        try:
            copy.deepcopy(value, dict(substitutes))
        except Exception:
            yield path, value


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """All attributes of a module and its submodules except parameters, by path, including the contents of containers and plain objects."""
    seen = {id(part) for part in module.modules()} | {id(parameter) for parameter in module.parameters()}

    def inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if id(value) in seen or isinstance(value, (str, bytes, int, float, bool, type(None), type)):
            return
        seen.add(id(value))
        yield path, value
        if isinstance(value, Tensor):
            return
        if isinstance(value, dict):
            for key, item in value.items():
                yield from inside(f"{path}[{key!r}]", item)
        elif isinstance(value, (list, tuple, set)):
            for number, item in enumerate(value):
                yield from inside(f"{path}[{number}]", item)
        elif isinstance(value, nn.Module):  # not registered as a submodule, as in a plain list
            seen.update(id(parameter) for parameter in value.parameters())
            yield from _own(path, value)
        elif hasattr(value, "__dict__") and not callable(value):
            for key, item in vars(value).items():
                yield from inside(f"{path}.{key}", item)

    def _own(path: str, part: nn.Module) -> Iterator[tuple[str, Any]]:
        for key, value in vars(part).items():
            if key not in _REGISTRIES:
                yield from inside(f"{path}.{key}" if path else key, value)

    for path, part in module.named_modules():
        yield from _own(path, part)
