"""PatchGAN: the discriminator of pix2pix (Isola, Zhu, Zhou and Efros, CVPR 2017), and so of CycleGAN; BicycleGAN has two of them.

Official code: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD-2-Clause). Written from the paper (appendix 6.1.2) and the
published key list, with the authors' state-dict keys: your own ``latest_net_D_A.pth`` and ``latest_net_D.pth`` load directly. No weights of a
discriminator were published.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generators.images import check_channels
from generators.loading import agree
from generators.norms import load_normed, make_norm, norm_in_file
from malp_disc.serialization.state_dicts import load_tensors


def patch_layers(input_nc: int, ndf: int, n_layers: int, norm: str, *, bias: bool, statistics: str = "running") -> nn.Sequential:
    """`n_layers` convolutions of stride 2 and two of stride 1; the first and the last have a bias and no norm."""
    layers: list[nn.Module] = [nn.Conv2d(input_nc, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
    channels = ndf
    for n in range(1, n_layers + 1):
        following = ndf * min(2**n, 8)
        stride = 2 if n < n_layers else 1
        layers += [
            nn.Conv2d(channels, following, 4, stride, 1, bias=bias),
            make_norm(norm, following, statistics=statistics),
            nn.LeakyReLU(0.2),
        ]
        channels = following
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))


class PatchDiscriminator(nn.Module):
    """D(x): one logit per patch, real or fake. With 3 layers a patch is 70×70 pixels.

    Args:
        input_nc: channels, 3 for an image, 6 for input and output concatenated (pix2pix).
        ndf, n_layers: channels of the first layer, number of stride-2 convolutions.
        norm: "batch" (pix2pix), "instance" (CycleGAN).
        use_sigmoid: probabilities instead of logits, as in pix2pix until 2018.
        statistics: those that batch norm uses, see `generators.norms`.

    Shape:
        (B, input_nc, H, W) -> (B, 1, h, w); 256 px gives 30×30.
    """

    def __init__(
        self,
        *,
        input_nc: int = 3,
        ndf: int = 64,
        n_layers: int = 3,
        norm: str = "batch",
        use_sigmoid: bool = False,
        statistics: str = "running",
    ) -> None:
        super().__init__()
        self.config = {
            "input_nc": input_nc,
            "ndf": ndf,
            "n_layers": n_layers,
            "norm": norm,
            "use_sigmoid": use_sigmoid,
            "statistics": statistics,
        }
        self.input_nc = input_nc
        self.model = patch_layers(input_nc, ndf, n_layers, norm, bias=norm != "batch", statistics=statistics)
        if use_sigmoid:
            self.model.append(nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.input_nc, "PatchGAN")
        return self.model(x)


def patch_discriminator(checkpoint: str | Path | None = None, **config: Any) -> PatchDiscriminator:
    """A PatchGAN; with a checkpoint, the widths and the norm are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return PatchDiscriminator(**config)
    tensors = load_tensors(checkpoint, forms=(("model.0.weight", "model.2.weight"),), entries=("state_dict", "D"), role="discriminator")
    found: dict[str, Any] = {}
    first = tensors.get("model.0.weight")
    if first is not None and first.ndim == 4:
        layers = sum(value.ndim == 4 and re.fullmatch(r"model\.\d+\.weight", key) is not None for key, value in tensors.items())
        found = {"ndf": first.shape[0], "input_nc": first.shape[1], "n_layers": layers - 2}
        found |= norm_in_file(tensors, "model.3.weight", config)
    network = PatchDiscriminator(**agree(found, config, checkpoint))
    load_normed(network, tensors, checkpoint)
    return network
