"""Detects the kind of a file from its first bytes and its table of contents, for errors that say what was given instead of weights.

Nothing is unpacked, unpickled or executed.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

_AGAIN = "download or copy it again"
_STATE_DICT = 'in the environment where it was made, re-save just the weights: torch.save(network.state_dict(), "weights.pth")'
_UNPACK = "unpack it and give the file with the weights that is inside"

# First bytes, description, advice. The first matching entry is used.
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for", "run `git lfs pull` in that repository, or download the file itself"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", _UNPACK),
    (b"\x93NUMPY", "a single numpy array (.npy)", "give a file that holds arrays by name"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", "give a torch or safetensors file with the network's state dict"),
    (b"MATLAB ", "a MATLAB file", "give a torch or safetensors file with the network's state dict"),
    (b"GGUF", "a GGUF file", "give a torch or safetensors file with the network's state dict"),
    (b"\x89PNG", "a PNG image", "give the file with the weights"),
    (b"\xff\xd8\xff", "a JPEG image", "give the file with the weights"),
    (b"GIF8", "a GIF image", "give the file with the weights"),
    (b"%PDF", "a PDF document", "give the file with the weights"),
    (b"model_checkpoint_path:", "the text file `checkpoint` that TensorFlow writes beside its checkpoints", "give the NAME.index file beside it"),
)
_LEGACY_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the first bytes of torch.save before version 1.6
_TENSORFLOW_TABLE = struct.pack("<Q", 0xDB4775248B80FB57)
_HEAD = 4096


@dataclass(frozen=True)
class FileKind:
    """The kind of a file, with the words for an error message."""

    name: str
    """For readable kinds "torch", "legacy torch", "pickle", "safetensors", "npz", "json" or "tensorflow"; "other" for known kinds that
    never hold readable weights; "unknown"."""
    text: str
    """Completes the sentence "it is …"."""
    advice: str
    """What to do if this isn't the expected file."""


