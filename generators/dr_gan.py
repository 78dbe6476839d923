"""DR-GAN: disentangled representation learning GAN for pose-invariant face recognition (Tran, Yin, Liu; CVPR 2017, TPAMI 2018).

Code: https://github.com/kayamin/DR-GAN, a PyTorch port (no licence file; its README calls the results unchecked); the authors' own code,
https://github.com/tranluan/DR-GAN, is in TensorFlow. Written from the paper and the port's key list, with the port's state-dict keys.

Note:
    The port's files (``epoch780_G.pt``) are pickled modules, which need the port's code to be opened, and opening them executes code. They are
    refused. In a checkout of the port, ``torch.save(G.state_dict(), "dr_gan.pth")`` writes a checkpoint that loads.

    The paper fuses the images of a person by a weighted mean, the port by a weighted sum, which is used here because the port's weights were
    trained with it. The port's fusion is correct for one person at a time; this one for any number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.attributes import check_condition, check_target
from generators.images import check_channels, check_input, from_rgb, in_float32, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors

SIZE, SMALLEST = 96, 6
# Channels per resolution, in units of conv_dim, from 96 px down to 6, and back up. None: the image's.
ENCODER = ((None, 1, 2), (2, 2, 2, 4), (4, 4, 3, 6), (6, 6, 4, 8), (8, 8, 5, 10))
DECODER = ((10, 5, 8), (8, 8, 4, 6), (6, 6, 3, 4), (4, 4, 2, 2), (2, 2, 1, None))


class Crop(nn.Module):
    """Remove the last row and column, which a 3×3 transposed convolution of stride 2 has in addition."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :-1, :-1]


