"""CartoonGAN: generative adversarial networks for photo cartoonization (Chen, Lai and Liu, CVPR 2018).

The authors' Torch models were converted to PyTorch by https://github.com/Yijunmaverick/CartoonGAN-Test-Pytorch-Torch (MIT), one checkpoint per
style: ``Hayao_net_G_float.pth`` and similar. Written from the paper and the published key list, with the state-dict keys of those files,
which are also read from ``.npz`` (half precision included) and safetensors.

Note:
    Details that the paper leaves open follow the published code: residual blocks and the two 7×7 convolutions use reflection padding, the
    others zero padding; the output has a tanh; the norm's eps is 1e-9. The network works in BGR; `CartoonGANGenerator` takes and returns RGB,
    like all generators here.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.serialization.state_dicts import load_state, load_tensors


class ScaleShiftNorm(nn.Module):
    """Instance norm with the checkpoints' names `scale` and `shift` for weight and bias."""

    eps = 1e-9

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=self.eps)


class CartoonGANGenerator(nn.Module):
    """G(x): image x in the style of the cartoon that the network was trained on.

    Args:
        conv_dim: channels of the first layer (64 in the paper).
        repeat_num: residual blocks (8 in the paper).

    Shape:
        images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, at least 8 -> (B, 3, H, W) in [-1, 1].

    Note:
        A checkpoint has one style. `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(self, *, conv_dim: int = 64, repeat_num: int = 8) -> None:
        super().__init__()
        self.config = {"conv_dim": conv_dim, "repeat_num": repeat_num}
        small, medium, large = conv_dim, 2 * conv_dim, 4 * conv_dim
        self.conv01_1 = nn.Conv2d(3, small, 7, padding=3, padding_mode="reflect")
        self.in01_1 = ScaleShiftNorm(small)
        self.conv02_1 = nn.Conv2d(small, medium, 3, stride=2, padding=1)
        self.conv02_2 = nn.Conv2d(medium, medium, 3, padding=1)
        self.in02_1 = ScaleShiftNorm(medium)
        self.conv03_1 = nn.Conv2d(medium, large, 3, stride=2, padding=1)
        self.conv03_2 = nn.Conv2d(large, large, 3, padding=1)
        self.in03_1 = ScaleShiftNorm(large)
        self._blocks = [f"{number:02d}" for number in range(4, 4 + repeat_num)]
        for block in self._blocks:
            for half in (1, 2):
                self.add_module(f"conv{block}_{half}", nn.Conv2d(large, large, 3, padding=1, padding_mode="reflect"))
                self.add_module(f"in{block}_{half}", ScaleShiftNorm(large))
        self.deconv01_1 = nn.ConvTranspose2d(large, medium, 3, stride=2, padding=1, output_padding=1)
        self.deconv01_2 = nn.Conv2d(medium, medium, 3, padding=1)
        self.deconv02_1 = nn.ConvTranspose2d(medium, small, 3, stride=2, padding=1, output_padding=1)
        self.deconv02_2 = nn.Conv2d(small, small, 3, padding=1)
        self._up_norms = [f"in{4 + repeat_num + stage:02d}_1" for stage in range(2)]  # the numbering continues: in12_1 and in13_1 after 8 blocks
        for name, channels in zip(self._up_norms, (medium, small)):
            self.add_module(name, ScaleShiftNorm(channels))
        self.deconv03_1 = nn.Conv2d(small, 3, 7, padding=3, padding_mode="reflect")  # a convolution, despite its name

    def forward(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        self._check(images)
        x = images.flip(1)  # RGB -> BGR
        x = self._run(x, "conv01_1", "in01_1").relu()
        x = self._run(x, "conv02_1", "conv02_2", "in02_1").relu()
        x = self._run(x, "conv03_1", "conv03_2", "in03_1").relu()
        for block in self._blocks:
            x = x + self._run(self._run(x, f"conv{block}_1", f"in{block}_1").relu(), f"conv{block}_2", f"in{block}_2")
        x = self._run(x, "deconv01_1", "deconv01_2", self._up_norms[0]).relu()
        x = self._run(x, "deconv02_1", "deconv02_2", self._up_norms[1]).relu()
        # In float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn.
        with torch.autocast(x.device.type, enabled=False):
            return torch.tanh(self.deconv03_1(x.to(self.deconv03_1.weight.dtype))).flip(1)

    def manipulate(self, images: Tensor, target: Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1]. Here it is the forward pass itself; `target` is ignored."""
        return self(images, target)

    def _run(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(images.shape)}")
        height, width = images.shape[2:]
        if height % 4 or width % 4 or min(height, width) < 8:
            raise ValueError(
                f"CartoonGAN halves the image twice: expected sides divisible by 4 and at least 8, got {height}x{width}; "
                "resize, or pad by reflection and crop the result"
            )


def cartoongan(checkpoint: str | Path | None = None, **config: int) -> CartoonGANGenerator:
    """A CartoonGAN generator; with a checkpoint (``.npz``, safetensors or torch), the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return CartoonGANGenerator(**config)
    tensors = load_tensors(checkpoint, forms=(("conv01_1.weight", "deconv03_1.weight"),), entries=("state_dict", "G"))
    found = {"repeat_num": sum(re.fullmatch(r"conv(0[4-9]|[1-9]\d)_1\.weight", key) is not None for key in tensors)}
    first = tensors.get("conv01_1.weight")
    if first is not None and first.ndim == 4:
        found["conv_dim"] = first.shape[0]
    network = CartoonGANGenerator(**{**found, **config})
    load_state(network, tensors, source=str(checkpoint))
    return network
