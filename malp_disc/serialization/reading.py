"""Reads files of weights, arrays and JSON, recognized by their content, without executing anything in them.

Errors say what the file is, what was expected, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, load_file

from malp_disc.serialization.file_kinds import file_kind, folder_kind
from malp_disc.serialization.pickles import ForeignObjects, OtherProtocol, load_torch

_RESAVE = 'torch.save(network.state_dict(), "weights.pth")'


def read_weights(path: str | Path) -> Any:
    """The content of a safetensors file, a torch file of any version, or numpy's ``.npz``, whatever its suffix.

    Raises:
        FileNotFoundError: no such file, or a folder.
        ValueError: another kind of file, a damaged one, or one that contains objects other than tensors.
    """
    path = Path(path)
    check_file(path, "checkpoint", "the path of a .safetensors, .ckpt or .pth file")
    kind = file_kind(path)
    if kind.name == "npz" or (path.suffix == ".npz" and kind.name not in ("safetensors", "torch", "legacy torch", "pickle")):
        return {name: torch.from_numpy(array) for name, array in read_arrays(path, what="a network's weights").items()}
    readers: dict[str, Callable[[Path], Any]] = {"safetensors": _read_safetensors, "torch": load_torch, "legacy torch": load_torch, "pickle": load_torch}
    if kind.name not in readers:
        raise ValueError(f"{path} can't be read as plain tensors: it is {kind.text}. Expected a safetensors or torch file of weights; {kind.advice}")
    try:
        return readers[kind.name](path)
    except PermissionError:
        raise
    except ForeignObjects as error:
        raise ValueError(f"{path} can't be read as plain tensors: {_refusal(error.names)}") from error
    except Exception as error:  # readers raise nearly any type for damaged files: IndexError, AssertionError, OSError …
        if kind.name == "pickle":
            raise ValueError(
                f"{path} can't be read as plain tensors: it is a Python pickle and no file of torch.save, so nothing of it can be read without running "
                f"what it holds. In the environment where it was made, re-save just the weights: {_RESAVE}"
            ) from error
        if isinstance(error, OtherProtocol):
            raise ValueError(
                f"{path} can't be read as plain tensors: it was saved with pickle protocol 4 or later. In the environment where it was made, re-save it "
                f"without pickle_protocol: {_RESAVE}"
            ) from error
        raise ValueError(
            f"{path} can't be read as plain tensors: it is {kind.text}, and damaged or of an unknown form ({_reason(error)}); download or copy it again"
        ) from error


def read_arrays(path: str | Path, *, what: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name.

    Args:
        what: the expected content, for errors: "statistics as pytorch-fid saves them".

    Raises:
        FileNotFoundError: no such file, or a folder.
        ValueError: another kind of file, a damaged one, or one with objects in place of numbers.
    """
    path = Path(path)
    check_file(path, "file", "the path of a .npz file")
    kind = file_kind(path)
    if kind.name != "npz":
        raise ValueError(f"{path} can't be read as plain arrays by name: it is {kind.text}. Expected a .npz with {what}; {'give such a file' if kind.advice.startswith('give') else kind.advice}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except PermissionError:
        raise
    except Exception as error:  # damaged, or with objects: numpy raises many types
        objects = "allow_pickle" in str(error)
        reason = "it has objects in it, which would have to be unpickled" if objects else f"it is damaged: {_reason(error)}"
        advice = "save it with plain numbers only" if objects else "download or write it again"
        raise ValueError(f"{path} can't be read as plain arrays by name ({reason}). Expected a .npz with {what}; {advice}") from error
    if text := [name for name, array in found.items() if array.dtype.kind not in "biufc"]:
        raise ValueError(f"{path} can't be read as plain arrays by name: {text[0]} holds no numbers ({found[text[0]].dtype}). Expected a .npz with {what}")
    return {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in found.items()}


def read_json(path: str | Path, *, what: str, kind: type = dict) -> Any:
    """The content of a JSON file, a value of type `kind`.

    Args:
        what: the expected file, for errors: "the config.json of a saved MaLP".
        kind: dict or list.

    Raises:
        FileNotFoundError: no such file, or a folder.
        ValueError: not JSON, or not of that type.
    """
    path = Path(path)
    check_file(path, "file", f"the path of {what}")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        found = file_kind(path)
        reason = f"it is {found.text}" if found.name != "json" else f"it is damaged: {_reason(error)}"
        raise ValueError(f"{path} can't be read as JSON, {reason}. Expected {what}; write or download it again") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} is not {what}: expected a JSON {'object' if kind is dict else 'list'}, got {type(value).__name__}")
    return value


def check_file(path: Path, noun: str, wanted: str) -> None:
    """Check that `path` is a file.

    Args:
        noun, wanted: what is missing and what to give, for the error: "checkpoint", "the path of a .pth file".

    Raises:
        FileNotFoundError: otherwise; the message says what is there instead.
    """
    if path.is_file():
        return
    if path.is_dir():
        kind = folder_kind(path)
        raise FileNotFoundError(f"no {noun} at {path}: it is {kind.text}; {kind.advice}")
    if path.is_symlink():
        raise FileNotFoundError(f"no {noun} at {path}: it is a link to {path.readlink()}, which isn't there; give {wanted}")
    if path.exists():
        raise FileNotFoundError(f"no {noun} at {path}: it is a device or a pipe; give {wanted}")
    raise FileNotFoundError(f"no {noun} at {path}; give {wanted}")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(str(path)) if is_utf8(path) else load(path.read_bytes())


def is_utf8(path: Path) -> bool:
    """Whether a path's bytes are UTF-8, which safetensors needs to open the file itself."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refusal(names: list[str]) -> str:
    """The objects that can't be read, and how to save the weights without them."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if any("DTensor" in name for name in names):
        return f"it holds sharded tensors ({shown}); gather them where it was made (torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True) and save those"
    what = "a whole pickled network" if any(name.startswith("torch.nn.modules.") for name in names) else "objects of other classes beside or in place of the weights"
    return f"it holds {what} ({shown}), and only files that load with weights_only=True are read. In the environment where it was made, re-save just the weights: {_RESAVE}"


def _reason(error: BaseException) -> str:
    """The first line of an error, without torch's advice to disable ``weights_only``."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return type(error).__name__ if not line or "weights_only" in line or "safe_globals" in line else line[:200].rstrip(".")
