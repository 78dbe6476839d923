"""The images of a benchmark and their edits, in 8 bits: as they lie in files before and after a generator."""

from __future__ import annotations

import hashlib
import inspect
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from malp_disc.benchmark.failures import named_failures
from malp_disc.benchmark.suite import GeneratorEntry
from malp_disc.data import build_dataset
from malp_disc.import_object import code_of_function
from malp_disc.levels import as_images, quantize
from malp_disc.manipulate import Manipulate, run_manipulate
from malp_disc.metrics.editing import one_attribute_targets, single_attribute_targets
from malp_disc.serialization.state_dicts import fingerprint, load_tensors, save_tensors
from malp_disc.target_kind import TargetKind, exclusive_labels, target_for

BATCH = 16  # images at a time through generators and localizers; results don't depend on it, up to rounding


@dataclass(frozen=True)
class Case:
    """Images to be edited in one way.

    Attributes:
        attribute: the only attribute that is edited, or None for one attribute per image in turn (or no choice at all).
        levels: (N, 3, H, W) uint8.
        target: what `manipulate` is given, as `malp_disc.target_kind.target_for` makes it; None for nothing.
    """

    attribute: str | None
    levels: Tensor
    target: Tensor | None


def cases_of(entry: GeneratorEntry, kind: TargetKind, count: int, seed: int) -> list[Case]:
    """The cases of a generator: all its images, then those of every attribute of `entry.edits` alone, without images that have it already (a hair colour).

    The images are `count` of the held-out ones, drawn with `seed`, in the order of the data set.

    Args:
        kind: of the target that the generator is given.

    Raises:
        ValueError, FileNotFoundError: the images can't be read, or an attribute isn't among theirs.
    """
    dataset = build_dataset(entry.data, "test")
    names = tuple(dataset.attribute_names)
    if unknown := [name for name in entry.edits if name not in names]:
        raise ValueError(f"{entry.name}: no attribute {', '.join(unknown)} to edit; its images have {', '.join(names) or 'none'}")
    levels, labels = sampled(dataset, count, seed)
    if not names or kind == "none":
        return [Case(None, levels, None)]
    exclusive = names if kind == "domain" else exclusive_labels(dataset)
    cases = [Case(None, levels, target_for(kind, single_attribute_targets(labels, names, exclusive=exclusive)[0], labels))]
    for name in entry.edits:
        wanted = one_attribute_targets(labels, names, name, exclusive=exclusive)
        rows = (wanted != labels).any(dim=1)
        if not rows.any():
            raise ValueError(f"{entry.name}: none of {len(levels)} images can be edited to {name}: all have it")
        cases.append(Case(name, levels[rows], target_for(kind, wanted[rows], labels[rows])))
    return cases


def sampled(dataset: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` images (N, 3, H, W) uint8 and labels (N, A) of a data set, drawn with `seed`; all, if it has fewer."""
    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()
    levels, labels = zip(*((quantize(images), labels) for images, labels in DataLoader(Subset(dataset, rows), batch_size=BATCH)))
    return torch.cat(levels), torch.cat(labels)


def generator_identity(entry: GeneratorEntry, generator: Any) -> str:
    """A hash of a generator: its name, options and weights, and of a user's the code (`code_of`) and the function that made it.

    The zoo's code isn't part of it: edits of RePaint take hours, and must outlast a comment.
    """
    with named_failures(f"state_dict of {entry.generator}"):
        weights = fingerprint(generator.state_dict()) if isinstance(generator, nn.Module) else ""
    code = [code_of(generator, "manipulate"), code_of_function(entry.generator)] if ":" in entry.generator else []
    return digest(entry.generator, json.dumps(dict(entry.options), sort_keys=True, default=str), weights, *code)


def code_of(value: Any, *methods: str) -> str:
    """The text of the files that define an object's class and its `methods`; empty for what has no file of its own, as Python's classes or a notebook's cell.

    The whole file, because what a class does also depends on the functions, base classes and constants beside it. Other files that these import aren't part of it.
    """
    files = (_file_of(part) for part in (type(value), *(getattr(value, name, None) for name in methods)))
    return "\n".join(file.read_text(encoding="utf-8", errors="surrogateescape") for file in dict.fromkeys(files) if file is not None)


def _file_of(part: Any) -> Path | None:
    """The source file of a class or a function, also of one in a `functools.partial` or behind a decorator; that of the class for any other object."""
    while isinstance(part, partial):
        part = part.func
    part = inspect.unwrap(part) if inspect.isroutine(part) or inspect.isclass(part) else type(part)
    try:
        file = inspect.getsourcefile(part)
    except (OSError, TypeError):  # OSError: a class without a module's file, as in a notebook; TypeError: a built-in
        return None
    if file is None or not Path(file).is_file():
        return None
    pythons = Path(file).is_relative_to(sysconfig.get_path("stdlib")) and "site-packages" not in Path(file).parts
    return None if pythons else Path(file)


class EditCache:
    """Edits of images by content: the same generator on the same images with the same targets computes once, also in a later run.

    Args:
        folder: of the files, one per case.
        identity: the generator's, of `generator_identity`.
        manipulate: its method.
    """

    def __init__(self, folder: Path, identity: str, manipulate: Manipulate, device: torch.device | str) -> None:
        self.folder, self.identity, self.manipulate, self.device = folder, identity, manipulate, device

    def key(self, published: Tensor, target: Tensor | None) -> str:
        """The name of the edits of `published` (N, 3, H, W) uint8."""
        return digest(self.identity, content_hash(published), content_hash(target) if target is not None else "")

    def __call__(self, published: Tensor, target: Tensor | None) -> Tensor:
        """G(published), (N, 3, H, W) uint8, clamped to [-1, 1] before rounding.

        Raises:
            ValueError: `manipulate` failed, or its result is no image.
        """
        path = self.folder / f"{self.key(published, target)}.safetensors"
        if path.exists():
            kept = _kept(path)
            if kept is not None and kept.shape == published.shape and kept.dtype == torch.uint8:
                return kept
        edited = torch.cat(list(self._edit(published, target)))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"edited": edited})
        return edited

    @torch.no_grad()
    def _edit(self, published: Tensor, target: Tensor | None) -> Iterator[Tensor]:
        for start in range(0, len(published), BATCH):
            images = as_images(published[start : start + BATCH]).to(self.device)
            wanted = target[start : start + BATCH].to(self.device) if target is not None else None
            edited = run_manipulate(self._manipulate, images, wanted)
            if not edited.isfinite().all():
                raise ValueError(f"{int((~edited.isfinite()).flatten(1).any(1).sum())} of {len(edited)} edited images aren't finite")
            yield quantize(edited.clamp(-1, 1)).cpu()

    def _manipulate(self, images: Tensor, target: Tensor | None) -> Tensor:
        with named_failures("manipulate"):
            return self.manipulate(images, target)


def content_hash(values: Tensor) -> str:
    """A hash of a tensor's values, type and shape."""
    return digest(str(values.dtype), str(tuple(values.shape)), hashlib.sha256(values.contiguous().cpu().numpy().tobytes()).hexdigest())


def _kept(path: Path) -> Tensor | None:
    """The edits in a file of the cache; None if it is damaged, as after a full disk."""
    try:
        return load_tensors(path)["edited"]
    except (ValueError, KeyError):
        return None


def digest(*texts: str) -> str:
    """The first 24 hex digits of a sha256 of several texts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:24]
