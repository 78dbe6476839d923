"""The secret key, 32 random bytes, from which templates are derived. It is kept in a file apart from the detector, whose weights know nothing of it."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from malp_disc.keyed.config import SCHEME
from malp_disc.serialization.state_dicts import load_metadata, load_tensors, save_tensors

SECRET_FILE = "secret.safetensors"
SECRET_BYTES = 32
_ENTRY, _GRID, _SCHEME = "secret", "image_size", "scheme"


def new_secret() -> bytes:
    """A key from the operating system's random numbers."""
    return secrets.token_bytes(SECRET_BYTES)


def check_secret(secret: bytes) -> bytes:
    """The key itself; ValueError unless it is `SECRET_BYTES` bytes."""
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        found = f"{len(secret)} bytes" if isinstance(secret, bytes) else type(secret).__name__
        raise ValueError(f"expected a secret key of {SECRET_BYTES} bytes, got {found}; make one with malp_disc.keyed.secret.new_secret()")
    return secret


def secret_fingerprint(secret: bytes) -> str:
    """Public identifier of a key, which doesn't reveal it: 16 hex digits."""
    return hashlib.sha256(b"malp-disc fingerprint" + secret).hexdigest()[:16]


def secret_noise(secret: bytes, label: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers of `shape`, float32: SHAKE-256 of key and label as a random generator, by Box and Muller's method.

    The same on every machine and in every version. Without the key, they can't be told from random numbers.
    """
    count = int(np.prod(shape))
    pairs = -(-count // 2)
    stream = hashlib.shake_256(b"malp-disc noise" + secret + label.encode()).digest(8 * pairs)
    uniform = (np.frombuffer(stream, "<u4").astype(np.float64) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return torch.from_numpy(normal.astype(np.float32).reshape(shape))


def save_secret(path: str | Path, secret: bytes, *, grid: int | None = None) -> str:
    """Write a key with file mode 600 (readable by the owner only); returns its fingerprint. `grid` is the side of the reference grid of its templates."""
    known = secret_fingerprint(check_secret(secret))
    metadata = {"fingerprint": known, _SCHEME: str(SCHEME)} | ({} if grid is None else {_GRID: str(grid)})
    save_tensors(path, {_ENTRY: torch.tensor(list(secret), dtype=torch.uint8)}, metadata, mode=0o600)
    return known


def load_secret(path: str | Path, *, expected: str | None = None, grid: int | None = None) -> bytes:
    """Read a key.

    Args:
        path: a file written by `save_secret`.
        expected: a fingerprint; None accepts any key.
        grid: side of the reference grid on which it is to be used; None accepts any.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a key file, another key, or a key whose templates lie on another grid, or follow from it in another way (`malp_disc.keyed.config.SCHEME`).
    """
    tensors = load_tensors(path)
    if set(tensors) != {_ENTRY} or tensors[_ENTRY].dtype != torch.uint8 or tensors[_ENTRY].shape != (SECRET_BYTES,):
        raise ValueError(f"{path} is not a secret key: expected one entry {_ENTRY!r} of {SECRET_BYTES} bytes, found {sorted(tensors)[:5]}")
    secret = bytes(tensors[_ENTRY].tolist())
    if expected is not None and secret_fingerprint(secret) != expected:
        raise ValueError(
            f"{path} is the key {secret_fingerprint(secret)}, but the key {expected} is needed; give the file that was saved with it"
        )
    if (scheme := load_metadata(path).get(_SCHEME)) != str(SCHEME):
        raise ValueError(
            f"{path} is a key of scheme {scheme or '2 or before'}, whose templates this version ({SCHEME}) doesn't find{'' if scheme == '3' else ', and whose published images may have given it away'}; find them with the version that made "
            "them, and make a new key with malp-disc key"
        )
    own = load_metadata(path).get(_GRID)
    if grid is not None and own is not None and own != str(grid):
        raise ValueError(
            f"the templates of the key {path} lie on a reference grid of {own}x{own}, and this detector has one of {grid}x{grid}, on which they aren't found; give the folder "
            "that the key was made with"
        )
    return secret
