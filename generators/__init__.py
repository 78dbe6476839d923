"""Pretrained generators behind one interface: ``manipulate(images, target)``, images in [-1, 1] in and out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

# each is a module of this package with a function of the same name, imported when the generator is created
_GENERATORS = (
    "alae",
    "attgan",
    "augan",
    "bicyclegan",
    "cartoongan",
    "colorizing_gan",
    "context_encoder",
    "council_gan",
    "cyclegan",
    "cyclegan_compressed",
    "dr_gan",
    "drit",
    "dualgan",
    "esrgan",
    "fast_srgan",
    "ganimation",
    "gdwct",
    "ilvr",
    "munit",
    "pix2pix",
    "real_esrgan",
    "repaint",
    "sean",
    "spade",
    "stargan",
    "starganv2",
    "stgan",
    "stylegan",
    "unit",
)


def list_generators() -> list[str]:
    """Names that `create_generator` accepts."""
    return sorted(_GENERATORS)


def create_generator(name: str, checkpoint: str | Path | None = None, **config: Any) -> nn.Module:
    """Create a generator by name, with the weights of a published checkpoint or random ones.

    Args:
        name: one of `list_generators()`.
        checkpoint: a file in the authors' layout (torch, loaded with ``weights_only=True``) or safetensors with the same keys;
            CartoonGAN's may be a ``.npz``, those of STGAN, DualGAN and Colorizing-with-GANs are TensorFlow's.
        config: constructor arguments. With a checkpoint they are inferred from its tensors where possible, and those given explicitly must
            agree with it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name, or a checkpoint of another network.
    """
    if name not in _GENERATORS:
        raise ValueError(f"unknown generator {name!r}; choose from {list_generators()}")
    module = importlib.import_module(f"generators.{name}")
    return getattr(module, name)(checkpoint, **config)
