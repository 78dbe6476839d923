"""Council-GAN: breaking the cycle, colleagues are all you need (Nizan and Tal, CVPR 2020).

Official code: https://github.com/Onr/Council-GAN (MIT, with parts of MUNIT under CC BY-NC-SA 4.0). Written from the paper and a
description, with the authors' state-dict keys: the checkpoints ``a2b_gen_<member>_<iteration>.pt``, {'a2b': …}, and ``b2a_gen_…``, {'b2a': …}
(OneDrive, ``scripts/download.sh``), load directly. The council consists of several generators trained together, of which one suffices to translate.

Note:
    The network is MUNIT's generator, but its decoder predicts a few colour layers and masks by which they are blended over the input image. Where all
    masks are 0 the image is unchanged, which makes it an interesting case for localization. The authors' option `do_my_style`, off in all
    published configurations, is not implemented.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from generators.content_style import (
    ACTIVATIONS,
    AdaIN,
    ContentEncoder,
    ConvBlock,
    LastBlock,
    Make,
    ResidualBlocks,
    StyledSequential,
    StyleEncoder,
    StyleMLP,
    chosen,
    content_shape,
    style_codes,
    style_shape,
)
from generators.images import check_input, from_rgb, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors


class MaskedDecoder(nn.Module):
    """(B, dim, h, w) and styles -> (B, masks · (colours + 1), h · 2^n, w · 2^n) in [-1, 1]: colour layers, then the masks for `cover`."""

    def __init__(self, *, dim: int, n_upsample: int, n_res: int, outputs: int, activation: Make, pad_type: str) -> None:
        super().__init__()
        plain = {"activation": activation, "pad_type": pad_type}
        styled = {**plain, "norm": AdaIN}
        layers: list[nn.Module] = [ResidualBlocks(n_res, dim, **styled)]
        for _ in range(n_upsample):
            layers += [nn.Upsample(scale_factor=2), ConvBlock(dim, dim // 2, 3, **styled), ConvBlock(dim // 2, dim // 2, 3, **styled)]
            dim //= 2
        layers += [ConvBlock(dim, dim, 1, **plain), ConvBlock(dim, dim, 1, **plain), LastBlock(dim, outputs, 1, pad_type=pad_type)]
        self.model = StyledSequential(*layers)

    def forward(self, content: Tensor, styles) -> Tensor:
        return self.model(content, styles)


class CouncilGAN(nn.Module):
    """One member of the council, which translates in the direction it was trained for.

    Args:
        input_dim: image channels.
        dim: channels of the first layers.
        style_dim, mlp_dim: dimension of a style code, and width of the MLP that maps it to AdaIN parameters.
        n_downsample, n_res: downsampling layers; residual blocks in the encoder, and in the decoder.
        num_of_mask_dim_to_add: number of colour layers, each with a mask.
        activ, pad_type: names in `content_style.ACTIVATIONS` and `PADDINGS`, which can't be inferred from a checkpoint.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 2^n_downsample -> the same.
    """

    target_kind = "none"  # a style can't be made from labels: the commands take its default

    def __init__(
        self,
        *,
        input_dim: int = 3,
        dim: int = 64,
        style_dim: int = 64,
        mlp_dim: int = 256,
        n_downsample: int = 2,
        n_res: int = 5,
        num_of_mask_dim_to_add: int = 3,
        activ: str = "relu",
        pad_type: str = "zero",
    ) -> None:
        super().__init__()
        if num_of_mask_dim_to_add < 1:
            raise ValueError(f"expected at least one mask, got num_of_mask_dim_to_add={num_of_mask_dim_to_add}")
        self.config = {
            "input_dim": input_dim,
            "dim": dim,
            "style_dim": style_dim,
            "mlp_dim": mlp_dim,
            "n_downsample": n_downsample,
            "n_res": n_res,
        }
        self.config |= {"num_of_mask_dim_to_add": num_of_mask_dim_to_add}
        self.divisor, self.input_dim, self.style_dim, self.masks = 2**n_downsample, input_dim, style_dim, num_of_mask_dim_to_add
        common = {"activation": chosen(ACTIVATIONS, activ), "pad_type": pad_type}
        self.enc_style = StyleEncoder(input_dim=input_dim, dim=dim, style_dim=style_dim, **common)
        self.enc_content = ContentEncoder(input_dim=input_dim, dim=dim, n_downsample=n_downsample, n_res=n_res, **common)
        outputs = self.masks * (input_dim + 1)
        self.dec = MaskedDecoder(dim=self.enc_content.output_dim, n_upsample=n_downsample, n_res=n_res, outputs=outputs, **common)
        self.mlp = StyleMLP(style_dim, mlp_dim, self.dec, common["activation"])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> content (B, 4 dim, H / 4, W / 4) with two downsampling layers, style (B, style_dim, 1, 1)."""
        return self.enc_content(images), self.enc_style(images)

    def decode(self, content: Tensor, style: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the masks (B, masks, H, W) in [0, 1]; 1 where a layer replaces those below it."""
        painted = self.dec(content, self.mlp(style))
        colours, masks = painted[:, : -self.masks], (torch.tanh(10 * painted[:, -self.masks :]) + 1) / 2
        return cover(images.to(painted.dtype), colours, masks), masks

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "Council-GAN", divisor=self.divisor, least=2 * self.divisor)
        style = style_codes(target, images, self.style_dim, lambda references: self.enc_style(from_rgb(references, self.input_dim)))
        images = from_rgb(images, self.input_dim)
        return to_rgb(self.decode(self.enc_content(images), style, images)[0])

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1].

        Args:
            target: style codes (B, style_dim) from N(0, I), as in the authors' test script; or reference images (B, 3, h, w), which
                ``enc_style`` encodes. None: one fixed code from N(0, I).
        """
        return self(images, target)


def cover(images: Tensor, colours: Tensor, masks: Tensor) -> Tensor:
    """Blend the colour layers over the image, one after the other: y ← (1 - m_k) y + m_k c_k.

    Shape: (B, C, H, W), (B, K · C, H, W), (B, K, H, W) in [0, 1] -> (B, C, H, W).
    """
    for k, colour in enumerate(colours.chunk(masks.shape[1], dim=1)):
        images = torch.lerp(images, colour, masks[:, k : k + 1])
    return images


def council_gan(checkpoint: str | Path | None = None, **config: int | str) -> CouncilGAN:
    """One member of a council; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return CouncilGAN(**config)
    tensors = load_tensors(checkpoint, forms=(("enc_content.model.0.conv.weight", "mlp.model.0.fc.weight"),), entries=("a2b", "b2a", "state_dict"))
    found = {**content_shape(tensors, "enc_content"), **style_shape(tensors, "mlp")}
    last = tensors.get(f"dec.model.{3 * found.get('n_downsample', 0) + 3}.conv.weight")
    if last is not None and last.ndim == 4:
        found["num_of_mask_dim_to_add"] = last.shape[0] // (found["input_dim"] + 1)
    network = CouncilGAN(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network
