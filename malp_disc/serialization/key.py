"""The key: the template set, "a signature of the defender" (paper, section 3.1), saved in a file separate from the detector's weights.

With the templates, anyone can forge encrypted images and remove templates from them. Therefore the key file is readable by its owner only,
isn't uploaded with a detector, and is identified in public by a fingerprint, which reveals nothing about it.

Note:
    The template can be estimated from the detector and one encrypted image, since `E_E` was trained to recover it, and from many encrypted
    images (`malp_disc.metrics.template_leakage`; results in docs/results/localizer.md). The separate file prevents publishing the key by
    mistake; it doesn't make a published detector secure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from malp_disc.serialization.state_dicts import fingerprint, load_tensors, save_tensors

KEY_FILE = "templates.safetensors"
_ENTRY = "templates"


def key_fingerprint(templates: Tensor) -> str:
    """The first 16 hex digits of a sha256 of the template set (n, h, w), as a public identifier of the key."""
    return fingerprint({_ENTRY: templates.detach().float()})


def save_key(path: str | Path, templates: Tensor) -> str:
    """Write a template set (n, h, w) with file mode 600 (readable by the owner only); returns its fingerprint."""
    templates = templates.detach().float()
    known = key_fingerprint(templates)
    save_tensors(path, {_ENTRY: templates}, {"fingerprint": known}, mode=0o600)
    return known


def load_key(path: str | Path, *, shape: Sequence[int], expected: str | None = None) -> Tensor:
    """Read a template set (n, h, w).

    Args:
        path: a file written by `save_key`.
        shape: the shape that the detector expects.
        expected: the fingerprint that was saved with the detector; None accepts any key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a key file, templates of another shape, or the key of another detector.
    """
    tensors = load_tensors(path)
    if set(tensors) != {_ENTRY}:
        raise ValueError(f"{path} is not a key file: expected one entry {_ENTRY!r}, found {sorted(tensors)[:5]}")
    templates = tensors[_ENTRY].float()
    if tuple(templates.shape) != tuple(shape):
        raise ValueError(f"{path} holds templates of shape {tuple(templates.shape)}, the detector needs {tuple(shape)}")
    found = key_fingerprint(templates)
    if expected is not None and found != expected:
        raise ValueError(f"{path} is the key {found}, but this detector was trained with the key {expected}; give the key file that was saved with it")
    return templates
