"""MaLP's localizer as an ONNX file: a wrapper with pre- and post-processing, the export, and the check against PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from malp_disc.levels import as_images
from malp_disc.malp import MaLP
from malp_disc.serialization.files import atomic_path

TOLERANCES = {"noise": 1e-4, "flat images": 1e-3}
"""Largest differences from PyTorch. Where an image is flat or smooth, group norm divides by variances near zero, and float32 leaves fewer digits, in PyTorch too."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_SHAPES = ((1, 64, 64), (3, 48, 80), (2, 131, 97))  # of the noise, (B, H, W); none is the one that the graph is traced with
_FLAT_SIDE = 256  # of the flat images at most: the difference grows with the size, for a MaLP with random weights from 1e-4 there to 6e-4 at 512
_TRACED = (2, 72, 56)


class Localizer(nn.Module):
    """E_C and C from 8-bit images to a map and P(manipulated).

    Shape:
        image (B, H, W, 3) uint8, as ``numpy.asarray(PIL.Image)`` stacked -> map (B, H, W) in [0, 1], score (B,) in [0, 1].

    Note:
        The score is that of the classifier alone. `MaLPOutput.score` averages it with the similarity to the template, which needs the key, and the key
        must not be part of a file that is distributed.
    """

    def __init__(self, malp: MaLP) -> None:
        super().__init__()
        self.cnn, self.classifier = malp.cnn, malp.classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        images = as_images(image.permute(0, 3, 1, 2))
        maps, _ = self.cnn(images)
        return maps[:, 0].clamp(0, 1), torch.sigmoid(self.classifier(maps))


def check_packages() -> None:
    """Raise ValueError if a package of the extra "onnx" isn't installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"export needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}: pip install 'malp-disc[onnx]', or -e '.[onnx]' in the repository")


def export_onnx(malp: MaLP, path: Path) -> dict[str, float]:
    """Export, and keep the file if its values agree with PyTorch's. Returns the largest difference by kind of image, as in `TOLERANCES`.

    Raises:
        ValueError: missing packages, or values that differ by more than `TOLERANCES`; no file is written then.
    """
    check_packages()
    localizer = Localizer(malp).cpu().eval()
    sample = torch.zeros(_TRACED[0], *_TRACED[1:], 3, dtype=torch.uint8)
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("height", min=16), 2: torch.export.Dim("width", min=16)}
    with atomic_path(path) as temporary:
        with _quiet():
            torch.onnx.export(
                localizer,
                (sample,),
                str(temporary),
                input_names=["image"],
                output_names=["map", "score"],
                dynamic_shapes={"image": axes},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        found = {kind: largest_difference(localizer, temporary, images) for kind, images in checked_images(malp.config.image_size).items()}
        for kind, worst in found.items():
            if not worst <= TOLERANCES[kind]:
                raise ValueError(f"the exported model differs from PyTorch by {worst:.2g} on {kind}, more than {TOLERANCES[kind]:g}; nothing was written")
    return found


def checked_images(side: int) -> dict[str, list[np.ndarray]]:
    """Batches (B, H, W, 3) uint8 by kind: noise of several sizes, and a black image and a horizontal ramp of the training size, `side`, up to 256."""
    side = min(side, _FLAT_SIDE)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, side).astype(np.uint8)[None, None, :, None]
    return {
        "noise": [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in _SHAPES],
        "flat images": [np.zeros((1, side, side, 3), np.uint8), np.tile(ramp, (1, side, 1, 3))],
    }


@torch.no_grad()
def largest_difference(localizer: Localizer, path: Path, batches: Sequence[np.ndarray]) -> float:
    """The largest difference of map and score between PyTorch and onnxruntime on batches of images (B, H, W, 3) uint8."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in batches:
        for ours, theirs in zip(localizer(torch.from_numpy(images)), session.run(["map", "score"], {"image": images})):
            if tuple(ours.shape) != theirs.shape:
                raise ValueError(f"the exported model gives {theirs.shape} for images of {images.shape[:3]}, expected {tuple(ours.shape)}")
            worst = max(worst, float(np.abs(ours.numpy() - theirs).max()))
    return worst


@contextlib.contextmanager
def _quiet():
    """Suppress the exporter's progress output and warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
