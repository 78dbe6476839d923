"""BicycleGAN: toward multimodal image-to-image translation (Zhu, Zhang, Pathak, Darrell, Efros, Wang and Shechtman, NIPS 2017).

Official code: https://github.com/junyanz/BicycleGAN (BSD-2-Clause). Written from the paper and the published key list, with the authors'
state-dict keys: ``edges2shoes_net_G.pth``, ``edges2shoes_net_E.pth`` and the other published files load directly.

    g = bicyclegan("edges2shoes_net_G.pth")
    e = bicyclegan_encoder("edges2shoes_net_E.pth")
    shoe = g.manipulate(drawings)                            # a fixed style for all images
    shoe = g.manipulate(drawings, torch.randn(len(drawings), 8))
    shoe = g.manipulate(drawings, e(photographs)[0])         # the style of each photograph

Note:
    Only the published variant is implemented, in which every layer is conditioned on the style (``where_add="all"``). The checkpoints for
    edges have one input channel and get the image's luminance, so the image should be the edge drawing. Checkpoints of old torch versions contain
    running averages of the instance norms, which are ignored, as by the official loader.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from generators.norms import Dropout, load_normed, make_norm, norm_in_file
from generators.patchgan import patch_layers
from malp_disc.serialization.state_dicts import load_tensors

NONLINEARITIES = {"relu": nn.ReLU, "lrelu": lambda: nn.LeakyReLU(0.2), "elu": nn.ELU}


def _nonlinearity(name: str) -> nn.Module:
    if name not in NONLINEARITIES:
        raise ValueError(f"expected nl out of {list(NONLINEARITIES)}, got {name!r}")
    return NONLINEARITIES[name]()


class StyledUnetBlock(nn.Module):
    """One level of the U-Net with all levels below it; z is concatenated with the encoder's features. Returns the output concatenated with the input, or, at
    the outermost level, the image."""

    def __init__(self, down: list[nn.Module], submodule: nn.Module | None, up: list[nn.Module], *, outermost: bool = False) -> None:
        super().__init__()
        self.outermost = outermost
        self.down = nn.Sequential(*down)
        if submodule is not None:
            self.submodule = submodule
        self.up = nn.Sequential(*up)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        tiled = z.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        features = self.down(torch.cat([x, tiled], dim=1))
        if hasattr(self, "submodule"):
            features = self.submodule(features, z)
        if self.outermost:
            return in_float32(self.up, features)
        return torch.cat([self.up(features), x], dim=1)


class BicycleGANGenerator(nn.Module):
    """G(x, z): translates image x with style z; a U-Net (Figure 2 of the paper).

    Args:
        input_nc, output_nc, ngf: channels of the input, of the output and of the first layer.
        nz: dimension of a style code.
        num_downs: downsampling layers, at least 6; 8 for 256 px (unet_256).
        norm, nl, use_dropout, upsample: the authors' options: "instance" or "batch"; "relu", "lrelu" or "elu"; dropout of 0.5;
            "basic" (transposed convolutions) or "bilinear".
        statistics: those that batch norm uses, see `generators.norms`.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 2^num_downs, target (B, nz) -> (B, 3, H, W) in [-1, 1].
    """

    target_kind = "none"  # a style can't be made from labels: the commands take its default

    def __init__(
        self,
        *,
        input_nc: int = 3,
        output_nc: int = 3,
        nz: int = 8,
        num_downs: int = 8,
        ngf: int = 64,
        norm: str = "instance",
        nl: str = "relu",
        use_dropout: bool = False,
        upsample: str = "basic",
        statistics: str = "running",
    ) -> None:
        super().__init__()
        if num_downs < 6 or upsample not in ("basic", "bilinear"):
            raise ValueError(f"expected num_downs of 6 and more and upsample 'basic' or 'bilinear', got {num_downs} and {upsample!r}")
        self.config = {"input_nc": input_nc, "output_nc": output_nc, "nz": nz, "num_downs": num_downs, "ngf": ngf, "norm": norm, "nl": nl}
        self.config |= {"use_dropout": use_dropout, "upsample": upsample, "statistics": statistics}
        self.input_nc, self.nz, self.num_downs = input_nc, nz, num_downs

        def normed(channels: int) -> nn.Module:
            return make_norm(norm, channels, statistics=statistics)

        def down(inner: int, outer: int) -> list[nn.Module]:
            return [nn.LeakyReLU(0.2), nn.Conv2d(outer + nz, inner, 4, 2, 1)]

        def up(inner: int, outer: int) -> list[nn.Module]:
            if upsample == "basic":
                return [_nonlinearity(nl), nn.ConvTranspose2d(inner, outer, 4, 2, 1)]
            return [_nonlinearity(nl), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReflectionPad2d(1), nn.Conv2d(inner, outer, 3)]

        block = StyledUnetBlock(down(8 * ngf, 8 * ngf), None, [*up(8 * ngf, 8 * ngf), normed(8 * ngf)])
        middle = [(8 * ngf, 8 * ngf)] * (num_downs - 5) + [(8 * ngf, 4 * ngf), (4 * ngf, 2 * ngf), (2 * ngf, ngf)]
        for level, (inner, outer) in enumerate(middle):
            dropout = [Dropout()] if use_dropout and level < num_downs - 5 else []
            block = StyledUnetBlock([*down(inner, outer), normed(inner)], block, [*up(2 * inner, outer), normed(outer), *dropout])
        first = nn.Conv2d(input_nc + nz, ngf, 4, 2, 1)
        self.model = StyledUnetBlock([first], block, [*up(2 * ngf, output_nc), nn.Tanh()], outermost=True)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, input_nc, H, W), z (B, nz) -> (B, output_nc, H, W)."""
        check_channels(x, self.input_nc, "BicycleGAN")
        if z.shape != (len(x), self.nz):
            raise ValueError(f"expected a target of shape ({len(x)}, {self.nz}), one style per image, got {tuple(z.shape)}")
        return self.model(x, z)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: RGB images in [-1, 1] -> RGB images in [-1, 1].

        Args:
            target: style codes (B, nz), from N(0, I) or from the encoder. None: `default_style`.
        """
        check_input(images, f"BicycleGAN halves the image {self.num_downs} times", divisor=2**self.num_downs)
        target = self.default_style(len(images)) if target is None else target
        return to_rgb(self(from_rgb(images, self.input_nc), target.to(images.device)))

    def default_style(self, count: int = 1) -> Tensor:
        """One style code from a fixed seed, repeated: (count, nz)."""
        return torch.randn(self.nz, generator=torch.Generator().manual_seed(0)).expand(count, -1)


class StyleResidualBlock(nn.Module):
    """norm-lrelu-conv-norm-lrelu-conv-pool(x) + pool-conv(x), see the paper's appendix."""

    def __init__(self, channels: int, following: int, *, norm: str, nl: str, statistics: str) -> None:
        super().__init__()

        def activated() -> list[nn.Module]:
            return [make_norm(norm, channels, statistics=statistics), _nonlinearity(nl)]

        halved = nn.Sequential(nn.Conv2d(channels, following, 3, 1, 1), nn.AvgPool2d(2))
        self.conv = nn.Sequential(*activated(), nn.Conv2d(channels, channels, 3, 1, 1), *activated(), halved)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, following, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class BicycleGANEncoder(nn.Module):
    """E(x): mean and log-variance of the style code of image x.

    Args:
        input_nc, ndf: channels of the image and of the first layer.
        output_nc: dimension of a style code, the generator's nz.
        n_blocks: downsampling blocks: 5 for 256 px (resnet_256), 4 for 128 px.
        norm, nl, statistics: as for the generator.
        vae: False: returns the mean only.

    Shape:
        (B, input_nc, H, W) in [-1, 1] with sides of 8 · 2^n_blocks to 16 · 2^n_blocks - 1 (256 to 511)
        -> mean (B, output_nc), log-variance (B, output_nc).
    """

    def __init__(
        self,
        *,
        input_nc: int = 3,
        output_nc: int = 8,
        ndf: int = 64,
        n_blocks: int = 5,
        norm: str = "instance",
        nl: str = "lrelu",
        vae: bool = True,
        statistics: str = "running",
    ) -> None:
        super().__init__()
        self.config = {"input_nc": input_nc, "output_nc": output_nc, "ndf": ndf, "n_blocks": n_blocks, "norm": norm, "nl": nl, "vae": vae}
        self.config |= {"statistics": statistics}
        self.input_nc, self.n_blocks = input_nc, n_blocks
        widths = [ndf * min(4, n) for n in range(1, n_blocks + 1)]
        blocks = [StyleResidualBlock(a, b, norm=norm, nl=nl, statistics=statistics) for a, b in zip(widths, widths[1:])]
        self.fc = nn.Sequential(nn.Linear(widths[-1], output_nc))
        if vae:
            self.fcVar = nn.Sequential(nn.Linear(widths[-1], output_nc))
        self.conv = nn.Sequential(nn.Conv2d(input_nc, ndf, 4, 2, 1), *blocks, _nonlinearity(nl), nn.AvgPool2d(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        check_channels(x, self.input_nc, "BicycleGAN's encoder")
        least = 8 * 2**self.n_blocks
        if not all(least <= side < 2 * least for side in x.shape[2:]):
            raise ValueError(f"this encoder wants sides of {least} to {2 * least - 1}, got {x.shape[2]}x{x.shape[3]}; resize")
        features = self.conv(x).flatten(1)
        return (self.fc(features), self.fcVar(features)) if hasattr(self, "fcVar") else self.fc(features)


class BicycleGANDiscriminator(nn.Module):
    """D(x): PatchGANs at several scales, each at half the resolution of the previous one. No weights were published.

    Args:
        input_nc, ndf, n_layers, norm, statistics: as in `generators.patchgan`; every convolution has a bias, and scale i has ndf / 2^i
            channels.
        num_scales: number of scales (2 in the paper).

    Shape:
        (B, input_nc, H, W) -> one map (B, 1, h, w) per scale, without a sigmoid.
    """

    def __init__(
        self,
        *,
        input_nc: int = 3,
        ndf: int = 64,
        n_layers: int = 3,
        norm: str = "instance",
        num_scales: int = 2,
        statistics: str = "running",
    ) -> None:
        super().__init__()
        self.input_nc = input_nc
        self.names = ["model"] if num_scales == 1 else [f"model_{i}" for i in range(num_scales)]
        for i, name in enumerate(self.names):
            self.add_module(name, patch_layers(input_nc, round(ndf / 2**i), n_layers, norm, bias=True, statistics=statistics))
        self.down = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        check_channels(x, self.input_nc, "BicycleGAN's discriminator")
        maps = []
        for name in self.names:
            maps.append(getattr(self, name)(x))
            x = self.down(x)
        return maps


def bicyclegan(checkpoint: str | Path | None = None, **config: Any) -> BicycleGANGenerator:
    """A BicycleGAN generator; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return BicycleGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("model.down.0.weight", "model.submodule.down.1.weight"),), entries=("state_dict", "G"))
    found: dict[str, Any] = {}
    first, second = tensors.get("model.down.0.weight"), tensors.get("model.submodule.down.1.weight")
    if first is not None and second is not None and first.ndim == second.ndim == 4:
        nz = second.shape[1] - first.shape[0]
        found = {
            "ngf": first.shape[0],
            "nz": nz,
            "input_nc": first.shape[1] - nz,
            "upsample": "bilinear" if "model.up.3.weight" in tensors else "basic",
        }
        found["num_downs"] = sum(re.fullmatch(r"model\.(submodule\.)*down\.[01]\.weight", key) is not None for key in tensors)
        found |= norm_in_file(tensors, "model.submodule.down.2.weight", config)
        if (last := tensors.get("model.up.3.bias", tensors.get("model.up.1.bias"))) is not None:
            found["output_nc"] = len(last)
    network = BicycleGANGenerator(**agree(found, config, checkpoint))
    load_normed(network, tensors, checkpoint)
    return network


def bicyclegan_encoder(checkpoint: str | Path | None = None, **config: Any) -> BicycleGANEncoder:
    """Build BicycleGAN's encoder; with a checkpoint, the widths are inferred from the tensors. Raises as `bicyclegan` does."""
    if checkpoint is None:
        return BicycleGANEncoder(**config)
    tensors = load_tensors(checkpoint, forms=(("conv.0.weight", "fc.0.weight"),), entries=("state_dict", "E"))
    found: dict[str, Any] = {}
    first, head = tensors.get("conv.0.weight"), tensors.get("fc.0.weight")
    if first is not None and head is not None and first.ndim == 4:
        found = {"ndf": first.shape[0], "input_nc": first.shape[1], "output_nc": head.shape[0], "vae": "fcVar.0.weight" in tensors}
        found["n_blocks"] = 1 + sum(re.fullmatch(r"conv\.\d+\.shortcut\.1\.weight", key) is not None for key in tensors)
        found |= norm_in_file(tensors, "conv.1.conv.0.weight", config)
    network = BicycleGANEncoder(**agree(found, config, checkpoint))
    load_normed(network, tensors, checkpoint)
    return network
