"""UNIT: unsupervised image-to-image translation networks (Liu, Breuel, Kautz, NIPS 2017).

Official code: https://github.com/mingyuliutw/UNIT (CC BY-NC-SA 4.0, code and weights: no commercial use). Written from a description;
the state-dict keys are the authors', so ``unit_gta2city.pt``, which holds {'a': …, 'b': …}, loads as it is.

Note:
    The repository's network, and its released model, are not those of the 2017 paper but MUNIT's without styles: both domains share a
    latent space, and image and code have one content. In training N(0, 1) is added to the code; `manipulate` adds nothing, as at test.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from generators.content_style import ACTIVATIONS, ContentEncoder, Decoder, check_direction, chosen, content_shape
from generators.images import check_input, from_rgb, to_rgb
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_parts, load_state


class UNITGenerator(nn.Module):
    """One domain's encoder and decoder (the authors' VAEGen).

    Args:
        input_dim: colour channels.
        dim: channels of the first layer.
        n_downsample, n_res: halvings, and residual blocks on either side.
        activ, pad_type: names of `content_style.ACTIVATIONS` and `PADDINGS`; no file tells them.
    """

    def __init__(
        self, *, input_dim: int = 3, dim: int = 64, n_downsample: int = 2, n_res: int = 4, activ: str = "relu", pad_type: str = "reflect"
    ) -> None:
        super().__init__()
        common = {"n_res": n_res, "activation": chosen(ACTIVATIONS, activ), "pad_type": pad_type}
        self.enc = ContentEncoder(input_dim=input_dim, dim=dim, n_downsample=n_downsample, **common)
        self.dec = Decoder(dim=self.enc.output_dim, n_upsample=n_downsample, output_dim=input_dim, norm=nn.InstanceNorm2d, **common)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 4 dim, H / 4, W / 4) with two halvings."""
        return self.enc(images)

    def decode(self, hidden: Tensor) -> Tensor:
        """The way back, to this domain."""
        return self.dec(hidden)


class UNIT(nn.Module):
    """Images of one domain as images of the other: the other's decoder after this one's encoder.

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
        """The library's common entry: [-1, 1] in, [-1, 1] out. There is nothing to choose: a `target` is taken and ignored."""
        return self(images)


def unit(checkpoint: str | Path | None = None, **config: int | str) -> UNIT:
    """UNIT in one direction; with a checkpoint the widths are read from it, and any that are given must agree.

    Raises:
        FileNotFoundError, ValueError: no such file, an unsafe file, a checkpoint of another network, or of another `config`.
    """
    if checkpoint is None:
        return UNIT(**config)
    tensors = load_parts(checkpoint, ("a", "b"), what="a checkpoint of UNIT")
    network = UNIT(**agree(content_shape(tensors, "a.enc"), config, checkpoint))
    # Files of PyTorch 0.3 carry running statistics of norms that never use any.
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network
