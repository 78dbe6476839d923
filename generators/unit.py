"""UNIT: unsupervised image-to-image translation networks (Liu, Breuel, Kautz, NIPS 2017).

Official code: https://github.com/mingyuliutw/UNIT (CC BY-NC-SA 4.0, code and weights: no commercial use). Written from a description,
with the authors' state-dict keys: ``unit_gta2city.pt`` (Google Drive, linked from the repository), {'a': …, 'b': …}, loads directly.

Note:
    The repository's network, and the released checkpoint, are not those of the 2017 paper but MUNIT's without styles: both domains share a latent
    space. In training N(0, 1) is added to the latent code; `manipulate` adds nothing, as in the authors' test script.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from generators.content_style import ACTIVATIONS, ContentEncoder, Decoder, check_direction, chosen, content_shape
from generators.images import check_input, from_rgb, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_parts, load_state


class UNITGenerator(nn.Module):
    """Encoder and decoder of one domain (the authors' VAEGen).

    Args:
        input_dim: image channels.
        dim: channels of the first layer.
        n_downsample, n_res: downsampling layers; residual blocks in the encoder, and in the decoder.
        activ, pad_type: names in `content_style.ACTIVATIONS` and `PADDINGS`, which can't be inferred from a checkpoint.
    """

    def __init__(
        self, *, input_dim: int = 3, dim: int = 64, n_downsample: int = 2, n_res: int = 4, activ: str = "relu", pad_type: str = "reflect"
    ) -> None:
        super().__init__()
        common = {"n_res": n_res, "activation": chosen(ACTIVATIONS, activ), "pad_type": pad_type}
        self.enc = ContentEncoder(input_dim=input_dim, dim=dim, n_downsample=n_downsample, **common)
        self.dec = Decoder(dim=self.enc.output_dim, n_upsample=n_downsample, output_dim=input_dim, norm=nn.InstanceNorm2d, **common)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 4 dim, H / 4, W / 4) with two downsampling layers."""
        return self.enc(images)

    def decode(self, hidden: Tensor) -> Tensor:
        """Latent code to an image of this domain."""
        return self.dec(hidden)


class UNIT(nn.Module):
    """Translates images to the other domain: encoder of the source domain, decoder of the target domain.

    Args:
        direction: "a2b" or "b2a"; in the released model a is GTA and b Cityscapes.
        generator: arguments of `UNITGenerator`.

    Shape:
        images (B, 3, H, W) in [-1, 1], sides divisible by 2^n_downsample -> the same.
    """

    def __init__(self, *, direction: str = "a2b", n_downsample: int = 2, input_dim: int = 3, **generator: int | str) -> None:
        super().__init__()
        self.source, self.goal = check_direction(direction)
        self.divisor, self.input_dim = 2**n_downsample, input_dim
        shape = {"n_downsample": n_downsample, "input_dim": input_dim, **generator}
        self.config = {"direction": direction, **shape}
        self.a, self.b = UNITGenerator(**shape), UNITGenerator(**shape)

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        check_input(images, "UNIT", divisor=self.divisor, least=2 * self.divisor)
        hidden = getattr(self, self.source).encode(from_rgb(images, self.input_dim))
        return to_rgb(getattr(self, self.goal).decode(hidden))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1]. `target` is ignored."""
        return self(images)


def unit(checkpoint: str | Path | None = None, **config: int | str) -> UNIT:
    """UNIT in one direction; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return UNIT(**config)
    tensors = load_parts(checkpoint, ("a", "b"), what="a checkpoint of UNIT")
    network = UNIT(**agree(content_shape(tensors, "a.enc"), config, checkpoint))
    # Checkpoints of PyTorch 0.3 contain running statistics of norms that don't use them.
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network
