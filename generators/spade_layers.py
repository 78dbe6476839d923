"""Layers shared by SPADE (Park et al., CVPR 2019) and SEAN (Zhu et al., CVPR 2020): the normalization, its residual block, spectral norm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 128
"""Channels of the hidden layer that predicts γ and β."""


class SPADE(nn.Module):
    """Spatially-adaptive normalization: norm(x) · (1 + γ(m)) + β(m), with γ and β predicted per pixel from the label map m (Eq. 1).

    Shape: x (B, C, h, w), label map (B, labels, H, W) -> (B, C, h, w).
    """

    def __init__(self, channels: int, labels: int, *, norm: str = "batch", kernel: int = 3) -> None:
        super().__init__()
        make = nn.InstanceNorm2d if norm == "instance" else nn.BatchNorm2d
        self.param_free_norm = make(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, HIDDEN, kernel, padding=kernel // 2), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(HIDDEN, channels, kernel, padding=kernel // 2)
        self.mlp_beta = nn.Conv2d(HIDDEN, channels, kernel, padding=kernel // 2)

    def modulation(self, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """γ and β, (B, C, h, w) each, for a label map already resized to (h, w)."""
        hidden = self.mlp_shared(semantics)
        return self.mlp_gamma(hidden), self.mlp_beta(hidden)

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        gamma, beta = self.modulation(F.interpolate(semantics, x.shape[2:]))
        return self.param_free_norm(x) * (1 + gamma) + beta


class SPADEBlock(nn.Module):
    """SPADE ResBlk (Figure 4): a residual block with SPADE before each convolution, and a learned shortcut where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int, labels: int, *, spectral: bool, norm: str, kernel: int) -> None:
        super().__init__()
        self.conv_0, self.conv_1, self.conv_s = block_convolutions(inputs, outputs, spectral=spectral)
        self.norm_0 = SPADE(inputs, labels, norm=norm, kernel=kernel)
        self.norm_1 = SPADE(min(inputs, outputs), labels, norm=norm, kernel=kernel)
        self.norm_s = None if self.conv_s is None else SPADE(inputs, labels, norm=norm, kernel=kernel)

    def forward(self, x: Tensor, semantics: Tensor) -> Tensor:
        shortcut = x if self.conv_s is None else self.conv_s(self.norm_s(x, semantics))
        x = self.conv_0(F.leaky_relu(self.norm_0(x, semantics), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, semantics), 0.2))


def block_convolutions(inputs: int, outputs: int, *, spectral: bool = True) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """The two convolutions of a residual block and that of its shortcut, which is None if the number of channels stays the same."""
    middle, wrap = min(inputs, outputs), spectral_norm if spectral else lambda conv: conv
    shortcut = None if inputs == outputs else wrap(nn.Conv2d(inputs, outputs, 1, bias=False))
    return wrap(nn.Conv2d(inputs, middle, 3, padding=1)), wrap(nn.Conv2d(middle, outputs, 3, padding=1)), shortcut


def spectral_norm(conv: nn.Conv2d, iterations: int = 5) -> nn.Module:
    """Spectral normalization with the keys of torch's older implementation: ``weight_orig``, ``weight_u``, ``weight_v``.

    torch initialises u and v at random and improves them during training only; here a few power iterations are run at construction, so that a fresh
    network is normalized as well.
    """
    conv = torch.nn.utils.spectral_norm(conv)
    with torch.no_grad():
        matrix = conv.weight_orig.flatten(1)
        for _ in range(iterations):
            conv.weight_v.copy_(F.normalize(matrix.T @ conv.weight_u, dim=0))
            conv.weight_u.copy_(F.normalize(matrix @ conv.weight_v, dim=0))
    conv.register_forward_hook(_detach_weight)
    return conv


def _detach_weight(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Detach the normalized weight: a module that references the last step's autograd graph can't be deep-copied."""
    conv.weight = conv.weight.detach()


def restore_spectral_norms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert spectral norms saved by torch 1.0, which stored the normalized ``weight`` instead of the vector v: v is chosen such that u · W v equals σ."""
    restored = dict(tensors)
    for key in [key for key in tensors if key.endswith(".weight_orig")]:
        normed, right, left = (key.removesuffix("weight_orig") + name for name in ("weight", "weight_v", "weight_u"))
        if normed in restored and left in restored and right not in restored:
            matrix, divided = restored[key].double().flatten(1), restored.pop(normed).double().flatten(1)
            direction = matrix.T @ restored[left].double()
            sigma = (matrix * divided).sum() / divided.square().sum()
            restored[right] = (direction * sigma / direction.square().sum()).float()  # u · W v = σ
    return restored


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2."""
    return F.interpolate(x, scale_factor=2)


def rgb_output(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """tanh(conv(leaky_relu(x))), in float32 also under autocast: rounding to bf16 would leave a pattern that a detector could learn."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.tanh(conv(F.leaky_relu(x.to(conv.weight.dtype), 0.2)))
