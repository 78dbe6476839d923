"""The Inception of FID up to a given layer, with pytorch-fid's or clean-fid's resize."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

from malp_disc.metrics.download import CLEAN_FID_INCEPTION, PYTORCH_FID_INCEPTION, check_content, fetch
from malp_disc.metrics.extractor import INCEPTION_DIMS as DIMS
from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.serialization.files import file_sha256
from malp_disc.serialization.state_dicts import load_state, load_tensors, values_fingerprint

# The last layer with weights, by number of features.
_LAST = {64: "Conv2d_2b_3x3", 192: "Conv2d_4a_3x3", 768: "Mixed_6e", 2048: "Mixed_7c"}


class FIDInception(nn.Sequential):
    """Inception up to a layer, (B, 3, 299, 299) in [-1, 1] -> feature map (B, dims, h, w), to be averaged over h and w."""


def build_inception(dims: int) -> FIDInception:
    """Inception up to the layer with `dims` features, with pytorch-fid's layer names and random weights.

    pytorch-fid's constructor isn't used because it downloads weights.

    Args:
        dims: 64 (first max-pooling), 192 (second max-pooling), 768 (before the auxiliary classifier) or 2048 (final average-pooling).

    Raises:
        ValueError: other dims.
    """
    if dims not in DIMS:
        raise ValueError(f"Inception gives features of {DIMS} dimensions, got {dims}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["Conv2d_1a_3x3"] = BasicConv2d(3, 32, kernel_size=3, stride=2)
    layers["Conv2d_2a_3x3"] = BasicConv2d(32, 32, kernel_size=3)
    layers["Conv2d_2b_3x3"] = BasicConv2d(32, 64, kernel_size=3, padding=1)
    layers["maxpool1"] = nn.MaxPool2d(3, stride=2)  # 64
    if dims >= 192:
        layers["Conv2d_3b_1x1"] = BasicConv2d(64, 80, kernel_size=1)
        layers["Conv2d_4a_3x3"] = BasicConv2d(80, 192, kernel_size=3)
        layers["maxpool2"] = nn.MaxPool2d(3, stride=2)  # 192
    if dims >= 768:
        layers["Mixed_5b"] = FIDInceptionA(192, pool_features=32)
        layers["Mixed_5c"] = FIDInceptionA(256, pool_features=64)
        layers["Mixed_5d"] = FIDInceptionA(288, pool_features=64)
        layers["Mixed_6a"] = InceptionB(288)
        layers["Mixed_6b"] = FIDInceptionC(768, channels_7x7=128)
        layers["Mixed_6c"] = FIDInceptionC(768, channels_7x7=160)
        layers["Mixed_6d"] = FIDInceptionC(768, channels_7x7=160)
        layers["Mixed_6e"] = FIDInceptionC(768, channels_7x7=192)  # 768
    if dims >= 2048:
        layers["Mixed_7a"] = InceptionD(768)
        layers["Mixed_7b"] = FIDInceptionE_1(1280)
        layers["Mixed_7c"] = FIDInceptionE_2(2048)  # 2048
    return FIDInception(layers).eval().requires_grad_(False)


def load_inception(dims: int, path: str | Path) -> FIDInception:
    """`build_inception` with weights from pytorch-fid's state dict, .pth or .safetensors; later layers may be missing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file lacks layers that `dims` needs, or is of another network.
    """
    net = build_inception(dims)
    tensors = load_tensors(path, forms=(("Conv2d_1a_3x3.conv.weight",),))
    missing = [name for name, layer in net.named_children() if layer.state_dict() and not _holds(tensors, name)]
    if missing and _holds(tensors, "Conv2d_1a_3x3"):
        enough = [str(fewer) for fewer, last in _LAST.items() if fewer < dims and _holds(tensors, last)]
        instead = f", or take {' or '.join(enough)} features, for which this file is enough" if enough else ""
        raise ValueError(
            f"{path} ends before {missing[0]}, which features of {dims} dimensions need. Give pytorch-fid's complete file, "
            f"{PYTORCH_FID_INCEPTION.name}{instead}; FID proper needs all 2048"
        )
    own = net.state_dict()
    load_state(net, {key: value for key, value in tensors.items() if key in own}, source=str(path), optional=("num_batches_tracked",))
    return net


def for_inference(net: FIDInception) -> FIDInception:
    """The same function in two thirds of the time on a CPU: batch norms folded into their convolutions, weights in channels_last. Changes `net`."""
    for layer in [layer for layer in net.modules() if isinstance(layer, BasicConv2d)]:
        layer.conv, layer.bn = fuse_conv_bn_eval(layer.conv, layer.bn), nn.Identity()
    return net.to(memory_format=torch.channels_last)


def _holds(tensors: Mapping[str, Tensor], layer: str) -> bool:
    return any(key.startswith(layer + ".") for key in tensors)


class InceptionExtractor(FeatureExtractor):
    """Inception with pytorch-fid's resize: the features that pytorch-fid, and clean-fid's mode "legacy_pytorch", compute from PNG files."""

    def __init__(self, dims: int, weights: str | Path | None = None) -> None:
        super().__init__()
        path = fetch(PYTORCH_FID_INCEPTION) if weights is None else Path(weights)
        self.net = load_inception(dims, path)
        self.dims = dims
        self.label = "FID" if dims == 2048 else f"FID-{dims}"
        self.name = f"pytorch-fid InceptionV3 ({dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = "bilinear to 299 without antialiasing (pytorch-fid's)"
        self.backbone, self.fingerprint = "inception_v3", values_fingerprint(self.net.state_dict().values())
        self.net = for_inference(self.net)

    def _resized(self, levels: Tensor) -> Tensor:
        return F.interpolate(levels.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)

    def _embedded(self, resized: Tensor) -> Tensor:
        return self.net((2 * resized - 1).contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


class CleanExtractor(FeatureExtractor):
    """Inception with clean-fid's resize.

    The weights are pytorch-fid's state dict, according to both packages the network of 2015-12-05 of the original FID; it allows 64, 192
    and 768 features too, which clean-fid doesn't have. Or they are clean-fid's own file: since it is TorchScript, that is code, its
    sha256 is verified.

    Args:
        dims: number of features; None for 2048 from clean-fid's own file, unless `weights` is a state dict.
        weights: a state dict of pytorch-fid, or clean-fid's file, recognized by its name ``inception-2015-12-05.pt``.
    """

    def __init__(self, dims: int | None, weights: str | Path | None = None) -> None:
        super().__init__()
        from cleanfid.resize import build_resizer  # imported late: it imports requests

        path = Path(weights) if weights is not None else fetch(CLEAN_FID_INCEPTION if dims is None else PYTORCH_FID_INCEPTION)
        self.dims = dims or 2048
        if path.name == CLEAN_FID_INCEPTION.name:
            self.net, source = _load_torchscript(path, self.dims), "clean-fid"
        else:
            self.net, source = load_inception(self.dims, path), "pytorch-fid"
        self._torchscript = source == "clean-fid"
        self._resize_one = build_resizer("clean")
        self.label = "clean-FID" if self.dims == 2048 else f"clean-FID-{self.dims}"
        self.name = f"{source} InceptionV3 ({self.dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = "antialiased bicubic to 299, in float (clean-fid's)"
        self.backbone, self.fingerprint = "inception_v3", values_fingerprint(self.net.state_dict().values())
        if not self._torchscript:
            self.net = for_inference(self.net)

    def _resized(self, levels: Tensor) -> Tensor:
        images = levels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3) uint8
        resized = np.stack([self._resize_one(image) for image in images])  # Pillow resizes one image at a time
        return torch.from_numpy(resized).permute(0, 3, 1, 2).to(levels.device)  # (B, 3, 299, 299) in [0, 255]

    def _embedded(self, resized: Tensor) -> Tensor:
        if self._torchscript:
            return self.net(resized)
        scaled = (resized - 128) / 128  # clean-fid's scale; pytorch-fid has (v - 127.5) / 127.5
        return self.net(scaled.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


def _load_torchscript(path: Path, dims: int) -> nn.Module:
    from cleanfid.inception_torchscript import InceptionV3W

    if dims != 2048:
        raise ValueError(f"{path.name} gives 2048 features only, not {dims}; for {dims} give pytorch-fid's {PYTORCH_FID_INCEPTION.name}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; get {CLEAN_FID_INCEPTION.url}")
    check_content(path, CLEAN_FID_INCEPTION)
    return InceptionV3W(str(path.parent), download=False, resize_inside=False).eval().requires_grad_(False)
