"""The Inception of FID up to a chosen layer, and the two ways images reach it: pytorch-fid's resize and clean-fid's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

from malp_disc.metrics.download import CLEAN_FID_INCEPTION, PYTORCH_FID_INCEPTION, check_content, fetch
from malp_disc.metrics.extractor import INCEPTION_DIMS as DIMS
from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.serialization.files import file_sha256
from malp_disc.serialization.state_dicts import load_state, load_tensors

# The last layer with weights that each number of features needs.
_LAST = {64: "Conv2d_2b_3x3", 192: "Conv2d_4a_3x3", 768: "Mixed_6e", 2048: "Mixed_7c"}


class FIDInception(nn.Sequential):
    """Inception up to some layer, (B, 3, 299, 299) in [-1, 1] -> a map (B, dims, h, w), to be averaged over h and w."""


def build_inception(dims: int) -> FIDInception:
    """The layers that give `dims` features, under the names of pytorch-fid's state dict; weights are whatever torch draws.

    pytorch-fid's own constructor downloads.

    dims: 64 first max-pooling, 192 second max-pooling, 768 before the auxiliary classifier, 2048 final average-pooling.

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
    """`build_inception` with weights from pytorch-fid's state dict, .pth or .safetensors; layers past what `dims` needs may be absent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file ends before the layer that `dims` needs, or is another network's.
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


def _holds(tensors: Mapping[str, Tensor], layer: str) -> bool:
    return any(key.startswith(layer + ".") for key in tensors)


class InceptionExtractor(FeatureExtractor):
    """pytorch-fid's Inception on its resize: the same features as pytorch-fid gets from these images saved as PNG.

    clean-fid's mode "legacy_pytorch" computes this too.
    """

    def __init__(self, dims: int, weights: str | Path | None = None) -> None:
        super().__init__()
        path = fetch(PYTORCH_FID_INCEPTION) if weights is None else Path(weights)
        self.net = load_inception(dims, path)
        self.dims = dims
        self.label = "FID" if dims == 2048 else f"FID-{dims}"
        self.name = f"pytorch-fid InceptionV3 ({dims} features), weights sha256 {file_sha256(path)[:8]}"
        self.resize = "bilinear to 299 without antialiasing (pytorch-fid's)"

    def _resized(self, levels: Tensor) -> Tensor:
        return F.interpolate(levels.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)

    def _embedded(self, resized: Tensor) -> Tensor:
        return self.net(2 * resized - 1).mean(dim=(2, 3))


class CleanExtractor(FeatureExtractor):
    """clean-fid's resize before Inception.

    The network is pytorch-fid's state dict, which both packages say is the one of 2015-12-05 that the first FID was made with; so
    64, 192 and 768 features can be had, which clean-fid itself doesn't offer. Or it is clean-fid's own file: that one is
    TorchScript, which is code, so only the published bytes are run.

    Args:
        dims: number of features; None for 2048 from clean-fid's own file, unless `weights` is a state dict.
        weights: a state dict of pytorch-fid, or ``inception-2015-12-05.pt``, known by its name.
    """

    def __init__(self, dims: int | None, weights: str | Path | None = None) -> None:
        super().__init__()
        from cleanfid.resize import build_resizer  # late: brings in requests

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

    def _resized(self, levels: Tensor) -> Tensor:
        pictures = levels.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3) uint8, one at a time through Pillow
        resized = np.stack([self._resize_one(picture) for picture in pictures])
        return torch.from_numpy(resized).permute(0, 3, 1, 2).to(levels.device)  # (B, 3, 299, 299) in [0, 255]

    def _embedded(self, resized: Tensor) -> Tensor:
        if self._torchscript:
            return self.net(resized)
        return self.net((resized - 128) / 128).mean(dim=(2, 3))  # clean-fid's scale; pytorch-fid has (v - 127.5) / 127.5


def _load_torchscript(path: Path, dims: int) -> nn.Module:
    from cleanfid.inception_torchscript import InceptionV3W

    if dims != 2048:
        raise ValueError(f"{path.name} gives 2048 features only, not {dims}; for {dims} give pytorch-fid's {PYTORCH_FID_INCEPTION.name}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; get {CLEAN_FID_INCEPTION.url}")
    check_content(path, CLEAN_FID_INCEPTION)
    return InceptionV3W(str(path.parent), download=False, resize_inside=False).eval().requires_grad_(False)
