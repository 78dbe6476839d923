"""The key: the template set, "a signature of the defender" (paper, section 3.1), kept in a file apart from the detector's weights.

Whoever has the templates can forge an encrypted image and remove a template from one. So the key file is readable by its owner only, isn't
uploaded with a detector, and is named in public by its fingerprint, which gives nothing of it away.

Note:
    A detector knows its key: `E_E` was trained to paint the template, so detector and one encrypted image together give it away, and so does
    averaging many encrypted images (`malp_disc.metrics.template_leakage`; measured in docs/results/localizer.md). Keeping the file apart guards
    against handing it out by mistake. It doesn't make a published detector safe.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from malp_disc.serialization.state_dicts import fingerprint, load_tensors, save_tensors

KEY_FILE = "templates.safetensors"
_ENTRY = "templates"


def key_fingerprint(templates: Tensor) -> str:
    """16 hex digits of sha256 over the template set (n, h, w): the same key has the same, and nothing can be read from it."""
    return fingerprint({_ENTRY: templates.detach().float()})


def save_key(path: str | Path, templates: Tensor) -> str:
    """Write a template set (n, h, w) for its owner alone (file mode 600); returns its fingerprint."""
    templates = templates.detach().float()
    known = key_fingerprint(templates)
    save_tensors(path, {_ENTRY: templates}, {"fingerprint": known})
    os.chmod(path, 0o600)
    return known


def load_key(path: str | Path, *, shape: Sequence[int], expected: str | None = None) -> Tensor:
    """Read a template set (n, h, w).

    Args:
        path: a file of `save_key`.
        shape: what the detector needs.
        expected: the fingerprint that the detector was saved with; None takes any key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no key, templates of another shape, or another detector's key.
    """
    tensors = load_tensors(path)
    if set(tensors) != {_ENTRY}:
        raise ValueError(f"{path} is no key file: expected one entry {_ENTRY!r}, found {sorted(tensors)[:5]}")
    templates = tensors[_ENTRY].float()
    if tuple(templates.shape) != tuple(shape):
        raise ValueError(f"{path} holds templates of shape {tuple(templates.shape)}, the detector needs {tuple(shape)}")
    found = key_fingerprint(templates)
    if expected is not None and found != expected:
        raise ValueError(f"{path} is the key {found}, but this detector was trained with the key {expected}; give the key file that was saved with it")
    return templates
