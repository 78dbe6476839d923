"""SEAN: image synthesis with semantic region-adaptive normalization (Zhu, Abdal, Qin, Wonka, CVPR 2020).

Official code: https://github.com/ZPdesu/SEAN (CC BY-NC-SA 4.0: neither the code nor the published weights may be used commercially). Written
from the paper and the published key list, with the authors' state-dict keys: ``CelebA-HQ_pretrained/latest_net_G.pth`` loads directly.

Note:
    Every normalization layer adds new noise in every call, also in evaluation. `manipulate` uses fixed noise, so that results are
    reproducible; `forward` draws new noise, as the authors do, unless it is given.
    Every normalization layer also contains an unused second batch norm, because the authors' checkpoints do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.images import check_input
from generators.label_maps import check_label_map, one_hot
from generators.loading import agree
from generators.spade import read_trunk
from generators.spade_layers import SPADE, block_convolutions, restore_spectral_norms, rgb_output, upsample
from generators.style_layers import fixed_noise
from malp_disc.serialization.state_dicts import load_state, load_tensors

LABELS = tuple(
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l neck cloth".split()
)
"""The labels of CelebAMask-HQ, in the order of their indices."""

FACTOR = 32

Draw = Callable[[int, int], Tensor]
"""(height, width) -> noise (1 or B, 1, height, width)."""


class StyleEncoder(nn.Module):
    """One style code per label: the mean of the features over the label's pixels, 0 for labels that don't occur.

    Shape: images (B, 3, H, W), one-hot map (B, labels, H, W) -> (B, labels, D).
    """

    def __init__(self, style_length: int, *, ngf: int = 32, n_downsampling: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(3, ngf, 3), nn.InstanceNorm2d(ngf), nn.LeakyReLU(0.2)]
        for _ in range(n_downsampling):
            layers += [nn.Conv2d(ngf, 2 * ngf, 3, 2, 1), nn.InstanceNorm2d(2 * ngf), nn.LeakyReLU(0.2)]
            ngf *= 2
        layers += [nn.ConvTranspose2d(ngf, 2 * ngf, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(2 * ngf), nn.LeakyReLU(0.2)]
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(2 * ngf, style_length, 3), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor, semantics: Tensor) -> Tensor:
        features = self.model(images)
        regions = F.interpolate(semantics, features.shape[2:])
        return torch.einsum("bjhw,bdhw->bjd", regions, features) / regions.sum(dim=(2, 3)).clamp_min(1)[..., None]


class ACE(nn.Module):
    """SEAN normalization: batch norm with per-pixel scale and shift, blended from those of SPADE (label map) and those of each region's style code.

    Args:
        style: False for the last block, which uses the label map only.
    """

    def __init__(self, channels: int, labels: int, style_length: int, *, style: bool) -> None:
        super().__init__()
        self.style = style
        self.blending_gamma, self.blending_beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.noise_var = nn.Parameter(torch.zeros(channels))
        self.Spade = SPADE(channels, labels)  # its batch norm isn't used
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        if style:
            for j in range(labels):
                self.add_module(f"fc_mu{j}", nn.Linear(style_length, style_length))
            self.conv_gamma = nn.Conv2d(style_length, channels, 3, padding=1)
            self.conv_beta = nn.Conv2d(style_length, channels, 3, padding=1)

    def forward(self, x: Tensor, semantics: Tensor, codes: Tensor, draw: Draw) -> Tensor:
        x = self.param_free_norm(x + draw(*x.shape[2:]) * self.noise_var[:, None, None])
        regions = F.interpolate(semantics, x.shape[2:])
        gamma, beta = self.Spade.modulation(regions)
        if self.style:
            styles = torch.stack([self.get_submodule(f"fc_mu{j}")(codes[:, j]) for j in range(codes.shape[1])], dim=1).relu()
            painted = torch.einsum("bjd,bjhw->bdhw", styles, regions)  # the style of every pixel's label
            gamma = torch.lerp(gamma, self.conv_gamma(painted).to(gamma.dtype), self.blending_gamma.sigmoid().to(gamma.dtype))
            beta = torch.lerp(beta, self.conv_beta(painted).to(beta.dtype), self.blending_beta.sigmoid().to(beta.dtype))
        return x * (1 + gamma) + beta


class SEANBlock(nn.Module):
    """SEAN ResBlk: SEAN normalization before each convolution, and a learned shortcut where the number of channels changes.

    The shortcut draws its noise first, as in the authors' code."""

    def __init__(self, inputs: int, outputs: int, labels: int, style_length: int, *, style: bool = True) -> None:
        super().__init__()
        self.conv_0, self.conv_1, self.conv_s = block_convolutions(inputs, outputs)
        self.ace_0 = ACE(inputs, labels, style_length, style=style)
        self.ace_1 = ACE(min(inputs, outputs), labels, style_length, style=style)
        self.ace_s = None if self.conv_s is None else ACE(inputs, labels, style_length, style=style)

    def forward(self, x: Tensor, *conditions: Tensor | Draw) -> Tensor:
        shortcut = x if self.conv_s is None else self.conv_s(self.ace_s(x, *conditions))
        x = self.conv_0(F.leaky_relu(self.ace_0(x, *conditions), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.ace_1(x, *conditions), 0.2))


