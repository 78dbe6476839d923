"""Real-ESRGAN: training real-world blind super-resolution with pure synthetic data (Wang et al., ICCV workshops 2021).

Official code: https://github.com/xinntao/Real-ESRGAN (BSD-3-Clause), whose RRDBNet comes from https://github.com/XPixelGroup/BasicSR
(Apache-2.0). Written from the papers and the published key lists, with the authors' state-dict keys. The checkpoints are attached to the
releases of the repository. There are two architectures:

    rrdb   RealESRGAN_x4plus, RealESRNet_x4plus, RealESRGAN_x2plus (scale 2), RealESRGAN_x4plus_anime_6B (6 blocks)
    srvgg  realesr-general-x4v3 and -wdn-x4v3 (32 convolutions), realesr-animevideov3 (16)

Note:
    Checkpoints contain ``params_ema``, sometimes also ``params``; the former is loaded, as in the authors' script.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import in_float32
from generators.loading import agree, numbered_kernels
from generators.rrdbnet import FORMS, NEW, RRDBNet, renamed, widths
from generators.super_resolution import SuperResolution
from malp_disc.serialization.state_dicts import load_state, load_tensors

_FORMS = (*FORMS, ("body.0.weight", "body.2.weight"))  # the last is the compact network's


class RealESRGANGenerator(SuperResolution, RRDBNet):
    """G(shrink(x)): downsamples image x by `scale` and super-resolves it.

    The forward pass is the authors' network, in [0, 1]; `manipulate` and `upscale` use [-1, 1].

    Args:
        scale: 4, 2 or 1 (restoration without super-resolution).
        num_feat, num_grow_ch, num_block: channels of the trunk, growth channels, number of blocks (published: 64, 32, 23; anime: 6 blocks).

    Shape:
        `manipulate`: images (B, 3, H, W) in [-1, 1] with sides divisible by `scale`, at least 4 times it -> (B, 3, H, W) in [-1, 1].

    Note:
        `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(self, *, scale: int = 4, num_feat: int = 64, num_block: int = 23, num_grow_ch: int = 32) -> None:
        super().__init__(scale=scale, features=num_feat, growth=num_grow_ch, blocks=num_block, naming=NEW)
        self.config = {"architecture": "rrdb", "scale": scale, "num_feat": num_feat, "num_block": num_block, "num_grow_ch": num_grow_ch}


ACTIVATIONS = {
    "prelu": lambda channels: nn.PReLU(channels),
    "relu": lambda channels: nn.ReLU(),
    "leakyrelu": lambda channels: nn.LeakyReLU(0.1),
}


class RealESRGANCompact(SuperResolution, nn.Module):
    """The same with a plain sequence of convolutions (SRVGGNetCompact), whose output is added to the nearest-neighbour upsampled image.

    Args:
        scale: upsampling factor.
        num_feat, num_conv: channels, and number of convolutions between the first and the last.
        act_type: "prelu" (all published checkpoints), "relu" or "leakyrelu".

    Shape, Note: as `RealESRGANGenerator`.
    """

    def __init__(self, *, scale: int = 4, num_feat: int = 64, num_conv: int = 32, act_type: str = "prelu") -> None:
        super().__init__()
        if act_type not in ACTIVATIONS:
            raise ValueError(f"act_type is one of {list(ACTIVATIONS)}, got {act_type!r}")
        self.scale = scale
        self.config = {"architecture": "srvgg", "scale": scale, "num_feat": num_feat, "num_conv": num_conv, "act_type": act_type}
        self.body = nn.ModuleList()
        for channels in [3] + num_conv * [num_feat]:
            self.body += [nn.Conv2d(channels, num_feat, 3, padding=1), ACTIVATIONS[act_type](num_feat)]
        self.body.append(nn.Conv2d(num_feat, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for layer in self.body[:-1]:
            features = layer(features)
        detail = F.pixel_shuffle(in_float32(self.body[-1], features), self.scale)
        return detail + F.interpolate(x, scale_factor=self.scale, mode="nearest")


NETWORKS = {"rrdb": RealESRGANGenerator, "srvgg": RealESRGANCompact}


def real_esrgan(
    checkpoint: str | Path | None = None, *, weak: str | Path | None = None, denoise_strength: float = 0.5, **config: Any
) -> RealESRGANGenerator | RealESRGANCompact:
    """A Real-ESRGAN generator; with a checkpoint, network and widths are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        checkpoint: one of those above.
        weak, denoise_strength: a second checkpoint, of the network that denoises weakly (``realesr-general-wdn-x4v3.pth``); the weights are
            interpolated, denoise_strength · checkpoint + (1 - denoise_strength) · weak.
        config: `architecture`, "rrdb" (the default) or "srvgg", and the constructor arguments of that network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if config.get("architecture", "rrdb") not in NETWORKS:
        raise ValueError(f"architecture is one of {list(NETWORKS)}, got {config['architecture']!r}")
    if checkpoint is None:
        if weak is not None:
            raise ValueError("a weak network is mixed with another: give a checkpoint too")
        architecture = config.pop("architecture", "rrdb")
        return NETWORKS[architecture](**config)
    tensors = renamed(load_tensors(checkpoint, forms=_FORMS, entries=("params_ema", "params", "state_dict")), NEW)
    arguments = agree(_widths(tensors), config, checkpoint)
    network = NETWORKS[arguments.pop("architecture", "rrdb")](**arguments)
    load_state(network, tensors, source=str(checkpoint))
    if weak is not None:
        if not 0 <= denoise_strength <= 1:
            raise ValueError(f"denoise_strength is a share from 0 to 1, got {denoise_strength}")
        strong = {key: value.clone() for key, value in network.state_dict().items()}
        load_state(network, renamed(load_tensors(weak, forms=_FORMS, entries=("params_ema", "params", "state_dict")), NEW), source=str(weak))
        network.load_state_dict(
            {key: denoise_strength * strong[key] + (1 - denoise_strength) * value for key, value in network.state_dict().items()}
        )
    return network


def _widths(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Architecture and constructor arguments inferred from the tensors."""
    first = tensors.get("body.0.weight")
    if first is None or first.ndim != 4:
        names = {"scale": "scale", "features": "num_feat", "blocks": "num_block", "growth": "num_grow_ch"}
        found = {names[key]: value for key, value in widths(tensors, NEW).items() if value}
        return {"architecture": "rrdb", **found} if "num_feat" in found else found
    convolutions = numbered_kernels(tensors, r"body\.(\d+)\.weight")
    found = {
        "architecture": "srvgg",
        "num_feat": first.shape[0],
        "num_conv": len(convolutions) - 2,
        "scale": math.isqrt(convolutions[-1].shape[0] // 3),
    }
    if "body.1.weight" in tensors and tensors["body.1.weight"].ndim == 1:
        found["act_type"] = "prelu"
    return found
