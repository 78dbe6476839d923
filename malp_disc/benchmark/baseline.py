"""What the trainable methods of the benchmark have in common: a network with its authors' state-dict keys, a loss on pairs, an optimizer.

One recipe trains them all (`malp_disc.training.localizer`), on the pairs that MaLP is pretrained on, and your own as well: an `nn.Module` with `localize` and
`losses`, and ``make_optimizer`` where Adam doesn't fit.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.benchmark.localizer import Family, Localization
from malp_disc.serialization.nesting import Form
from malp_disc.serialization.state_dicts import load_state, load_tensors


class Baseline(nn.Module, abc.ABC):
    """A localizer or binary detector that is trained on pairs of an original and a manipulated image.

    Args:
        network: with its authors' state-dict keys.
        options: the constructor's arguments, JSON-ready, with which a saved one is built again.
    """

    name: str
    family: Family = "passive"
    learning_rate: float
    """The authors', where they give one."""
    entries: tuple[str, ...] = ()
    """Names under which the authors' checkpoints nest the network's state dict, in order of preference."""
    head: tuple[str, ...] = ()
    """Keys of `network` that an ImageNet classifier of the same architecture doesn't have: they stay at their random initialization."""
    numbers = 0
    """Random numbers per image that `augment` takes."""

    def __init__(self, network: nn.Module, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.network, self.options = network, dict(options or {})

    @abc.abstractmethod
    def localize(self, images: Tensor) -> Localization:
        """Map and score of images (B, 3, H, W) in [-1, 1] (`malp_disc.benchmark.localizer`)."""

    @abc.abstractmethod
    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The terms of the loss by name, scalars; their sum is minimized.

        Args:
            real, manipulated: (B, 3, H, W) in [-1, 1], a pair in each row.
            truth: M_GT of the pairs, (B, 1, H, W) in [0, 1].
        """

    def make_optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """The authors' optimizer for all parameters; Adam unless a class says otherwise."""
        return torch.optim.Adam(self.parameters(), lr=learning_rate)

    def augment(self, images: Tensor, numbers: Tensor) -> Tensor:
        """The authors' augmentation of the images of both classes, without gradients; `numbers` (B, `numbers`) are uniform in [0, 1)."""
        return images

    def prepare(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> None:
        """Set what isn't learned by gradients from the first pairs of a training, once before its first step. Arguments as for `losses`."""

    def load_checkpoint(self, path: str | Path) -> None:
        """Load the authors' checkpoint into `network`; it is read as plain tensors, and nothing is unpickled.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, one with other objects than tensors, or another network's checkpoint.
        """
        load_state(self.network, load_tensors(path, forms=[self._form()], entries=self.entries, role="discriminator"), source=str(path))

    def load_initial_weights(self, path: str | Path) -> None:
        """Load a classifier trained on ImageNet, as its library saves it, into the part of `network` that it has in common with it (all but `head`).

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that can't be read, or the weights of another network.
        """
        own = {key: value for key, value in self.network.state_dict().items() if not key.startswith(self.head or ("\0",))}
        found = {self.translate_initial(key): value for key, value in load_tensors(path, forms=[], entries=("state_dict", "model")).items()}
        missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
        differing = [key for key in own if key in found and found[key].shape != own[key].shape]
        if missing or differing:
            what = f"{len(missing)} of {len(own)} keys are missing, first {missing[:2]}" if missing else f"{differing[0]} has another shape"
            raise ValueError(f"{path} doesn't hold the weights that {self.name} starts from: {what}")
        self.network.load_state_dict({**self.network.state_dict(), **{key: found[key] for key in own if key in found}})

    def translate_initial(self, key: str) -> str:
        """A key of an ImageNet classifier as `network` names it."""
        return key

    def _form(self) -> Form:
        keys = [key for key in self.network.state_dict() if not key.endswith("num_batches_tracked")]
        return (keys[0], keys[-1])


def both(network: nn.Module, real: Tensor, manipulated: Tensor, *arguments: Any) -> Any:
    """The network's output for both kinds of images in one batch, the real ones first, so that batch norm can't tell them apart."""
    return network(torch.cat([real, manipulated]), *arguments)


def labels_like(real: Tensor) -> Tensor:
    """(2B,) in {0, 1}: 0 for the real images, which come first in `both`, 1 for the manipulated ones."""
    return torch.arange(2, device=real.device).repeat_interleave(len(real))


def true_maps(truth: Tensor) -> Tensor:
    """(2B, 1, H, W): nothing changed in the real images, which come first in `both`; then M_GT."""
    return torch.cat([torch.zeros_like(truth), truth])


def at_size(maps: Tensor, like: Tensor) -> Tensor:
    """Maps (B, 1, h, w), resampled bilinearly to the images `like` (B, 3, H, W), as MaLP's comparison does (paper, section 4.3)."""
    return F.interpolate(maps.float(), like.shape[2:], mode="bilinear", align_corners=False)


def resized(images: Tensor, side: int | None) -> Tensor:
    """Images (B, 3, H, W) resampled to `side`×`side`, bilinear and antialiased; as they are for None."""
    if side is None or tuple(images.shape[2:]) == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def imagenet_normalized(images: Tensor) -> Tensor:
    """Images in [-1, 1], normalized by ImageNet's mean and deviation, as torchvision's classifiers take them."""
    mean, deviation = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((images + 1) / 2 - mean) / deviation


def check_side(side: int | None, least: int, name: str) -> None:
    """Raise ValueError for a side of the network's images below what its layers can take."""
    if side is not None and side < least:
        raise ValueError(f"expected images of at least {least} pixels a side for {name}, got {side}")