class SEANGenerator(nn.Module):
    """Synthesizes an image from a label map and one style code per label, which the encoder extracts from an image.

    Args:
        label_nc: number of labels (19, `LABELS`).
        ngf: channels of the last layer; the first has 16 times as many.
        style_length: D, dimension of a style code.
        zencoder_ngf, n_downsampling: first layer's channels, and downsampling layers, of `StyleEncoder`.
        crop_size: side of the image that `forward` generates by default.
    """

    def __init__(
        self,
        *,
        label_nc: int = 19,
        ngf: int = 64,
        style_length: int = 512,
        zencoder_ngf: int = 32,
        n_downsampling: int = 2,
        crop_size: int = 256,
    ) -> None:
        super().__init__()
        self.label_nc, self.crop_size = label_nc, crop_size
        self.config = {
            "label_nc": label_nc,
            "ngf": ngf,
            "style_length": style_length,
            "zencoder_ngf": zencoder_ngf,
            "n_downsampling": n_downsampling,
            "crop_size": crop_size,
        }
        self.Zencoder = StyleEncoder(style_length, ngf=zencoder_ngf, n_downsampling=n_downsampling)
        self.fc = nn.Conv2d(label_nc, 16 * ngf, 3, padding=1)
        widths = {
            "head_0": (16, 16),
            "G_middle_0": (16, 16),
            "G_middle_1": (16, 16),
            "up_0": (16, 8),
            "up_1": (8, 4),
            "up_2": (4, 2),
            "up_3": (2, 1),
        }
        for name, (inputs, outputs) in widths.items():
            self.add_module(name, SEANBlock(inputs * ngf, outputs * ngf, label_nc, style_length, style=name != "up_3"))
        self.conv_img = nn.Conv2d(ngf, 3, 3, padding=1)

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Style codes: images (B, 3, H, W), labels (B, H, W) -> (B, label_nc, D); 0 for labels that don't occur."""
        return self.Zencoder(images, one_hot(labels, self.label_nc).to(images.dtype))

    def forward(self, semantics: Tensor, codes: Tensor, draw: Draw | None = None, *, size: tuple[int, int] | None = None) -> Tensor:
        """One-hot label map (B, label_nc, H, W), style codes (B, label_nc, D) -> images (B, 3, h, w) in [-1, 1].

        Args:
            draw: called once per normalization layer for its noise. None: new noise for every image.
            size: (height, width) of the result, divisible by 32. None: that of ``crop_size``, whatever the size of the map.
        """

        def new_noise(height: int, width: int) -> Tensor:
            return torch.randn(len(semantics), 1, height, width, device=semantics.device)

        draw = draw or new_noise
        height, width = size or (self.crop_size, self.crop_size)
        x = self.head_0(self.fc(F.interpolate(semantics, (height // FACTOR, width // FACTOR))), semantics, codes, draw)
        x = self.G_middle_0(upsample(x), semantics, codes, draw)
        x = self.G_middle_1(x, semantics, codes, draw)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(upsample(x), semantics, codes, draw)
        return rgb_output(self.conv_img, x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1], same size.

        Args:
            images: (B, 3, H, W), sides divisible by 32, from which the styles are extracted.
            target: the label of every pixel, integers (B, H, W) or (B, 1, H, W) in 0 … label_nc - 1: the images' own label map, which reconstructs
                them. (B, 2, H, W): the desired label map, and the images' own, from which the styles are extracted (an edit of shapes). Labels
                that occur in the desired map only get the style 0. None is refused.

        Raises:
            ValueError: other shapes or labels, or no target.
        """
        check_input(images, "SEAN", divisor=FACTOR)
        check_label_map(images, target, "SEAN needs to know where in the image what is", 2)
        wanted, own = (target, target) if target.ndim == 3 else (target[:, 0], target[:, -1])
        places = itertools.count()
        return self(
            one_hot(wanted, self.label_nc).to(images.dtype),
            self.encode(images, own),
            lambda height, width: fixed_noise(next(places), height, width, images),
            size=tuple(images.shape[2:]),
        )


def sean(checkpoint: str | Path | None = None, **config: int) -> SEANGenerator:
    """A SEAN generator with its style encoder; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return SEANGenerator(**config)
    tensors = restore_spectral_norms(load_tensors(checkpoint, forms=(("fc.weight", "conv_img.weight", "head_0.ace_0.fc_mu0.weight"),), entries=("state_dict", "G")))
    found = read_trunk(tensors, checkpoint, "head_0.ace_0.fc_mu0.weight", SEANGenerator)
    found = {"label_nc": found["channels"], "ngf": found["ngf"], "style_length": tensors["head_0.ace_0.fc_mu0.weight"].shape[0]}
    encoder = sum(re.fullmatch(r"Zencoder\.model\.\d+\.weight", key) is not None for key in tensors)
    if "Zencoder.model.1.weight" in tensors:
        found |= {"zencoder_ngf": tensors["Zencoder.model.1.weight"].shape[0], "n_downsampling": encoder - 3}
    network = SEANGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network
