"""MUNIT: multimodal unsupervised image-to-image translation (Huang, Liu, Belongie, Kautz, ECCV 2018).

Official code: https://github.com/NVlabs/MUNIT (CC BY-NC-SA 4.0, code and weights: no commercial use). Written from the paper and a
description, with the authors' state-dict keys: ``edges2shoes.pt`` and similar (Google Drive, linked from the repository), {'a': …, 'b': …}, load directly.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from generators.content_style import (
    ACTIVATIONS,
    AdaIN,
    ContentEncoder,
    Decoder,
    StyleEncoder,
    StyleMLP,
    check_direction,
    chosen,
    content_shape,
    style_codes,
    style_shape,
)
from generators.images import check_input, from_rgb, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_parts, load_state


class MUNITGenerator(nn.Module):
    """Content encoder, style encoder and decoder of one domain (the authors' AdaINGen).

    Args:
        input_dim: image channels.
        dim: channels of the first layers.
        style_dim, mlp_dim: dimension of a style code, and width of the MLP that maps it to AdaIN parameters.
        n_downsample, n_res: downsampling layers; residual blocks in the encoder, and in the decoder.
        activ, pad_type: names in `content_style.ACTIVATIONS` and `PADDINGS`, which can't be inferred from a checkpoint.
    """

    def __init__(
        self,
        *,
        input_dim: int = 3,
        dim: int = 64,
        style_dim: int = 8,
        mlp_dim: int = 256,
        n_downsample: int = 2,
        n_res: int = 4,
        activ: str = "relu",
        pad_type: str = "reflect",
    ) -> None:
        super().__init__()
        common = {"activation": chosen(ACTIVATIONS, activ), "pad_type": pad_type}
        self.enc_style = StyleEncoder(input_dim=input_dim, dim=dim, style_dim=style_dim, **common)
        self.enc_content = ContentEncoder(input_dim=input_dim, dim=dim, n_downsample=n_downsample, n_res=n_res, **common)
        self.dec = Decoder(
            dim=self.enc_content.output_dim, n_upsample=n_downsample, n_res=n_res, output_dim=input_dim, norm=AdaIN, **common
        )
        self.mlp = StyleMLP(style_dim, mlp_dim, self.dec, common["activation"])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> content (B, 4 dim, H / 4, W / 4) with two downsampling layers, style (B, style_dim, 1, 1)."""
        return self.enc_content(images), self.enc_style(images)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Image of this domain from content and style, (B, style_dim) or (B, style_dim, 1, 1)."""
        return self.dec(content, self.mlp(style))


class MUNIT(nn.Module):
    """Translates images to the other domain: content of the input, style code of the other domain.

    Args:
        direction: "a2b" or "b2a"; for edges2shoes a are the edges and b the shoes.
        generator: arguments of `MUNITGenerator`.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 2^n_downsample -> the same.
    """

    target_kind = "none"  # a style can't be made from labels: the commands take its default

    def __init__(
        self, *, direction: str = "a2b", n_downsample: int = 2, input_dim: int = 3, style_dim: int = 8, **generator: int | str
    ) -> None:
        super().__init__()
        self.source, self.goal = check_direction(direction)
        self.divisor, self.input_dim, self.style_dim = 2**n_downsample, input_dim, style_dim
        shape = {"n_downsample": n_downsample, "input_dim": input_dim, "style_dim": style_dim, **generator}
        self.config = {"direction": direction, **shape}
        self.a, self.b = MUNITGenerator(**shape), MUNITGenerator(**shape)

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "MUNIT", divisor=self.divisor, least=2 * self.divisor)
        source, goal = getattr(self, self.source), getattr(self, self.goal)
        style = style_codes(target, images, self.style_dim, lambda references: goal.enc_style(from_rgb(references, self.input_dim)))
        return to_rgb(goal.decode(source.enc_content(from_rgb(images, self.input_dim)), style))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1].

        Args:
            target: style codes (B, style_dim), from N(0, I) or from ``enc_style``; or reference images (B, 3, h, w) of the target domain.
                None: one fixed code from N(0, I).
        """
        return self(images, target)


def munit(checkpoint: str | Path | None = None, **config: int | str) -> MUNIT:
    """MUNIT in one direction; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return MUNIT(**config)
    tensors = load_parts(checkpoint, ("a", "b"), what="a checkpoint of MUNIT")
    found = {**content_shape(tensors, "a.enc_content"), **style_shape(tensors, "a.mlp")}
    network = MUNIT(**agree(found, config, checkpoint))
    # Checkpoints of PyTorch 0.3 contain running statistics of norms that don't use them, and the AdaIN layers' are unused too.
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network