def file_kind(path: str | Path) -> FileKind:
    """The kind of an existing file.

    Raises:
        OSError: the file can't be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if not head:
        return FileKind("other", "an empty file (0 bytes)", f"{_AGAIN}, and see whether the disk is full")
    if head.count(0) == len(head) and size >= 16:
        return FileKind("other", "a file of zeros, as an interrupted copy leaves", _AGAIN)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_kind(path, head)
    for start, text, advice in _STARTS:
        if head.startswith(start):
            return FileKind("other", text, advice)
    if head[257:262] == b"ustar":
        return _tar_kind(head)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        if head[2:14] == _LEGACY_TORCH:
            return FileKind("legacy torch", "a torch file of before version 1.6", _STATE_DICT)
        return FileKind("pickle", "a Python pickle", _STATE_DICT)
    if tail == _TENSORFLOW_TABLE or ".data-0" in path.name:
        return FileKind("tensorflow", "a part of a TensorFlow checkpoint", "this network is read from torch or safetensors files; give its state dict")
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40:
        return _safetensors_kind(path, size)
    return _text_kind(head) or _protobuf_kind(path, head) or FileKind("unknown", f"no kind of file that is known here (it begins with {head[:8]!r})", f"{_AGAIN}, or give another")


def folder_kind(path: str | Path) -> FileKind:
    """The kind of a folder that was given instead of a file."""
    path = Path(path)
    if (path / "saved_model.pb").is_file():
        return FileKind("other", "the folder of a TensorFlow SavedModel", "give a torch or safetensors file with the network's state dict")
    if (path / ".metadata").is_file() or any(path.glob("*.distcp")):
        return FileKind("other", "the folder of a distributed torch checkpoint (DTensors)", "convert it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`")
    if (path / "data.pkl").is_file() or (path / "archive" / "data.pkl").is_file():
        return FileKind("other", "the folder that an unzipped torch file leaves", "give the file that it was unpacked from")
    files = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".npz"))
    inside = f"; it holds {', '.join(files[:5])}{' …' if len(files) > 5 else ''}" if files else ""
    return FileKind("other", f"a folder{inside}", f"give the file, {path / files[0]} for example" if files else "give the file with the weights")


def _zip_kind(path: Path, head: bytes) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error):
        what = "the beginning of a torch file" if b"data.pkl" in head else "the beginning of a zip archive (torch.save and numpy.savez write such)"
        return FileKind("other", f"{what} that is cut short or damaged, as by an interrupted download", _AGAIN)
    if not names:
        return FileKind("other", "an empty zip archive, as numpy.savez makes it of no arrays", "write it again with arrays in it")
    insides = {name.partition("/")[2] for name in names}
    if "constants.pkl" in insides:
        return FileKind("other", "a TorchScript archive, which is code and isn't run here", "give the network's state dict; " + _STATE_DICT)
    if "data.pkl" in insides:
        return FileKind("torch", "a torch file", _STATE_DICT)
    if all(name.endswith(".npy") for name in names):
        return FileKind("npz", "a file of numpy arrays (.npz)", "give a file with the network's state dict")
    if "model.weights.h5" in names:
        return FileKind("other", "a Keras model", "give a torch or safetensors file with the network's state dict")
    return FileKind("other", f"a zip archive of other files ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})", _UNPACK)


def _tar_kind(head: bytes) -> FileKind:
    first = head[:100].rstrip(b"\0").decode("utf-8", "replace")
    if first in ("sys_info", "storages", "tensors", "pickle"):
        return FileKind("other", "a torch file of before version 0.2 (a tar archive)", "re-save its state dict with the torch version that made it")
    return FileKind("other", f"a tar archive (first file {first})", _UNPACK)


def _safetensors_kind(path: Path, size: int) -> FileKind:
    """Safetensors, or a truncated or damaged one."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = file.read(length) if 8 + length <= size else b""
    if not header:
        return FileKind("other", f"a safetensors file cut short in its header ({size} bytes, and the header alone has {8 + length})", _AGAIN)
    try:
        entries = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return FileKind("other", "a safetensors file whose header is damaged", _AGAIN)
    if isinstance(end, int) and 8 + length + end > size:
        return FileKind("other", f"a safetensors file cut short ({size} bytes of {8 + length + end})", _AGAIN)
    return FileKind("safetensors", "a safetensors file", _AGAIN)


def _text_kind(head: bytes) -> FileKind | None:
    """HTML, XML, JSON and other text."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Windows' UTF-16
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
        head = text.encode() if text and text.isascii() else head
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < len(head) - 4:  # otherwise a multi-byte character that is cut at the end of `head`
            return None
        text = head[: error.start].decode("utf-8-sig", "replace")
    if any(character < " " and character not in "\t\n\r\f\x1b" for character in text):
        return None
    start = text.lstrip()
    shown = " ".join(start.split())[:60]
    if start[:200].lower().startswith(("<!doctype html", "<html", "<head", "<body", "<!--")) or "<html" in start[:1000].lower():
        return FileKind("other", "an HTML page, probably the login, warning or error page of the site that it was downloaded from", "download the file itself (a browser shows what the page says)")
    if start.startswith("<"):
        return FileKind("other", f"an XML text ({shown!r}), probably the error message of the site that it was downloaded from", "download the file itself")
    if start.startswith(("{", "[")):
        return FileKind("json", f"a JSON text ({shown!r})", "give the file with the weights; if this is a site's error message, download the file again")
    return FileKind("other", f"a text file ({shown!r})", "give the file with the weights")


def _protobuf_kind(path: Path, head: bytes) -> FileKind | None:
    advice = "give a torch or safetensors file with the network's state dict"
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and (b"pytorch" in head[:64] or b"onnx" in head[:256].lower())):
        return FileKind("other", "an ONNX graph", advice)
    if path.suffix in (".pb", ".tflite", ".meta") or b"Placeholder" in head or head[4:8] == b"TFL3":
        return FileKind("other", "a TensorFlow graph", advice)
    return None
