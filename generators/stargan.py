"""StarGAN: unified generative adversarial networks for multi-domain image-to-image translation (Choi et al., CVPR 2018).

Official code: https://github.com/yunjey/stargan (MIT). Written from the paper and the published key list, with the authors'
state-dict keys: the published ``200000-G.ckpt`` and ``200000-D.ckpt`` (``download.sh`` in their repository) load directly.

Note:
    The official test script never calls ``.eval()``, so its instance norms always use the statistics of each image, although the
    checkpoints contain running averages. `StarGANGenerator` does the same in both modes and keeps the buffers only so that the keys match;
    ``use_running_statistics=True`` gives the network that ``.eval()`` would have given (with poor images).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.loading import agree
from malp_disc.serialization.state_dicts import load_state, load_tensors

ATTENTION_BIAS = 2.0
"""Initial bias of the attention layer, so that an untrained generator returns 88 % of its input; without it, half."""


class ImageNorm(nn.InstanceNorm2d):
    """Affine instance norm on the statistics of its input, in training and in evaluation; the running averages are stored but unused."""

    use_running_statistics = False

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_running_statistics:
            return F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias, use_input_stats=False, eps=self.eps)
        return F.instance_norm(x, None, None, self.weight, self.bias, use_input_stats=True, eps=self.eps)


class ResidualBlock(nn.Module):
    """x + conv-norm-relu-conv-norm(x), paper Table 4 of the appendix."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            ImageNorm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            ImageNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class StarGANGenerator(nn.Module):
    """G(x, c): translates image x to attributes c.

    Args:
        conv_dim: channels of the first layer (64 in the paper).
        c_dim: number of attributes.
        repeat_num: residual blocks (6 in the paper).
        attention: also predict a mask A in [0, 1], and return A·x + (1 − A)·C, where C is StarGAN's own output: the output layers of GANimation (Pumarola et
            al., ECCV 2018, section 4.1). What isn't edited is copied from the input. The paper's StarGAN has no mask.
        use_running_statistics: see the module's note; for inspection only.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, target (B, c_dim) in {0, 1} -> (B, 3, H, W) in [-1, 1].
    """

    def __init__(
        self, *, conv_dim: int = 64, c_dim: int = 5, repeat_num: int = 6, attention: bool = False, use_running_statistics: bool = False
    ) -> None:
        super().__init__()
        self.c_dim = c_dim
        self.config = {"conv_dim": conv_dim, "c_dim": c_dim, "repeat_num": repeat_num, "attention": attention}
        layers: list[nn.Module] = [nn.Conv2d(3 + c_dim, conv_dim, 7, 1, 3, bias=False), ImageNorm(conv_dim), nn.ReLU(inplace=True)]
        channels = conv_dim
        for _ in range(2):
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False), ImageNorm(2 * channels), nn.ReLU(inplace=True)]
            channels *= 2
        layers += [ResidualBlock(channels) for _ in range(repeat_num)]
        for _ in range(2):
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False), ImageNorm(channels // 2), nn.ReLU(inplace=True)]
            channels //= 2
        layers += [nn.Conv2d(channels, 3, 7, 1, 3, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)
        self.attention = nn.Conv2d(channels, 1, 7, 1, 3) if attention else None
        if self.attention is not None:
            nn.init.constant_(self.attention.bias, ATTENTION_BIAS)
        for module in self.modules():
            if isinstance(module, ImageNorm):
                module.use_running_statistics = use_running_statistics

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        self._check(images, target)
        features = self._features(images, target)
        # In float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn.
        with torch.autocast(features.device.type, enabled=False):
            if self.attention is None:
                return self.main[-2:](features.float())
            colours, mask = self._colours_and_mask(features.float())
            return mask * images.float() + (1 - mask) * colours

    def attention_mask(self, images: Tensor, target: Tensor) -> Tensor:
        """The mask A (B, 1, H, W) in [0, 1] of a generator with attention: 1 copies the input, 0 replaces it.

        Raises:
            ValueError: images or target of another shape, or a generator without attention.
        """
        if self.attention is None:
            raise ValueError("this StarGAN has no attention mask: it was built without attention=True, or its checkpoint has no attention layer")
        self._check(images, target)
        return self._colours_and_mask(self._features(images, target).float())[1]

    def _features(self, images: Tensor, target: Tensor) -> Tensor:
        labels = target.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return self.main[:-2](torch.cat([images, labels], dim=1))  # labels after the RGB channels

    def _colours_and_mask(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs by one convolution of four channels, which costs no more than one of three."""
        weight = torch.cat([self.main[-2].weight, self.attention.weight])
        bias = F.pad(self.attention.bias, (len(weight) - 1, 0))
        colours, mask = F.conv2d(features, weight, bias, padding=3).split([3, 1], dim=1)
        return colours.tanh(), mask.sigmoid()

    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1]. Here it is the forward pass itself."""
        return self(images, target)

    def _check(self, images: Tensor, target: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
        if images.shape[2] % 4 or images.shape[3] % 4:
            raise ValueError(f"StarGAN halves the image twice: expected sides divisible by 4, got {images.shape[2]}x{images.shape[3]}")
        if target.shape != (len(images), self.c_dim):
            raise ValueError(f"expected a target of shape ({len(images)}, {self.c_dim}), one column per attribute, got {tuple(target.shape)}")


class StarGANDiscriminator(nn.Module):
    """D(x): a PatchGAN's map of realness (D_src) and one logit per attribute (D_cls).

    Args:
        image_size: side of the square images; a multiple of ``2 ** repeat_num``.
        conv_dim, c_dim, repeat_num: channels of the first layer, attributes, stride-2 layers (64, 5, 6 in the paper).

    Shape:
        (B, 3, N, N) -> map (B, 1, N / 2^repeat_num, N / 2^repeat_num) without a sigmoid, logits (B, c_dim).
    """

    def __init__(self, *, image_size: int = 128, conv_dim: int = 64, c_dim: int = 5, repeat_num: int = 6) -> None:
        super().__init__()
        if image_size % 2**repeat_num:
            raise ValueError(f"expected an image size divisible by 2^{repeat_num} = {2**repeat_num}, got {image_size}; use fewer layers (repeat_num)")
        self.c_dim, self.image_size = c_dim, image_size
        self.config = {"image_size": image_size, "conv_dim": conv_dim, "c_dim": c_dim, "repeat_num": repeat_num}
        layers: list[nn.Module] = []
        channels = 3
        for i in range(repeat_num):
            layers += [nn.Conv2d(channels, conv_dim * 2**i, 4, 2, 1), nn.LeakyReLU(0.01, inplace=i > 0)]
            channels = conv_dim * 2**i
        self.main = nn.Sequential(*layers)
        self.conv1 = nn.Conv2d(channels, 1, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, c_dim, image_size // 2**repeat_num, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"expected images (B, 3, {self.image_size}, {self.image_size}), got {tuple(images.shape)}")
        features = self.main(images)
        return self.conv1(features), self.conv2(features).flatten(1)


def stargan(checkpoint: str | Path | None = None, **config: int | bool) -> StarGANGenerator:
    """A StarGAN generator; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return StarGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("main.0.weight", "main.1.weight"),), entries=("state_dict", "G"))
    first = _first_layer(tensors, "main.0.weight", checkpoint, "StarGAN generator", StarGANGenerator)
    if "conv2.weight" in tensors:
        raise ValueError(f"{checkpoint} is not a checkpoint of StarGANGenerator: it has conv2.weight (is it the discriminator's file?)")
    blocks = [int(match[1]) for key in tensors if (match := re.fullmatch(r"main\.(\d+)\.main\.0\.weight", key))]
    found = {"conv_dim": first.shape[0], "c_dim": first.shape[1] - 3, "repeat_num": len(blocks), "attention": "attention.weight" in tensors}
    network = StarGANGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("num_batches_tracked",))
    return network


def with_attention(generator: StarGANGenerator) -> StarGANGenerator:
    """A copy of a StarGAN, with an untrained attention layer if it has none: trained further, it learns to copy what it doesn't edit."""
    copy = StarGANGenerator(**{**generator.config, "attention": True})
    copy.load_state_dict({**copy.state_dict(), **generator.state_dict()})
    return copy.train(generator.training)


def stargan_discriminator(checkpoint: str | Path | None = None, **config: int) -> StarGANDiscriminator:
    """Build StarGAN's discriminator; with a checkpoint, the widths and the image size are inferred from the tensors. Raises as `stargan` does."""
    if checkpoint is None:
        return StarGANDiscriminator(**config)
    tensors = load_tensors(checkpoint, forms=(("main.0.weight", "conv2.weight"),), entries=("state_dict", "D"), role="discriminator")
    first = _first_layer(tensors, "main.0.weight", checkpoint, "StarGAN discriminator", StarGANDiscriminator)
    if "conv2.weight" not in tensors:
        raise ValueError(f"{checkpoint} is not a checkpoint of StarGANDiscriminator: it has no conv2.weight (is it the generator's file?)")
    layers = sum(re.fullmatch(r"main\.\d+\.weight", key) is not None for key in tensors)
    head = tensors["conv2.weight"]
    found = {"conv_dim": first.shape[0], "c_dim": head.shape[0], "repeat_num": layers, "image_size": head.shape[-1] * 2**layers}
    network = StarGANDiscriminator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint))
    return network


def _first_layer(tensors: Mapping[str, Tensor], key: str, source: str | Path, what: str, cls: type[nn.Module]) -> Tensor:
    if key not in tensors or tensors[key].ndim != 4:
        raise ValueError(f"{source} is not a checkpoint of {cls.__name__}: expected the keys of a {what} ({key}, …), found {list(tensors)[:3]}")
    return tensors[key]


def deepest_repeat_num(image_size: int, most: int = 6) -> int:
    """Number of stride-2 layers that a discriminator for `image_size` can have: the paper's 6 where the size allows it, one less at 64 and below."""
    return min(most, int(math.log2(image_size & -image_size)), max(1, int(math.log2(image_size)) - 1))
