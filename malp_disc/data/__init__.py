"""Data sets: drawn faces (the built-in default), CelebA, and folders of your own images.

Every data set yields ``(image (3, N, N) float32 in [-1, 1], label (A,) float32 in {0, 1})`` and has `attribute_names`, `image_size`,
`description` and a length.
"""

from .augment import dequantize, random_crop, random_flip
from .celeba import CelebA
from .decoding import BrokenImageError
from .faces import ProceduralFaces
from .folder import AttributeFolder, DomainFolder, PlainFolder
from .images import ImageFiles, load_image
from .options import FACE_RANGES, DataOptions, build_dataset
from .references import WithReferences, default_reference_test_size, held_out_references

__all__ = [
    "FACE_RANGES",
    "AttributeFolder",
    "BrokenImageError",
    "CelebA",
    "DataOptions",
    "DomainFolder",
    "ImageFiles",
    "PlainFolder",
    "ProceduralFaces",
    "WithReferences",
    "build_dataset",
    "dequantize",
    "held_out_references",
    "load_image",
    "random_crop",
    "random_flip",
    "default_reference_test_size",
]
