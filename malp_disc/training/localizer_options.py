"""The flags of training a localizer or detector of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from malp_disc.benchmark.methods import create_method
from malp_disc.data import DataOptions
from malp_disc.training.train_options import TrainOptions

DEFAULT_LEARNING_RATE = 1e-4
"""Of a user's localizer that names none."""


@dataclass(kw_only=True)
class LocalizerOptions(TrainOptions, DataOptions):
    """Flags of a training, except those that name the generator."""

    output_dir: Path = Path("runs/localizer")
    """Folder of the run, created if absent. The trained method is saved in its sub-folder localizer."""
    max_train_steps: int = 1000
    """Number of optimizer steps."""
    method: str = "resnet50_map"
    """Method to train: resnet50_map, ffd_reg, ffd_tmp, patch_forensics_xception_block2 and the other networks of patch-forensics, fakelocator, nataraj, autogan, cnndetection, proactive_imd.
    Or MODULE:FUNCTION, a function without arguments that returns your own, an nn.Module with localize and losses."""
    method_side: int | None = None
    """Side in pixels to which images are resized for the network.
    By default, the authors': 299 for FFD and the Xceptions of patch-forensics, 224 for its other networks, and the images' own for the rest."""
    initial_weights: Path | None = None
    """Weights of an ImageNet classifier to start from, as torchvision (or, for Xception, timm) saves them.
    By default, random weights. The authors of all methods but patch-forensics, Nataraj and proactive_imd start from ImageNet."""
    learning_rate: float | None = None
    """Learning rate, above 0. It is constant for the first half of the steps and then falls linearly to 0.
    By default, the authors' of the method."""
    edit_attribute: str | None = None
    """Train only on edits of this attribute, to test how the method generalises to others (Table 3 of the paper).
    By default, all attributes are used."""
    degradation: float = 0.0
    """Share of the steps, in [0, 1], in which the method sees degraded images (JPEG, blur, noise, or lower resolution), as with --malp-degradation.
    With --degradation-chain, the share of the images."""
    degradation_chain: bool = False
    """Degrade images by a chain: resized and back, then blur or noise, then JPEG or WebP; before the edit or after it, each image by its own."""
    local_edits: float = 0.0
    """Share of the images, in [0, 1], that are edited locally instead of by the generator, in 5 to 40 % of the image, 15 % of them in less.
    Copy-move, a splice, inpainting, the generator's edit of a region, or another brightness, contrast and colours."""

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for invalid flags, before any work."""
        if self.edit_attribute is not None and self.edit_attribute not in dataset.attribute_names:
            raise ValueError(f"expected --edit-attribute out of {' '.join(dataset.attribute_names)}, got {self.edit_attribute}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"expected --learning-rate above 0, got {self.learning_rate}; leave it out for the authors'")
        if not 0 <= self.degradation <= 1:
            raise ValueError(f"expected --degradation in [0, 1], got {self.degradation}")
        if not 0 <= self.local_edits <= 1:
            raise ValueError(f"expected --local-edits in [0, 1], got {self.local_edits}")


def build_method(config: LocalizerOptions) -> nn.Module:
    """The method that the flags describe, with random or initial weights, in training mode.

    Raises:
        ValueError, FileNotFoundError: a flag is wrong, or the initial weights are those of another network.
    """
    method = create_method(config.method, side=config.method_side)
    if config.initial_weights is not None:
        if not hasattr(method, "load_initial_weights"):
            raise ValueError(f"{config.method} is your own and loads its weights itself; leave --initial-weights out")
        method.load_initial_weights(config.initial_weights)
    return method.train()


def learning_rate_of(method: nn.Module, config: LocalizerOptions) -> float:
    """The flag's, else the method's, else `DEFAULT_LEARNING_RATE`."""
    return config.learning_rate or float(getattr(method, "learning_rate", DEFAULT_LEARNING_RATE))
