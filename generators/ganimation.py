"""GANimation: anatomically-aware facial animation from a single image (Pumarola et al., ECCV 2018; IJCV 2019).

Official code: https://github.com/albertpumarola/GANimation (GPL-3.0). Written from the paper and the published key list, without
using that code, but with the authors' state-dict keys (``attetion_reg`` is their spelling): ``net_epoch_<n>_id_G.pth`` and ``…_D.pth`` load directly.
The authors released no weights.

Note:
    Checkpoints of the authors' torch version (0.3) contain unused running averages of instance norms, which are ignored. The authors' images are
    slightly dark because they are scaled by 254 when saved; here they aren't. Their discriminator squeezes its outputs, so that the shape depends on the
    batch size; here the batch dimension is kept.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from generators.attributes import check_condition, check_target, tell
from generators.images import check_input, in_float32
from generators.loading import agree
from generators.norms import InstanceNorm
from generators.stargan import StarGANDiscriminator, stargan_discriminator
from malp_disc.serialization.state_dicts import load_state, load_tensors

# Columns of the condition: action units of the Facial Action Coding System, as measured by OpenFace.
ACTION_UNITS = tuple(f"AU{number:02}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45))


class ResidualBlock(nn.Module):
    """x + conv-norm-relu-conv-norm(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm(channels, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            InstanceNorm(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class GANimationGenerator(nn.Module):
    """G(x, y): colour image C and attention mask A; the result is A·x + (1 − A)·C.

    The trunk is StarGAN's, with instance norms that have no running averages.

    Args:
        conv_dim: channels of the first layer.
        c_dim: number of action units.
        repeat_num: residual blocks.
        saturate_mask: push the attention towards 0 and 1; the authors' option ``do_saturate_mask``, off in their scripts.

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, target (B, c_dim) in [0, 1] -> colours (B, 3, H, W) in [-1, 1],
        attention (B, 1, H, W) in [0, 1], where 1 keeps the image.
    """

    def __init__(self, *, conv_dim: int = 64, c_dim: int = 17, repeat_num: int = 6, saturate_mask: bool = False) -> None:
        super().__init__()
        self.c_dim, self.saturate_mask = c_dim, saturate_mask
        self.config = {"conv_dim": conv_dim, "c_dim": c_dim, "repeat_num": repeat_num}
        layers = _normed(nn.Conv2d(3 + c_dim, conv_dim, 7, 1, 3, bias=False))
        layers += _normed(nn.Conv2d(conv_dim, 2 * conv_dim, 4, 2, 1, bias=False))
        layers += _normed(nn.Conv2d(2 * conv_dim, 4 * conv_dim, 4, 2, 1, bias=False))
        layers += [ResidualBlock(4 * conv_dim) for _ in range(repeat_num)]
        layers += _normed(nn.ConvTranspose2d(4 * conv_dim, 2 * conv_dim, 4, 2, 1, bias=False))
        layers += _normed(nn.ConvTranspose2d(2 * conv_dim, conv_dim, 4, 2, 1, bias=False))
        self.main = nn.Sequential(*layers)
        self.img_reg = nn.Sequential(nn.Conv2d(conv_dim, 3, 7, 1, 3, bias=False), nn.Tanh())
        self.attetion_reg = nn.Sequential(nn.Conv2d(conv_dim, 1, 7, 1, 3, bias=False), nn.Sigmoid())

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        check_input(images, "GANimation", divisor=4)
        check_condition(target, (len(images), self.c_dim), "action unit")
        features = self.main(tell(images, target))
        return in_float32(self.img_reg, features), in_float32(self.attetion_reg, features)

    def manipulate(self, images: Tensor, target: Tensor) -> Tensor:
        """Common interface of all generators: images in [-1, 1] with the expression `target`.

        Args:
            target: (B, c_dim) in [0, 1], the desired intensity of every action unit, in the order of `ACTION_UNITS`: OpenFace's (0 to 5)
                divided by 5. To change one only, pass the measured intensities of the others.

        Raises:
            ValueError: another shape, or a number outside [0, 1].
        """
        check_input(images, "GANimation", divisor=4)
        check_target(target, (len(images), self.c_dim), 0, 1, "the wanted intensity of each action unit (OpenFace's divided by 5)")
        return blend(images, *self(images, target), saturate=self.saturate_mask)


def blend(images: Tensor, colours: Tensor, attention: Tensor, *, saturate: bool = False) -> Tensor:
    """A·x + (1 − A)·C; `saturate` first makes A steeper about one half.

    Shapes: (B, 3, H, W), (B, 3, H, W), (B, 1, H, W) in [0, 1] -> (B, 3, H, W).
    """
    if saturate:
        attention = (0.55 * torch.tanh(3 * (attention - 0.5)) + 0.5).clamp(0, 1)
    return attention * images + (1 - attention) * colours


def ganimation(checkpoint: str | Path | None = None, **config: int | bool) -> GANimationGenerator:
    """A GANimation generator; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return GANimationGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("main.0.weight", "attetion_reg.0.weight"),), entries=("state_dict", "G"))
    first = tensors.get("main.0.weight")
    if first is None or first.ndim != 4 or "attetion_reg.0.weight" not in tensors:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of GANimationGenerator: expected main.0.weight and attetion_reg.0.weight, found {list(tensors)[:3]}"
        )
    blocks = sum(re.fullmatch(r"main\.\d+\.main\.0\.weight", key) is not None for key in tensors)
    found = {"conv_dim": first.shape[0], "c_dim": first.shape[1] - 3, "repeat_num": blocks}
    network = GANimationGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint), optional=("running_mean", "running_var", "num_batches_tracked"))
    return network


def ganimation_discriminator(checkpoint: str | Path | None = None, **config: int) -> StarGANDiscriminator:
    """GANimation's discriminator: StarGAN's, with the same keys; its second output is an intensity per action unit instead of a logit."""
    if checkpoint is None:
        return StarGANDiscriminator(**{"c_dim": len(ACTION_UNITS), **config})
    return stargan_discriminator(checkpoint, **config)


def _normed(layer: nn.Module) -> list[nn.Module]:
    return [layer, InstanceNorm(layer.out_channels, affine=True), nn.ReLU(inplace=True)]
