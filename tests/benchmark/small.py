"""Every method of the benchmark at a size that a test can afford, and pairs to try it on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from malp_disc.benchmark.methods import METHODS, create_method
from malp_disc.fakeness import fakeness_map
from tests.tiny import sample_images, with_rectangles

SIDE = 64
SMALL = {"ffd_reg": 75, "ffd_tmp": 75, "resnet50_map": 32, "fakelocator": 32, "cnndetection": 32}
SLOW = {"fakelocator", "autogan", "nataraj", "proactive_imd", "patch_forensics_xception", "patch_forensics_resnet18"}
SLOW |= {f"patch_forensics_{network}" for network in ("longxception", "xception_block3", "xception_block4", "xception_block5", "resnet50_layer1")}
"""Methods with large networks or large inputs, and further depths of patch-forensics: some seconds each."""


def small_method(name: str, seed: int = 0) -> nn.Module:
    """The method with random weights, the same every time, on images of a small side where it has one."""
    side = SMALL.get(name, 75 if name.startswith("patch_forensics") else None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_method(name, side=side)


def small_pairs(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Originals, manipulated images and M_GT, of 64×64 pixels."""
    real = sample_images(count, SIDE, SIDE)
    manipulated = with_rectangles(real)
    return real, manipulated, fakeness_map(real, manipulated)


def losses_of(method: nn.Module, pairs: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """The terms, with the template numbers that a proactive method needs."""
    real, manipulated, truth = pairs
    if getattr(method, "set_size", 0):
        index = torch.zeros(len(real), dtype=torch.long)
        return method.losses(method.encrypt(real, index), manipulated, truth, index=index)
    return method.losses(real, manipulated, truth)


NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in METHODS]
