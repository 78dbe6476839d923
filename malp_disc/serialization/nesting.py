"""Finds a network's state dict in the content of a file: nested, with prefixed keys, beside other state dicts.

Training scripts save ``{"state_dict": …}``, ``{"G": …, "D": …}``, ``{"params": …, "params_ema": …}`` and the like; DataParallel prefixes
keys by ``module.``, torch.compile by ``_orig_mod.``, and wrappers by an attribute's name (``generator.``, ``netG.``, ``ema_model.``). All of
these are treated as paths: ``{"state_dict": {"module.w": …}}`` has the weights at ``state_dict.module.``. A network is recognized by a few of
its keys.

If several paths have the network's keys, these rules, in this order, select one, and a log line names it and the others:

1. a path that doesn't name the other role (generator or discriminator);
2. for a generator, an averaged copy (``ema``, ``average``, ``g_running``, ``shadow``, ``swa`` in the path); for a discriminator, any other;
3. the entries of the network's published files, in their order;
4. the first in the file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

logger = logging.getLogger(__name__)

Role = Literal["generator", "discriminator"]
Form = tuple[str, ...]
"""Keys that identify a network's state dict: one form of its files has all of them."""

_INSIDE = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # wrappers of submodules as well
_COUNTERS = {"n_averaged", "decay", "num_updates", "step", "steps", "global_step", "epoch", "iteration", "iterations", "initted", "best_loss"}
_AVERAGED = {"ema", "average", "averaged", "avg", "running", "shadow", "swa", "smoothed"}
_ROLES = {
    "generator": {"g", "gen", "generator", "netg", "generators"},
    "discriminator": {"d", "dis", "disc", "discriminator", "netd", "critic", "discriminators"},
}
_WRAPPERS = {"module", "model", "net", "network", "state", "dict", "params", "online", "models", "nets"} | _AVERAGED | _ROLES["generator"] | _ROLES["discriminator"]
_DEEPEST = 8


def find_weights(content: Any, forms: Sequence[Form], *, entries: Sequence[str] = (), role: Role = "generator", source: str) -> dict[str, Tensor] | None:
    """The state dict of a network, without prefix; None if no path has the keys of one of the `forms`.

    Args:
        content: the content of the file: nested mappings, and possibly other objects.
        forms: identifying keys, for each form of the network's files.
        entries: names under which published files nest it, in order of preference.
        role: generator or discriminator, for the choice among several (see the module's docstring).
        source: the file's name, for the log.
    """
    flat = flatten(content)
    paths = dict.fromkeys(path for form in forms for path in _paths_with(flat, form))
    outer = _outermost(list(paths))
    if not outer:
        return None
    chosen = min(outer, key=lambda path: _rank(path, entries, role))  # the first of equals
    _log_choice(chosen, outer, source)
    return _below(flat, chosen, [path for path in outer if path != chosen])


def find_parts(content: Any, parts: Sequence[str], optional: Sequence[str] = (), *, entries: Sequence[str] = (), source: str) -> dict[str, Tensor] | None:
    """The state dict, with keys "part.key", of a network of several `parts`, each nested under its name or prefixed by it.

    None if one of the `parts` is missing. A ``module.`` before every key of a part is removed, and other content is ignored.
    """
    flat = flatten(content)
    inner = dict.fromkeys(key[: dot.start()] for key in flat for dot in re.finditer(r"\.", key))  # every prefix of a key
    first = re.compile(rf"(.*\.)?{re.escape(parts[0])}")
    paths = [match[1] or "" for name in inner if (match := first.fullmatch(name))]
    outer = _outermost([path for path in paths if all(path + part in inner for part in parts)])
    if not outer:
        return None
    chosen = min(outer, key=lambda path: _rank(path, entries, "generator"))
    _log_choice(chosen, outer, source)
    found: dict[str, Tensor] = {}
    for part in (*parts, *optional):
        tensors = without_module(_below(flat, f"{chosen}{part}.", []))
        found |= {f"{part}.{key}": value for key, value in tensors.items()}
    return found


def flatten(content: Any) -> dict[str, Tensor]:
    """All tensors in nested mappings by path: names joined by dots, without those of compile and FSDP wrappers."""
    return {_INSIDE.sub("", path): value for path, value in _walk(content, "", ())}


