"""Council-GAN: breaking the cycle, colleagues are all you need (Nizan and Tal, CVPR 2020).

Official code: https://github.com/Onr/Council-GAN (MIT, with parts of MUNIT under CC BY-NC-SA 4.0). Written from the paper and a
description; the state-dict keys are the authors', so ``a2b_gen_<member>_<iteration>.pt``, which holds {'a2b': …}, and
``b2a_gen_…``, {'b2a': …}, load as they are. The council is several generators that were trained together; one is enough to translate.

Note:
    The network is MUNIT's generator with a decoder that doesn't paint the whole image: it paints a few layers of colour and how much of
    each covers the image it was given. Where all masks are 0 the image stays as it was, which makes it an interesting case to localize.
    The constructor's switch `do_my_style` of the authors is off in all published configurations, and isn't built here.
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
    """(B, dim, h, w) and styles -> (B, masks · (colours + 1), h · 2^n, w · 2^n) in [-1, 1]: layers of colour, then the masks before `cover`."""

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
    """One member of the council, translating in the one direction it was trained for.

    Args:
        input_dim: colour channels.
        dim: channels of the first layers.
        style_dim, mlp_dim: width of a style code, and of the layers that read it.
        n_downsample, n_res: halvings, and residual blocks on either side.
        num_of_mask_dim_to_add: layers of colour, each with its mask.
        activ, pad_type: names of `content_style.ACTIVATIONS` and `PADDINGS`; no file tells them.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 2^n_downsample -> the same.
    """

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
        """(B, 3, H, W) in [-1, 1] -> content (B, 4 dim, H / 4, W / 4) with two halvings, style (B, style_dim, 1, 1)."""
        return self.enc_content(images), self.enc_style(images)

    def decode(self, content: Tensor, style: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the masks in [0, 1]: (B, masks, H, W), 1 where the layer covers what is below it."""
        painted = self.dec(content, self.mlp(style))
        colours, masks = painted[:, : -self.masks], (torch.tanh(10 * painted[:, -self.masks :]) + 1) / 2
        return cover(images.to(painted.dtype), colours, masks), masks

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "Council-GAN", divisor=self.divisor, least=2 * self.divisor)
        style = style_codes(target, images, self.style_dim, lambda references: self.enc_style(from_rgb(references, self.input_dim)))
        images = from_rgb(images, self.input_dim)
        return to_rgb(self.decode(self.enc_content(images), style, images)[0])

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """The library's common entry: [-1, 1] in, [-1, 1] out.

        `target` is the style: codes (B, style_dim) from N(0, I), as at the authors' test; or reference images (B, 3, h, w), read with
        ``enc_style``; None is one code from N(0, I), always the same.
        """
        return self(images, target)


def cover(images: Tensor, colours: Tensor, masks: Tensor) -> Tensor:
    """Layer after layer over the image: y ← (1 - m_k) y + m_k c_k.

    Shape: (B, C, H, W), (B, K · C, H, W), (B, K, H, W) in [0, 1] -> (B, C, H, W).
    """
    for k, colour in enumerate(colours.chunk(masks.shape[1], dim=1)):
        images = torch.lerp(images, colour, masks[:, k : k + 1])
    return images


def council_gan(checkpoint: str | Path | None = None, **config: int | str) -> CouncilGAN:
    """One member of a council; with a checkpoint the widths are read from it, and any that are given must agree.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
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
