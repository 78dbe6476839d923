"""Real-ESRGAN: training real-world blind super-resolution with pure synthetic data (Wang et al., ICCV workshops 2021).

Official code: https://github.com/xinntao/Real-ESRGAN (BSD-3-Clause), whose RRDBNet comes from https://github.com/XPixelGroup/BasicSR
(Apache-2.0). Written from the papers and the published key lists; the state-dict keys are the authors'. Two networks bear the name:

    rrdb   RealESRGAN_x4plus, RealESRNet_x4plus, RealESRGAN_x2plus (scale 2), RealESRGAN_x4plus_anime_6B (6 blocks)
    srvgg  realesr-general-x4v3 and -wdn-x4v3 (32 convolutions), realesr-animevideov3 (16)

Note:
    The files hold ``params_ema`` and perhaps ``params``; the former is taken, as the authors' script does.
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
    """G(shrink(x)): throws away the detail of image x above 1/scale of its resolution and invents it anew.

    The forward pass is the authors' network, in [0, 1]; `manipulate` and `upscale` have the library's range.

    Args:
        scale: 4, 2 or 1 (which only redraws).
        num_feat, num_grow_ch, num_block: channels of the trunk, growth, blocks (64, 32 and 23 in the published files; anime 6 blocks).

    Shape:
        `manipulate`: images (B, 3, H, W) in [-1, 1] with sides divisible by `scale`, at least 4 times it -> (B, 3, H, W) in [-1, 1].

    Note:
        There is nothing to choose, so a `target` is taken and ignored: one loop serves every generator.
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
    """The same manipulation by a plain chain of convolutions (SRVGGNetCompact) that adds detail to the pixels repeated `scale` times.

    Args:
        scale: by how much it enlarges.
        num_feat, num_conv: channels, and convolutions between the first and the last.
        act_type: "prelu" in all the published files; else "relu" or "leakyrelu".

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
    """A Real-ESRGAN generator; with a checkpoint network and widths are read from it, and any that are given must agree.

    Args:
        checkpoint: the file.
        weak, denoise_strength: a second file, of the network that denoises weakly (``realesr-general-wdn-x4v3.pth``). The weights are then
            denoise_strength · checkpoint + (1 - denoise_strength) · weak.
        config: `architecture`, "rrdb" (the default) or "srvgg", and the constructor arguments of that network.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
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
    """Which network a state dict belongs to, and its constructor arguments, as far as the shapes tell."""
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
