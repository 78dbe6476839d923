"""Procedurally drawn colour faces with independent attributes: the embedded default.

An image is a function of its index alone, so the set needs no download, has no licence, and can be arbitrarily large.
Every face has its own pose (shift, scale, roll, yaw), proportions, skin, hair strands, light, background, clothes and white balance;
the attributes are sampled independently of all of these and, except for the one-hot hair colour, of each other: a classifier has no
spurious correlations to exploit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from .face_model import Face
from .face_renderer import render

ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling", "Eyeglasses", "Bangs", "Goatee", "Pale_Skin")
DEFAULT_SELECTION = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling", "Eyeglasses")

_UNIFORMS = 128  # random numbers per image; the attributes use the first ones


class ProceduralFaces(Dataset):
    """Drawn faces: ``(image (3, N, N) float32 in [-1, 1], label (A,) float32 in {0, 1})``.

    Args:
        length: number of images.
        image_size: N, pixels.
        selected_attributes: names out of `ATTRIBUTES`, in the order of the label.
        first_index: index of the first image; disjoint ranges are disjoint sets of faces.

    Raises:
        ValueError: for an unknown attribute, a size below 16 or not divisible by 4, or a negative range.
    """

    def __init__(
        self,
        length: int,
        *,
        image_size: int = 64,
        selected_attributes: Sequence[str] = DEFAULT_SELECTION,
        first_index: int = 0,
    ) -> None:
        unknown = [name for name in selected_attributes if name not in ATTRIBUTES]
        if unknown:
            raise ValueError(f"unknown attributes {unknown} for the drawn faces; choose from {list(ATTRIBUTES)}")
        if image_size < 16 or image_size % 4:
            raise ValueError(f"expected an image size of at least 16 and divisible by 4, got {image_size}")
        if length < 1 or first_index < 0:
            raise ValueError(f"expected length >= 1 and first_index >= 0, got {length} and {first_index}")
        self.length = length
        self.image_size = image_size
        self.attribute_names = tuple(selected_attributes)
        self.first_index = first_index
        self._columns = [ATTRIBUTES.index(name) for name in selected_attributes]

    def __len__(self) -> int:
        return self.length

    @property
    def description(self) -> str:
        """One line for reports: number of images, index range and size."""
        last = self.first_index + self.length - 1
        return f"drawn faces, {self.length} images (numbers {self.first_index}-{last}), {self.image_size}x{self.image_size}"

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A whole batch at once, used by `DataLoader`: rendering sixteen faces costs little more than rendering four."""
        wrong = [i for i in indices if not 0 <= i < self.length]
        if wrong:
            raise IndexError(f"index {wrong[0]} is outside 0..{self.length - 1}")
        images, labels = draw_faces([self.first_index + i for i in indices], self.image_size)
        return list(zip(images, labels[:, self._columns]))

    def perfect_edits(self, indices: Sequence[int], targets: torch.Tensor) -> torch.Tensor:
        """The same faces drawn again with other attributes, the ground truth of an edit: (B, 3, N, N) in [-1, 1].

        Args:
            indices: of the faces, as in ``self[index]``.
            targets: (B, A) in {0, 1}, the attributes in the order of `attribute_names`; all others stay.
        """
        numbers = [self.first_index + i for i in indices]
        labels = torch.from_numpy(_attributes(_uniforms(numbers)))
        labels[:, self._columns] = targets.to(labels)
        return draw_faces(numbers, self.image_size, labels=labels)[0]


def draw_faces(indices: Sequence[int], image_size: int = 64, *, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Render the faces of `indices`: images (B, 3, N, N) in [-1, 1], rounded to 8 bits, and labels (B, 8) in the order of `ATTRIBUTES`.

    Args:
        labels: other attributes (B, 8) for the same faces: what a perfect edit would give.
    """
    uniforms = _uniforms(indices)
    attributes = _attributes(uniforms) if labels is None else labels.numpy().astype(np.float32)
    by_name = {name: attributes[:, i].reshape(-1, 1, 1, 1) for i, name in enumerate(ATTRIBUTES)}
    rgb = render(Face(uniforms[:, len(ATTRIBUTES) :], by_name, image_size))
    levels = np.clip(np.rint(rgb * 255), 0, 255)
    return torch.from_numpy((levels / 127.5 - 1).astype(np.float32)), torch.from_numpy(attributes)


def _uniforms(indices: Sequence[int]) -> np.ndarray:
    """The random numbers (B, _UNIFORMS) that make up each face."""
    generators = [np.random.Generator(np.random.Philox(key=[0x4D614C50, int(i)])) for i in indices]
    return np.stack([g.random(_UNIFORMS, dtype=np.float32) for g in generators])


def _attributes(uniforms: np.ndarray) -> np.ndarray:
    """Labels (B, 8): exactly one hair colour; each other attribute independently with the probability below."""
    labels = np.zeros((len(uniforms), len(ATTRIBUTES)), np.float32)
    labels[np.arange(len(uniforms)), np.minimum((uniforms[:, 0] * 3).astype(int), 2)] = 1
    for column, probability in enumerate((0.5, 0.4, 0.4, 0.3, 0.35), start=3):
        labels[:, column] = uniforms[:, column] < probability
    return labels
