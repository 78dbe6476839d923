"""Context encoders: feature learning by inpainting (Pathak, Krähenbühl, Donahue, Darrell and Efros, CVPR 2016).

The authors' code, https://github.com/pathak22/context-encoder, is Lua Torch, whose ``.t7`` files PyTorch can't read. The keys are
those of the port https://github.com/BoyuanJiang/context_encoder_pytorch (MIT), whose ``netG_streetview.pth`` (Paris StreetView; Google Drive) loads
directly. Written from the paper and the port's published key list.

Note:
    As in the published code, the network sees 4 pixels inside the hole's border, and its result is pasted over the whole hole, these pixels
    included. Only the central hole is implemented, for which there are weights; the paper's random regions are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generators.images import check_channels, check_input, in_float32
from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors

OVERLAP = 4
FILLING = tuple(2 * level / 255 - 1 for level in (117, 104, 123))
"""ImageNet's mean colour, in the order the published code has it."""


def hide(images: Tensor, overlap: int = OVERLAP) -> Tensor:
    """Fill the centre of the images, from a quarter to three quarters of each side minus `overlap`, with `FILLING`.

    Shape: (B, 3, H, W) in [-1, 1] -> the same.
    """
    height, width = images.shape[2:]
    hidden = images.clone()
    rows, columns = (slice(side // 4 + overlap, side // 4 + side // 2 - overlap) for side in (height, width))
    hidden[:, :, rows, columns] = images.new_tensor(FILLING).view(3, 1, 1)
    return hidden


class ContextEncoderGenerator(nn.Module):
    """G(x): predicts the hidden centre of image x (Figure 9a of the paper).

    Args:
        nc, nef, ngf: channels of an image, of the encoder's first and of the decoder's last layer.
        bottleneck: channels of the 1×1 bottleneck (4000).

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by 32, at least 128 -> the same with a new centre; 128 px was published.

    Note:
        `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(self, *, nc: int = 3, nef: int = 64, ngf: int = 64, bottleneck: int = 4000) -> None:
        super().__init__()
        self.config = {"nc": nc, "nef": nef, "ngf": ngf, "bottleneck": bottleneck}
        self.nc = nc

        def down(channels: int, following: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, following, 4, 2, 1, bias=False), nn.BatchNorm2d(following), nn.LeakyReLU(0.2)]

        def up(channels: int, following: int) -> list[nn.Module]:
            return [nn.ConvTranspose2d(channels, following, 4, 2, 1, bias=False), nn.BatchNorm2d(following), nn.ReLU()]

        self.main = nn.Sequential(
            nn.Conv2d(nc, nef, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            *down(nef, nef),
            *down(nef, 2 * nef),
            *down(2 * nef, 4 * nef),
            *down(4 * nef, 8 * nef),
            nn.Conv2d(8 * nef, bottleneck, 4, bias=False),
            nn.BatchNorm2d(bottleneck),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(bottleneck, 8 * ngf, 4, bias=False),
            nn.BatchNorm2d(8 * ngf),
            nn.ReLU(),
            *up(8 * ngf, 4 * ngf),
            *up(4 * ngf, 2 * ngf),
            *up(2 * ngf, ngf),
            nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Images without their centre, (B, 3, H, W) -> the centre (B, 3, H / 2, W / 2), both in [-1, 1]."""
        check_channels(hidden, self.nc, "context encoder")
        return in_float32(self.main[-2:], self.main[:-2](hidden))

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: inpaints the centre of each image; all other pixels are returned unchanged."""
        check_input(images, "the context encoder halves the image five times", divisor=32, least=128)
        centre = self(hide(images))
        top, left = images.shape[2] // 4, images.shape[3] // 4
        painted = images.to(centre.dtype, copy=True)
        painted[:, :, top : top + centre.shape[2], left : left + centre.shape[3]] = centre
        return painted


def context_encoder(checkpoint: str | Path | None = None, **config: Any) -> ContextEncoderGenerator:
    """A context encoder; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return ContextEncoderGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("main.0.weight", "main.29.weight"),), entries=("state_dict", "G"))
    found: dict[str, int] = {}
    first, middle, last = (tensors.get(f"main.{number}.weight") for number in (0, 14, 29))
    if first is not None and middle is not None and last is not None and first.ndim == middle.ndim == last.ndim == 4:
        found = {"nc": first.shape[1], "nef": first.shape[0], "bottleneck": middle.shape[0], "ngf": last.shape[0]}
    network = ContextEncoderGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network
