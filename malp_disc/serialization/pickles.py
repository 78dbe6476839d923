"""Reads torch files that contain other objects than tensors: harmless ones (configuration, counters) are ignored, others refused by name.

Nothing that a file names is imported or called. torch's reader with ``weights_only=True`` builds tensors and plain containers; classes of
the lists below are replaced by `_Inert`, which discards its arguments.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch

# Classes that only hold values, found in checkpoints of training scripts, mainly of PyTorch Lightning.
_HARMLESS = re.compile(
    r"""numpy\.(_?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|dtype|ndarray|(bool_?|u?int\d*|float\d+)|dtypes\.\w+)
    |argparse\.Namespace | types\.SimpleNamespace | (datetime|decimal|fractions|uuid)\.\w+ | pathlib\.(_local\.)?\w*Path
    |(collections|builtins)\.(deque|frozenset|range|xrange|slice|bytes|bytearray|list|tuple|dict|int|float|str|bool|object|Ellipsis|NotImplemented)
    |collections\.abc\.\w+ | typing\.\w+ | torch\.optim\.(\w+\.)*\w+ | torch\.(torch_version\.TorchVersion|Generator)
    |omegaconf\.(\w+\.)*\w+ | antlr4\.\w+(\.\w+)*
    |(pytorch_lightning|lightning(\.pytorch|\.fabric)?|lightning_fabric)\.(callbacks|utilities)\.(\w+\.)*\w+""",
    re.VERBOSE,
)
# Dictionary classes, which torch's reader fills key by key.
_HARMLESS_DICTS = re.compile(
    r"""collections\.defaultdict | easydict\.EasyDict | addict\.(addict\.)?Dict | (yacs|fvcore\.common|detectron2)\.config\.(\w+\.)*CfgNode
    |ml_collections\.(\w+\.)*ConfigDict | munch\.(\w+\.)?(Munch|DefaultMunch) | box\.(\w+\.)?Box | attrdict\.(\w+\.)?AttrDict
    |(pytorch_lightning|lightning(\.pytorch|\.fabric)?|lightning_fabric)\.(\w+\.)*AttributeDict""",
    re.VERBOSE,
)


class _Inert(list):
    """Replaces a harmless object and discards its content."""

    def __new__(cls, *arguments: Any, **options: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __hash__(self) -> int:  # may be a dictionary key
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class _InertDict:
    """Replaces other dictionary classes by OrderedDict."""

    def __new__(cls, *arguments: Any, **options: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


class ForeignObjects(ValueError):
    """A file contains objects that are neither tensors nor known to be harmless; `names` are their classes and functions."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class OtherProtocol(ValueError):
    """The file was saved with pickle protocol 4 or later, which torch doesn't read with ``weights_only=True``."""


def load_torch(path: str | Path) -> Any:
    """The content of a torch file, with harmless objects replaced by empty ones.

    Raises:
        ForeignObjects: it contains other objects.
        OtherProtocol: it was saved with another pickle protocol than torch.save's default.
        Exception: torch's errors for damaged files.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        try:
            return _load(path)
        except Exception:
            try:
                names = named_globals(path)
            except OtherProtocol:
                raise
            except Exception:  # damaged such that the names can't be listed: torch's error is more informative
                names = []
            unknown = [name for name in names if not _is_known(name)]
            if not unknown:
                raise
        stands_in = {name: _InertDict if _HARMLESS_DICTS.fullmatch(name) else _Inert for name in unknown if _is_harmless(name)}
        if foreign := [name for name in unknown if name not in stands_in]:
            raise ForeignObjects(foreign)
        with torch.serialization.safe_globals([(kind, name) for name, kind in stands_in.items()]):
            return _load(path)


def _load(path: str | Path) -> Any:
    with open(path, "rb") as file:  # given a path, torch would choose its reader by the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def named_globals(path: str | Path) -> list[str]:
    """Classes and functions that a torch file (of either format) refers to, as "module.name", in order; nothing is imported."""
    names: dict[str, None] = {}
    with open(path, "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                entry = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
                with archive.open(entry) as pickled:
                    _collect(pickled, names)
        else:
            file.seek(0)
            for _ in range(4):  # before version 1.6: four pickles (magic number, protocol, type sizes, object)
                _collect(file, names)
                if not file.peek(1):
                    break
    return list(names)


def _collect(pickled: BinaryIO, names: dict[str, None]) -> None:
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("GLOBAL", "INST"):
            names[_as_python_3(*str(argument).split(" ", 1))] = None
        elif operation.name == "STACK_GLOBAL":
            raise OtherProtocol


def _as_python_3(module: str, name: str) -> str:
    """Translate Python 2 names, used by pickle protocol 2, as torch's reader does."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def _is_harmless(name: str) -> bool:
    return bool(_HARMLESS.fullmatch(name) or _HARMLESS_DICTS.fullmatch(name))


def _is_known(name: str) -> bool:
    """Whether torch's reader accepts it with ``weights_only=True``."""
    return name.startswith(("torch._utils._rebuild_", "torch.storage.")) or bool(
        re.fullmatch(r"torch\.(cuda\.|sparse\.)*(\w*Storage|\w*Tensor|Size|device|b?float\w*|u?int\d+|bool|complex\d+|nn\.parameter\.Parameter)", name)
        or name in ("collections.OrderedDict", "collections.Counter", "_codecs.encode", "builtins.set", "builtins.complex", "builtins.bytearray", "torch._tensor._rebuild_from_type_v2", "torch.serialization._get_layout")
    )