def without_module(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove a leading ``module.`` (of DataParallel) if every key has it."""
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return dict(tensors)


def strip_to(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix after which the keys are the module's, and the entries without that prefix; no change if there is none.

    Batch counters (``num_batches_tracked``) are ignored in the comparison.
    """
    own = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    flat = flatten(tensors)
    if not own or all(key in tensors for key in own):
        return dict(tensors)
    paths = _outermost(list(_paths_with(flat, tuple(own))))
    if not paths:
        return dict(tensors)
    return _below(flat, min(paths, key=lambda path: _rank(path, (), "generator")), [])


def describe_content(content: Any) -> str:
    """The content of a file, for errors: names, and for nested state dicts the number of tensors and the first key."""
    if not isinstance(content, Mapping):
        return type(content).__name__
    described = []
    for name, value in list(content.items())[:8]:
        inside = flatten(value) if isinstance(value, Mapping) else {}
        described.append(f"{name} ({len(inside)} tensors: {next(iter(inside))}, …)" if inside else str(name))
    return ", ".join(described) + (" …" if len(content) > 8 else "") or "nothing"


def nameless_weights(content: Any, depth: int = 0) -> bool:
    """Whether there is a list of tensors without names, such as torch_ema's ``shadow_params``."""
    if isinstance(content, (list, tuple)):
        return len(content) > 1 and all(isinstance(value, Tensor) for value in content)
    return isinstance(content, Mapping) and depth <= _DEEPEST and any(nameless_weights(value, depth + 1) for value in content.values())


def _walk(content: Any, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, (list, tuple)):  # a list of state dicts; tensors in a list have no names
        content = {str(i): value for i, value in enumerate(content) if isinstance(value, Mapping)}
    elif id(content) in above:  # it contains itself
        return
    if not isinstance(content, Mapping) or len(above) > _DEEPEST:
        return
    for name, value in content.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, Tensor):
            yield path + name, value.detach()
        else:
            yield from _walk(value, f"{path}{name}.", (*above, id(content)))


def _paths_with(flat: Mapping[str, Tensor], form: Form) -> Iterator[str]:
    """Paths below which there are all keys of the form."""
    first = form[0]
    for key in flat:
        if key == first or key.endswith("." + first):
            path = key[: len(key) - len(first)]
            if all(path + other in flat for other in form):
                yield path


def _outermost(paths: list[str]) -> list[str]:
    """The paths that aren't inside the network at another one (a residual block may have the same keys); names of wrappers don't count as inside."""
    return [path for path in paths if not any(path != other and path.startswith(other) and not _is_wrapping(path[len(other) :]) for other in paths)]


def _is_wrapping(names: str) -> bool:
    return all(words(name) and words(name) <= _WRAPPERS for name in names.strip(".").split("."))


def words(name: str) -> set[str]:
    """The words of a name in lower case: net, netg, g, a2b for "netG_A2B"."""
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", name) if part]
    split = [word for part in parts for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|\d+", part)]
    return {word.lower() for word in (*parts, *split)}


def _rank(path: str, entries: Sequence[str], role: Role) -> tuple[bool, bool, int]:
    names = [name for name in path.split(".") if name]
    named = {word for name in names for word in words(name)}
    other = "discriminator" if role == "generator" else "generator"
    foreign = bool(named & _ROLES[other]) and not named & _ROLES[role]
    averaged = bool(named & _AVERAGED)
    place = min((entries.index(name) for name in names if name in entries), default=len(entries))
    return foreign, averaged != (role == "generator"), place


def _log_choice(chosen: str, paths: Sequence[str], source: str) -> None:
    if len(paths) > 1:
        others = ", ".join(path.rstrip(".") or "the top level" for path in paths if path != chosen)
        logger.warning("%s holds this network several times: taking %s, not %s", source, chosen.rstrip(".") or "the top level", others)


def _below(flat: Mapping[str, Tensor], path: str, others: Sequence[str]) -> dict[str, Tensor]:
    """The tensors below a path, without its prefix, without those below one of the `others` and without counters of wrappers."""
    others = [other for other in others if other.startswith(path)]
    below = {key[len(path) :]: value for key, value in flat.items() if key.startswith(path) and not key.startswith(tuple(others) or ("\0",))}
    return {key: value for key, value in below.items() if not (key in _COUNTERS and value.numel() == 1)}
