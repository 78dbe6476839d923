"""Reading and writing weights: nothing from outside is unpickled, and a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from malp_disc.reading import read_weights

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<suffix>(\.[^.]+)?)")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; on success it is flushed to disk and renamed onto it, on failure removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that nobody else may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: str | Path) -> None:
    """Remove the temporary files of `atomic_path` that a killed process left in `folder` and below. Only where nobody else is writing."""
    for path in Path(folder).rglob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and Path(match["name"]).suffix == match["suffix"] and path.is_file():
            path.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given. NaN and infinity are refused: no JSON reader has to take them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, atomically."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, str(temporary), metadata=dict(metadata or {}))


def load_tensors(path: str | Path, *, entries: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Read a state dict from safetensors or a torch file, without running anything it holds.

    Args:
        path: a ``.safetensors`` file, or anything ``torch.load(weights_only=True)`` takes.
        entries: names under which published files nest the state dict; the first one present is taken.

    Returns:
        Tensors by name, on the CPU, a leading ``module.`` (left by DataParallel) removed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, needs code to be read, or holds no tensors.
    """
    path = Path(path)
    content = read_weights(path)
    for entry in entries:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    tensors = _tensors_of(content)
    if not tensors:
        raise ValueError(f"{path} holds no state dict: expected tensors by name, found {_found(content)}")
    return tensors


def load_entries(path: str | Path, required: tuple[str, ...], optional: tuple[str, ...] = (), *, what: str) -> dict[str, dict[str, Tensor]]:
    """Read several state dicts that one file holds side by side; anything else in it is left alone.

    Args:
        path: as for `load_tensors`.
        required, optional: the entries' names.
        what: the file should be, for the error: "a MaLP checkpoint of the authors".

    Returns:
        By entry, as `load_tensors` gives them; of the optional ones those that are there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, needs code to be read, lacks a required entry, or an entry holds no tensors.
    """
    path = Path(path)
    content = read_weights(path)
    missing = [name for name in required if not isinstance(content, Mapping) or name not in content]
    if missing:
        raise ValueError(f"{path} is not {what}: expected the entries {list(required)}, found {_found(content)}")
    entries = {name: _tensors_of(content[name]) for name in (*required, *optional) if name in content}
    for name, tensors in entries.items():
        if not tensors:
            raise ValueError(f"{path} is not {what}: its {name} is no state dict, expected tensors by name, found {_found(content[name])}")
    return entries


def load_parts(
    path: str | Path, parts: tuple[str, ...], optional: tuple[str, ...] = (), *, entries: tuple[str, ...] = (), what: str
) -> dict[str, Tensor]:
    """Read the state dicts that a file holds side by side as one: the keys of its entry "a" get the prefix "a.".

    A file in which they are one already, as of a network that holds the parts under these names, is taken too.

    Args:
        path: as for `load_tensors`.
        parts, optional: the entries' names; anything else is left alone.
        entries: names under which published files nest the parts; the first one present is taken.
        what: the file should be, for the error: "a checkpoint of UNIT".

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, needs code to be read, or has not all of the `parts`.
    """
    content = read_weights(path)
    if isinstance(content, Mapping):
        content = next((content[entry] for entry in entries if isinstance(content.get(entry), Mapping)), content)
    if isinstance(content, Mapping) and all(isinstance(content.get(part), Mapping) for part in parts):
        nested = {part: _tensors_of(content[part]) for part in (*parts, *optional) if isinstance(content.get(part), Mapping)}
        return {f"{part}.{key}": value for part, tensors in nested.items() for key, value in tensors.items()}
    tensors = _tensors_of(content)
    if not all(any(key.startswith(f"{part}.") for key in tensors) for part in parts):
        raise ValueError(f"{path} is not {what}: expected the entries {list(parts)}, found {_found(content)}")
    return tensors


def _tensors_of(content: Any) -> dict[str, Tensor]:
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)} if isinstance(content, Mapping) else {}
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _found(content: Any) -> list[str] | str:
    return list(content)[:8] if isinstance(content, Mapping) else type(content).__name__


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, optional: tuple[str, ...] = ()) -> None:
    """`load_state_dict` that names the first differences.

    Args:
        optional: key endings that the file may lack or have in excess (batch counters of old torch versions).

    Raises:
        ValueError: keys or shapes differ; nothing has been loaded then.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors and not key.endswith(optional)]
    surplus = [key for key in tensors if key not in own and not key.endswith(optional)]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} here"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if missing or surplus or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing, first {missing[:3]}")
        if surplus:
            parts.append(f"{len(surplus)} unknown, first {surplus[:3]}")
        if shapes:
            parts.append("; ".join(shapes[:3]))
        raise ValueError(f"{source} is not a checkpoint of this {type(module).__name__}: " + "; ".join(parts))
    module.load_state_dict({key: tensors[key] for key in own if key in tensors}, strict=False)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and values, first 16 hex digits: two checkpoints with the same fingerprint are the same weights."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
