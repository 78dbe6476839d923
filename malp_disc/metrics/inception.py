"""pytorch-fid's Inception up to a chosen layer, built without its constructor, which downloads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

from malp_disc.checkpoint import load_state, load_tensors

DIMS = (64, 192, 768, 2048)


def build_inception(dims: int) -> nn.Sequential:
    """The layers that give `dims` features, under the names of pytorch-fid's state dict; weights are whatever torch draws.

    dims: 64 first max-pooling, 192 second max-pooling, 768 before the auxiliary classifier, 2048 final average-pooling.

    Shapes: (B, 3, 299, 299) in [-1, 1] -> (B, dims, h, w), to be averaged over h and w.

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
    return nn.Sequential(layers).eval().requires_grad_(False)


def load_inception(dims: int, path: str | Path) -> nn.Sequential:
    """`build_inception` with weights from pytorch-fid's state dict, .pth or .safetensors; layers past what `dims` needs may be absent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file ends before the layer that `dims` needs, or is another network's.
    """
    net = build_inception(dims)
    tensors = load_tensors(path)
    missing = [name for name, layer in net.named_children() if layer.state_dict() and not _holds(tensors, name)]
    if missing and _holds(tensors, "Conv2d_1a_3x3"):
        raise ValueError(
            f"{path} ends before {missing[0]}, which features of {dims} dimensions need. Give pytorch-fid's complete file, "
            "pt_inception-2015-12-05-6726825d.pth, or take fewer dimensions (inception-768, -192, -64); FID proper needs all 2048"
        )
    own = net.state_dict()
    load_state(net, {key: value for key, value in tensors.items() if key in own}, source=str(path), optional=("num_batches_tracked",))
    return net


def _holds(tensors: Mapping[str, Tensor], layer: str) -> bool:
    return any(key.startswith(layer + ".") for key in tensors)
