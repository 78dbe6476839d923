"""ALAE: adversarial latent autoencoders (Pidhorskyi, Adjeroh, Doretto, CVPR 2020), the StyleALAE variant with StyleGAN's decoder.

Official code: https://github.com/podgorskiy/ALAE (Apache 2.0), which also links the checkpoints: CelebA at 128 px, CelebA-HQ and LSUN bedrooms at
256 px, FFHQ at 1024 px. Written from the paper and the key list. The attributes have the names of the authors' checkpoints: the suffix "_s" marks
averaged weights, and the encoder is called discriminator because it forms one together with a small head.

Note:
    The authors train with equalized learning rates and store weights that are already scaled, so they are used unchanged.
    Where paper and code differ the code was followed: the RGB input passes through the leaky ReLU twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generators.alae_networks import Average, Decoder, Encoder, Head, Mapping
from generators.images import check_input
from generators.loading import agree
from generators.style_layers import fixed_noise
from malp_disc.serialization.state_dicts import load_parts, load_state

PARTS = ("discriminator_s", "generator_s", "mapping_tl_s", "mapping_fl_s", "dlatent_avg")


class ALAE(nn.Module):
    """Encodes an image into the latent space W of a StyleGAN decoder and decodes it, from the same latent (reconstruction) or a shifted one (edit).

    Args:
        layer_count: number of resolutions, from 4×4 up: 6 for CelebA at 128, 7 for CelebA-HQ and bedrooms at 256, 9 for FFHQ at 1024.
        startf, maxf: channels at full resolution, and the maximum to which they double at every lower one: 64 and 256, 64 and 512, 16 and 512.
        latent_size: D, dimension of z and w: 256, 512, 512.
        mapping_layers: number of layers of F.
        channels: image channels.
        truncation_psi, truncation_cutoff: ψ of the truncation trick in `generate`, and the number of layers it applies to.
        fused_from: resolution from which resampling is fused into the convolution.
    """

    target_kind = "none"  # a shift of the latent can't be made from labels: the commands take its default

    def __init__(
        self,
        *,
        layer_count: int = 7,
        startf: int = 64,
        maxf: int = 512,
        latent_size: int = 512,
        mapping_layers: int = 8,
        channels: int = 3,
        truncation_psi: float = 0.7,
        truncation_cutoff: int = 8,
        fused_from: int = 128,
    ) -> None:
        super().__init__()
        self.config = {
            "layer_count": layer_count,
            "startf": startf,
            "maxf": maxf,
            "latent_size": latent_size,
            "mapping_layers": mapping_layers,
            "channels": channels,
            "truncation_psi": truncation_psi,
            "truncation_cutoff": truncation_cutoff,
            "fused_from": fused_from,
        }
        self.resolution, self.size, self.layers, self.lod = 2 ** (layer_count + 1), latent_size, 2 * layer_count, layer_count - 1
        self.psi, self.cutoff = truncation_psi, truncation_cutoff
        self.discriminator_s = Encoder(startf, maxf, layer_count, latent_size, channels, fused_from)
        self.generator_s = Decoder(startf, maxf, layer_count, latent_size, channels, fused_from)
        self.mapping_tl_s = Head(latent_size)
        self.mapping_fl_s = Mapping(latent_size, mapping_layers)
        self.dlatent_avg = Average(self.layers, latent_size)

    def encode(self, images: Tensor, lod: int | None = None, blend: float = 1.0) -> Tensor:
        """E: images (B, 3, N, N) -> w (B, D).

        Args:
            lod: level of detail: the images have 4 · 2^lod pixels a side. None: the full resolution.
            blend: below 1, weight of the highest resolution while it is faded in, as in progressive training.
        """
        return self.discriminator_s(images, self.lod if lod is None else lod, blend)

    def decode(self, w: Tensor, lod: int | None = None, blend: float = 1.0, noise: Sequence[Tensor] | None = None) -> Tensor:
        """G: one style (B, D), or one per layer (B, L, D) -> images (B, 3, N, N), not clamped.

        Args:
            noise: two maps per resolution, (1 or B, 1, side, side). None: noise from a fixed seed.
        """
        lod = self.lod if lod is None else lod
        styles = w[:, None].expand(-1, self.layers, -1) if w.ndim == 2 else w
        if noise is None:
            noise = [fixed_noise(i, 4 << i // 2, 4 << i // 2, styles) for i in range(2 * lod + 2)]
        return self.generator_s(styles, lod, noise, blend)

    def generate(self, z: Tensor, lod: int | None = None, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Sampling with the truncation trick: z (B, D) -> images (B, 3, N, N), not clamped."""
        styles, mean = self.mapping_fl_s(z)[:, None].expand(-1, self.layers, -1), self.dlatent_avg.buff
        kept = torch.where(torch.arange(self.layers, device=z.device) < self.cutoff, self.psi, 1.0)[:, None]
        return self.decode(mean + (styles - mean) * kept, lod, noise=noise)

    def forward(self, images: Tensor, shift: Tensor | None = None) -> Tensor:
        """G(E(images) + shift), not clamped."""
        w = self.encode(images)
        if shift is not None:
            w = (w[:, None] if shift.ndim == 3 else w) + shift.to(w.dtype)
        return self.decode(w)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> edited images in [-1, 1], same size. The noise is fixed; no truncation.

        Args:
            images: (B, 3, N, N), with N the network's resolution.
            target: shift of the latent, (B, D), or one per layer, (B, L, D): an attribute's direction, such as the authors'
                ``principal_directions/direction_*.npy``, times a step size. None reconstructs the image.

        Raises:
            ValueError: other shapes.
        """
        check_input(images, "ALAE")
        if images.shape[2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"this ALAE takes {self.resolution}x{self.resolution}, got {images.shape[2]}x{images.shape[3]}; resize, or use another checkpoint"
            )
        count, size = len(images), self.size
        if target is not None and target.shape not in ((count, size), (count, self.layers, size)):
            raise ValueError(
                f"expected as the target a shift of the latents, ({count}, {size}), or one per layer, ({count}, {self.layers}, {size}), "
                f"or None; got {tuple(target.shape)}"
            )
        return self(images, target).clamp(-1, 1)


def alae(checkpoint: str | Path | None = None, **config: Any) -> ALAE:
    """Build ALAE; with a checkpoint, the architecture is inferred from its tensors, and arguments given explicitly must agree with it.

    Args:
        checkpoint: the authors' ``model_*.pth`` (the averaged networks under "models" are loaded), or one state dict with the names above as
            prefixes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return ALAE(**config)
    tensors = load_parts(checkpoint, PARTS, entries=("models",), what="a checkpoint of ALAE")
    blocks = sum(re.fullmatch(r"discriminator_s\.encode_block\.\d+\.bias_2", key) is not None for key in tensors)
    first, last = (
        tensors.get("discriminator_s.from_rgb.0.from_rgb.weight"),
        tensors.get(f"discriminator_s.encode_block.{blocks - 1}.style_2.weight"),
    )
    if first is None or first.ndim != 4 or last is None or last.ndim != 2:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of ALAE: expected discriminator_s.encode_block.0.bias_1, …, found {list(tensors)[:3]}"
        )
    found = {
        "layer_count": blocks,
        "startf": first.shape[0],
        "channels": first.shape[1],
        "latent_size": last.shape[0],
        "mapping_layers": sum(re.fullmatch(r"mapping_fl_s\.map_blocks\.\d+\.fc\.weight", key) is not None for key in tensors),
    }
    widest = last.shape[1] // 2  # channels of the last block: maxf, unless no layer reaches it
    if widest < first.shape[0] << blocks:
        found["maxf"] = widest
    else:
        config.setdefault("maxf", widest)
    network = ALAE(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=(".blur.weight",))
    return network
