"""SqueezeNet features for Fréchet distances: a small pretrained extractor whose weights are part of the package, independent of Inception.

SqueezeNet 1.0: Iandola et al., arXiv:1602.07360; the layers are torchvision's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from malp_disc.metrics.attribute_net import shipped_weights
from malp_disc.metrics.extractor import FeatureExtractor
from malp_disc.serialization.state_dicts import fingerprint, load_state, load_tensors, values_fingerprint

_SIZE = 227
_SMALLEST = 32  # so that the last feature map has more than one location
SqueezeNetInput = Literal["auto", "caffe", "torchvision"]
_CAFFE_MEAN = (104.0, 117.0, 123.0)  # blue, green, red, of 0 … 255
_CAFFE_BIAS = (0.4963, -0.1765, -0.4331, 0.2819, 0.9466, 0.1158, -0.2076, -0.3234)  # first biases of conv1 in the authors' compressed Caffe weights
_SAME = 2e-3  # tolerance above the rounding error of half precision


class SqueezeNetExtractor(FeatureExtractor):
    """Global average of the last feature map before the classifier, 512 features. Distances aren't called FID.

    Images are resized to a square of `side` pixels. 227 is that of the network's training; 128 is four times as fast, and enough for images of 64 pixels.

    Args:
        weights: path of a state dict of torchvision's ``squeezenet1_0``, possibly nested, in any precision, with or without the classifier.
            None for the included ones: the layers before the classifier of the authors' compressed Caffe weights (ImageNet), in half precision.
        side: side of the network's input, in pixels. Distances of different sides can't be compared.
        input: normalization of the input. "torchvision": RGB, mean 0 and deviation 1 on ImageNet. "caffe": BGR, 0 … 255 minus the mean.
            "auto": "caffe" for the authors' compressed Caffe weights, recognized by their values, "torchvision" for all others.

    Raises:
        ValueError: weights of another network, or an unknown input.
        FileNotFoundError: no such file.
    """

    def __init__(self, weights: str | Path | None = None, *, side: int = _SIZE, input: SqueezeNetInput = "auto") -> None:
        super().__init__()
        if side < _SMALLEST:
            raise ValueError(f"expected a side of at least {_SMALLEST} pixels, got {side}")
        if input not in get_args(SqueezeNetInput):
            raise ValueError(f"expected an input out of {', '.join(get_args(SqueezeNetInput))}, got {input!r}")
        from torchvision.models import squeezenet1_0  # late: takes as long as torch to import

        path = shipped_weights("squeezenet1_0_features") if weights is None else Path(weights)
        net = squeezenet1_0(weights=None)
        tensors = load_tensors(path, forms=(("features.0.weight", "features.12.squeeze.weight"),))
        load_state(net, tensors, source=str(path), optional=("classifier.1.weight", "classifier.1.bias"))
        self.net = net.features.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # twice as fast on a CPU
        bias = self.net[0].bias.detach()[: len(_CAFFE_BIAS)]
        known = torch.allclose(bias, torch.tensor(_CAFFE_BIAS), rtol=0, atol=_SAME)
        self._caffe = input == "caffe" or (input == "auto" and known)
        layers = self.net.state_dict()  # the classifier doesn't change the features
        digest = fingerprint(layers)  # of the values, so that it doesn't depend on the file format
        self.backbone, self.fingerprint = "squeezenet1_0", values_fingerprint(layers.values())
        self.register_buffer("mean", torch.tensor(_CAFFE_MEAN if self._caffe else (0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)
        self.side = side
        self.dims = 512
        self.label = "FD-SqueezeNet" if side == _SIZE else f"FD-SqueezeNet-{side}"
        self.name = f"SqueezeNet 1.0 (512 features, {'Caffe' if self._caffe else 'torchvision'} input), weights {digest[:8]}"
        self.resize = f"antialiased bilinear to {side}, in float"

    def prepared(self, levels: Tensor) -> Tensor:
        """The network's input: (B, 3, H, W) in [0, 255] -> (B, 3, side, side), resized and normalized; differentiable."""
        return self.normalized(F.interpolate(levels.float(), size=(self.side, self.side), mode="bilinear", align_corners=False, antialias=True))

    def normalized(self, levels: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 255], of any size, with the mean and deviation that the weights were trained for; differentiable."""
        if self._caffe:
            return levels.flip(1) - self.mean
        return (levels / 255 - self.mean) / self.deviation

    def _features(self, levels: Tensor) -> Tensor:
        return self.net(self.prepared(levels)).mean(dim=(2, 3))
