"""State dicts of networks: safe loading, atomic saving, comparison with a module, fingerprints."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from malp_disc.serialization.file_kinds import file_kind
from malp_disc.serialization.files import atomic_path
from malp_disc.serialization.nesting import (
    Form,
    Role,
    describe_content,
    find_parts,
    find_weights,
    nameless_weights,
    strip_to,
    without_module,
)
from malp_disc.serialization.reading import check_file, read_weights


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, mode: int | None = None) -> None:
    """Write a state dict as safetensors, atomically; `mode` as for `atomic_path`.

    Raises:
        OSError: the disk is full or not writable.
    """
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic_path(path, mode=mode) as temporary:
        try:
            save_file(plain, str(temporary), metadata=dict(metadata) if metadata else None)  # with {} and no tensors it writes a file that it can't read
        except SafetensorError as error:  # of the operating system's errors, it keeps the number in its text only
            number = re.search(r"\(os error (\d+)\)", str(error))
            known = (int(number[1]), os.strerror(int(number[1]))) if number else (errno.EIO, str(error))
            raise OSError(*known, str(path)) from error


def load_tensors(path: str | Path, *, forms: Sequence[Form] = (), entries: tuple[str, ...] = (), role: Role = "generator") -> dict[str, Tensor]:
    """Read a state dict from a file, without executing anything in it.

    Args:
        path: safetensors, a torch file of any version that loads with ``weights_only=True``, or a ``.npz``.
        forms: identifying keys of the network, found at any nesting and after any prefix (see `malp_disc.serialization.nesting`,
            also for the choice among several copies).
        entries: names under which published files nest the state dict, in order of preference.
        role: of a generator, the averaged copy is preferred; of a discriminator, the other.

    Returns:
        Tensors by name, on the CPU, without the prefix. If none of the `forms` is found: the first of the `entries` in the file, otherwise
        its top level, without a leading ``module.``; then `load_state` reports the missing keys.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, contains objects other than tensors, or has no tensors.
    """
    path = Path(path)
    content = read_weights(path)
    found = find_weights(content, forms, entries=entries, role=role, source=str(path)) if forms else None
    if found is not None:
        return _plain(found, path)
    taken = _entry_of(content, entries)
    tensors = _tensors_of(taken)
    if tensors:
        return _plain(tensors, path)
    if nameless_weights(content):
        raise ValueError(
            f"{path} holds weights in a list, without names (as shadow_params of an average); in the environment where it was made, copy them into the "
            'network (ema.copy_to(network.parameters())) and re-save it: torch.save(network.state_dict(), "weights.pth")'
        )
    if forms and isinstance(taken, Mapping) and forms[0][0] in taken:
        raise ValueError(f"{path} holds the network's keys, but no tensors under them (numpy's arrays?); convert them with torch.from_numpy and save again")
    expected = f"tensors by name, {', '.join(forms[0])} among them" if forms else "tensors by name"
    raise ValueError(f"{path} holds no state dict{' of this network' if forms else ''}: expected {expected}, found {describe_content(content) if forms else _names_in(content)}")


def load_metadata(path: str | Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file; empty if there is none, or for torch and numpy files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a damaged one.
    """
    path = Path(path)
    check_file(path, "file", "the path of a .safetensors file")
    kind = file_kind(path)
    if kind.name in ("torch", "legacy torch", "npz"):
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        reason = f"it is {kind.text}; {kind.advice}" if kind.name != "safetensors" else f"it is damaged: {error}"
        raise ValueError(f"{path} can't be read as safetensors: {reason}") from error


def load_entries(path: str | Path, required: tuple[str, ...], optional: tuple[str, ...] = (), *, what: str) -> dict[str, dict[str, Tensor]]:
    """Read several state dicts of one file; other entries are ignored.

    Args:
        path: as for `load_tensors`.
        required, optional: names of the entries.
        what: the expected file, for errors: "a MaLP checkpoint of the authors".

    Returns:
        State dicts by entry, as from `load_tensors`; missing optional entries are omitted.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, contains objects other than tensors, lacks a required entry, or an entry has no tensors.
    """
    path = Path(path)
    content = read_weights(path)
    missing = [name for name in required if not isinstance(content, Mapping) or name not in content]
    if missing:
        raise ValueError(f"{path} is not {what}: expected the entries {list(required)}, found {_names_in(content)}")
    entries = {name: _tensors_of(content[name]) for name in (*required, *optional) if name in content}
    for name, tensors in entries.items():
        if not tensors:
            raise ValueError(f"{path} is not {what}: its {name} is no state dict, expected tensors by name, found {_names_in(content[name])}")
    return {name: _plain(tensors, path) for name, tensors in entries.items()}