class DRGANGenerator(nn.Module):
    """G(x, c, z): the identity of image x in pose c; z is noise that stands for all other variation.

    Args:
        n_poses: number of poses, the port's ``Np``.
        n_noise: dimension of z, the port's ``Nz``.
        channel_num: image channels, 3 or 1.
        multi: whether the encoder also predicts a confidence per image, for `fuse`.
        conv_dim: channels of the first layer (32 in the port); an identity feature has ten times as many.

    Shape:
        images (B, channel_num, 96, 96) in [-1, 1], pose (B, n_poses) one-hot, noise (B, n_noise) in [-1, 1]
        -> (B, channel_num, 96, 96) in [-1, 1].
    """

    def __init__(self, *, n_poses: int = 2, n_noise: int = 50, channel_num: int = 3, multi: bool = False, conv_dim: int = 32) -> None:
        super().__init__()
        self.n_poses, self.n_noise, self.channel_num, self.multi = n_poses, n_noise, channel_num, multi
        self.features = 10 * conv_dim
        self.config = {"n_poses": n_poses, "n_noise": n_noise, "channel_num": channel_num, "multi": multi, "conv_dim": conv_dim}

        def channels(units: tuple[int | None, ...]) -> list[int]:
            return [channel_num if unit is None else unit * conv_dim for unit in units]

        layers: list[nn.Module] = []
        for scale, widths in enumerate(map(channels, ENCODER)):
            if multi and scale == len(ENCODER) - 1:
                widths[-1] += 1
            if scale:
                layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            for i, pair in enumerate(zip(widths, widths[1:])):
                halve = scale > 0 and i == 0
                layers += _activated(nn.Conv2d(*pair, 3, 2 if halve else 1, 0 if halve else 1, bias=False))
        self.G_enc_convLayers = nn.Sequential(*layers, nn.AvgPool2d(SMALLEST))

        self.G_dec_fc = nn.Linear(self.features + n_poses + n_noise, self.features * SMALLEST**2)

        layers = []
        for scale, widths in enumerate(map(channels, DECODER)):
            for i, pair in enumerate(zip(widths, widths[1:])):
                double = scale > 0 and i == 0
                layers += _activated(nn.ConvTranspose2d(*pair, 3, 2 if double else 1, 0 if double else 1, bias=False))
                layers += [Crop()] if double else []
        self.G_dec_convLayers = nn.Sequential(*layers[:-2], nn.Tanh())  # the last layer has neither norm nor ELU
        # The same for every image; not part of the state dict, whose keys are the port's.
        draws = torch.rand(n_noise, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.register_buffer("usual_noise", draws, persistent=False)

    def forward(self, images: Tensor, pose: Tensor, noise: Tensor) -> Tensor:
        """Every image by itself, see the class."""
        return self.decode(self.encode(images)[0], pose, noise)

    def fuse(self, images: Tensor, pose: Tensor, noise: Tensor) -> Tensor:
        """One output per person from several images; needs ``multi=True``.

        Shape: images (B, n, channel_num, 96, 96), n images of each of B persons; pose, noise as in `forward` -> (B, channel_num, 96, 96).

        Raises:
            ValueError: other shapes, or a network for single images.
        """
        return self.decode(self.fuse_features(images), pose, noise)

    def fuse_features(self, images: Tensor) -> Tensor:
        """Sum of the images' features weighted with their confidences: (B, n, channel_num, 96, 96) -> (B, 10 conv_dim)."""
        if not self.multi:
            raise ValueError("this network was made for single images and has no confidences to fuse with; expected one with multi=True")
        if images.ndim != 5:
            raise ValueError(f"expected images (B, n, {self.channel_num}, {SIZE}, {SIZE}), got {tuple(images.shape)}")
        features, confidence = self.encode(images.flatten(0, 1))
        return (features * confidence).unflatten(0, images.shape[:2]).sum(dim=1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, channel_num, 96, 96) -> features (B, 10 conv_dim), confidence (B, 1) in [0, 1], or None of a network for single images."""
        check_channels(images, self.channel_num, "DR-GAN")
        if images.shape[2:] != (SIZE, SIZE):
            raise ValueError(
                f"DR-GAN works at {SIZE}x{SIZE}, got {images.shape[2]}x{images.shape[3]}; `manipulate` resizes, there and back"
            )
        features = self.G_enc_convLayers(images).flatten(1)
        return features[:, : self.features], features[:, self.features :].sigmoid() if self.multi else None

    def decode(self, features: Tensor, pose: Tensor, noise: Tensor) -> Tensor:
        """Features (B, 10 conv_dim), pose, noise -> (B, channel_num, 96, 96)."""
        check_condition(pose, (len(features), self.n_poses), "pose")
        check_condition(noise, (len(features), self.n_noise), "number of noise")
        x = self.G_dec_fc(torch.cat([features, pose.to(features.dtype), noise.to(features.dtype)], dim=1))
        x = self.G_dec_convLayers[:-2](x.unflatten(1, (self.features, SMALLEST, SMALLEST)))
        return in_float32(self.G_dec_convLayers[-2:], x)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> the same person in another pose.

        Images of other sizes are resized to 96×96 (antialiased bilinear) and the result back (bicubic). A network with one channel gets the
        luminance, and its result is grey.

        Args:
            target: the desired pose, one-hot (B, n_poses), whose columns depend on the data set; or pose and z in [-1, 1] concatenated,
                (B, n_poses + n_noise). Without z, a fixed z is used for all images. None: the first pose.

        Raises:
            ValueError: another shape, or a number outside these ranges.
        """
        check_input(images, "DR-GAN", least=16)
        pose, noise = self._asked(target, images)
        size = images.shape[2:]
        x = from_rgb(images, self.channel_num)
        if size != (SIZE, SIZE):
            x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        x = self(x, pose, noise)
        if size != (SIZE, SIZE):
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return to_rgb(x)

    def _asked(self, target: Tensor | None, images: Tensor) -> tuple[Tensor, Tensor]:
        count = len(images)
        if target is None:
            target = F.one_hot(torch.zeros(count, dtype=torch.long, device=images.device), self.n_poses)
        noise = self.usual_noise.expand(count, -1)
        if isinstance(target, Tensor) and target.shape == (count, self.n_poses + self.n_noise):
            target, noise = target.split([self.n_poses, self.n_noise], dim=1)
            check_target(noise, (count, self.n_noise), -1, 1, "the noise after the pose")
        meaning = f"a one-hot row per image, the pose wanted; or (B, {self.n_poses + self.n_noise}), pose and noise"
        check_target(target, (count, self.n_poses), 0, 1, meaning)
        return target.to(images.dtype), noise.to(images.dtype)


def dr_gan(checkpoint: str | Path | None = None, **config: Any) -> DRGANGenerator:
    """A DR-GAN generator; with a checkpoint, poses, channels and kind are inferred from the tensors, and arguments given explicitly must agree.

    Args:
        n_noise: only n_poses + n_noise can be inferred from a checkpoint; by default 50 of them are noise.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file (the port's own are), a checkpoint of another network, or of another
            `config`.
    """
    if checkpoint is None:
        return DRGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("G_enc_convLayers.0.weight", "G_dec_fc.weight"),), entries=("state_dict", "G"))
    found = _read_generator(tensors, config.get("n_noise", 50), checkpoint)
    network = DRGANGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def _read_generator(tensors: Mapping[str, Tensor], n_noise: int, source: str | Path) -> dict[str, Any]:
    """Constructor arguments inferred from the tensors."""
    first, last, linear = (tensors.get(key) for key in ("G_enc_convLayers.0.weight", "G_enc_convLayers.43.weight", "G_dec_fc.weight"))
    if first is None or last is None or linear is None or first.ndim != 4 or linear.ndim != 2:
        raise ValueError(
            f"{source} is not a checkpoint of DRGANGenerator: expected G_enc_convLayers.0.weight, …, found {list(tensors)[:3]}"
        )
    conv_dim = first.shape[0]
    told = linear.shape[1] - 10 * conv_dim
    if told <= n_noise:
        raise ValueError(f"{source} has {told} numbers of pose and noise together, and {n_noise} of noise leave no pose; give n_noise")
    multi = last.shape[0] == 10 * conv_dim + 1
    return {"n_poses": told - n_noise, "n_noise": n_noise, "channel_num": first.shape[1], "multi": multi, "conv_dim": conv_dim}


def _activated(layer: nn.Module) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.ELU()]