def load_parts(
    path: str | Path, parts: tuple[str, ...], optional: tuple[str, ...] = (), *, entries: tuple[str, ...] = (), what: str
) -> dict[str, Tensor]:
    """Read several state dicts of one file as one: keys of entry "a" get the prefix "a.".

    A file with a single state dict whose keys have these prefixes is accepted too. Either may be nested or prefixed.

    Args:
        path: as for `load_tensors`.
        parts, optional: names of the entries; others are ignored.
        entries: names under which published files nest the parts, in order of preference.
        what: the expected file, for errors: "a checkpoint of UNIT".

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, contains objects other than tensors, or lacks one of the `parts`.
    """
    content = read_weights(path)
    found = find_parts(content, parts, optional, entries=entries, source=str(path))
    if found is None:
        content = _entry_of(content, entries)
        empty = [part for part in parts if isinstance(content, Mapping) and part in content and not _tensors_of(content[part])]
        note = f", {empty} without tensors" if empty else ""
        raise ValueError(f"{path} is not {what}: expected the entries {list(parts)}, found {_names_in(content)}{note}")
    return _plain(found, path)


def _entry_of(content: Any, entries: tuple[str, ...]) -> Any:
    """The first of the entries that is a mapping; the content itself if there is none."""
    if not isinstance(content, Mapping):
        return content
    return next((content[entry] for entry in entries if isinstance(content.get(entry), Mapping)), content)


def _tensors_of(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return without_module({key: value.detach() for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)})


def _plain(tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The tensors; ValueError if one is quantized, sparse, on the meta device or of another class."""
    for key, value in tensors.items():
        kind = type(value).__name__
        if value.is_meta:
            raise ValueError(f"{path} holds {key} without its values (on the device meta); save the network with weights in it")
        if kind not in ("Tensor", "Parameter") or value.is_quantized or value.layout != torch.strided:
            what = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.") if kind in ("Tensor", "Parameter") else f"of the class {kind}"
            raise ValueError(f"{path} holds {key} as a tensor that is {what}; save the network in float32, whole and dense")
    return tensors


def _names_in(content: Any) -> list[str] | str:
    """The names at the top level of a file, for errors."""
    return list(content)[:8] if isinstance(content, Mapping) else type(content).__name__


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, optional: tuple[str, ...] = ()) -> None:
    """`load_state_dict` with an error that names the first differences. Half precision is converted, and a common prefix is removed.

    Args:
        source: the file's name, for errors.
        optional: suffixes of keys that may be missing or surplus. Batch counters (``num_batches_tracked``) always may.

    Raises:
        ValueError: keys, shapes or dtypes differ; the module is unchanged then.
    """
    tensors, own, optional = strip_to(module, tensors), module.state_dict(), (*optional, "num_batches_tracked")
    missing = [key for key in own if key not in tensors and not key.endswith(optional)]
    surplus = [key for key in tensors if key not in own and not key.endswith(optional)]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} here"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    kinds = [
        f"{key} has numbers of type {tensors[key].dtype} in the file and {own[key].dtype} here; save the network in float32"
        for key in own
        if key in tensors and own[key].is_floating_point() and not tensors[key].is_floating_point()
    ]
    if missing or surplus or shapes or kinds:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing, first {missing[:3]}")
        if surplus:
            parts.append(f"{len(surplus)} unknown, first {surplus[:3]}")
        parts += ["; ".join(differing[:3]) for differing in (shapes, kinds) if differing]
        raise ValueError(f"{source} is not a checkpoint of this {type(module).__name__}: " + "; ".join(parts))
    module.load_state_dict({key: tensors[key] for key in own if key in tensors}, strict=False)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """The first 16 hex digits of a sha256 of names, dtypes, shapes and values, as an identifier of weights."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def values_fingerprint(tensors: Iterable[Tensor]) -> str:
    """The first 16 hex digits of a sha256 of floating-point values, whatever the tensors' names, order, nesting and file format.

    The values are rounded to half precision first, so weights in float32 and their copy in a float16 file have one fingerprint. A bfloat16 file has fewer
    digits than that, and its fingerprint differs. Whole numbers (batch counters) don't count.
    """
    largest = torch.finfo(torch.float16).max
    rounded = [tensor.detach().cpu().float().clamp(-largest, largest).half() for tensor in tensors if tensor.is_floating_point()]
    digests = sorted(hashlib.sha256(f"{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes()).hexdigest() for value in rounded)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
