"""Forward and reverse steps of denoising diffusion probabilistic models (Ho et al., NeurIPS 2020), and their noise.

With the learned variances and the respaced schedule of improved DDPM (Nichol and Dhariwal, ICML 2021). Written from the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TRAINED = 1000
"""Number of time steps that the networks were trained with."""


class Diffusion:
    """x_t from an image (t = 0) to noise (t = steps - 1), on `steps` of the 1000 time steps of training, evenly spaced.

    The full schedule has linear betas from 1e-4 to 0.02. All images of a batch are at the same time step, so coefficients are scalars.
    """

    def __init__(self, steps: int = TRAINED) -> None:
        if not 2 <= steps <= TRAINED:
            raise ValueError(f"expected 2 to {TRAINED} steps, got {steps}")
        stride = (TRAINED - 1) / (steps - 1)
        self.timesteps = [round(k * stride) for k in range(steps)]  # the network's time input
        full = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TRAINED, dtype=torch.float64), dim=0)
        self.alphas_cumprod = full[self.timesteps]
        self.alphas_cumprod_before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.betas = 1 - self.alphas_cumprod / self.alphas_cumprod_before
        self.steps = steps

    def noised(self, images: Tensor, t: int, noise: Tensor) -> Tensor:
        """q(x_t | x_0), DDPM's Eq. 4."""
        kept = self.alphas_cumprod[t].item()
        return math.sqrt(kept) * images + math.sqrt(1 - kept) * noise

    def forward_step(self, x: Tensor, t: int, noise: Tensor) -> Tensor:
        """q(x_t | x_{t-1}), DDPM's Eq. 2."""
        beta = self.betas[t].item()
        return math.sqrt(1 - beta) * x + math.sqrt(beta) * noise

    def reverse_step(self, x: Tensor, t: int, output: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """p(x_{t-1} | x_t) from the network's 6-channel output: the sample, and the predicted x_0, clipped to [-1, 1].

        Mean: DDPM's Eq. 7. Variance: improved DDPM's Eq. 15, between the posterior's and beta, in logarithms. At t = 0 no noise is added.
        """
        eps, position = output.chunk(2, dim=1)
        kept, before, beta = (values[t].item() for values in (self.alphas_cumprod, self.alphas_cumprod_before, self.betas))
        image = (math.sqrt(1 / kept) * x - math.sqrt(1 / kept - 1) * eps).clamp(-1, 1)
        mean = (math.sqrt(before) * beta / (1 - kept)) * image + (math.sqrt(1 - beta) * (1 - before) / (1 - kept)) * x
        if t == 0:
            return mean, image
        share = (position + 1) / 2
        least = beta * (1 - before) / (1 - kept)
        log_variance = share * math.log(beta) + (1 - share) * math.log(least)
        return mean + (0.5 * log_variance).exp() * noise, image


class Noise:
    """Standard normal noise from one random stream per image, so that a result doesn't depend on the other images of the batch.

    Args:
        seed: one for all images, which then get the same noise, or one per image.
        like: the images (B, 3, H, W). The noise is drawn on the CPU, so that it is the same on every device.

    Raises:
        ValueError: another number of seeds than of images.
    """

    def __init__(self, seed: int | Sequence[int] | Tensor, like: Tensor) -> None:
        one = isinstance(seed, Integral) or (isinstance(seed, Tensor) and seed.ndim == 0)
        seeds = [int(seed)] if one else [int(s) for s in seed]
        if not one and len(seeds) != len(like):
            raise ValueError(f"expected one seed, or one for each of the {len(like)} images, got {len(seeds)}")
        self.streams = [torch.Generator().manual_seed(s) for s in seeds]
        self.like = like

    def __call__(self) -> Tensor:
        """The next noise, (B, 3, H, W)."""
        drawn = torch.stack([torch.randn(self.like.shape[1:], generator=stream) for stream in self.streams])
        return drawn.to(self.like.device, self.like.dtype).expand(self.like.shape)


def step_with_gradient(step: Callable[..., Tensor], *arguments: Tensor | int | None, wanted: bool) -> Tensor:
    """`step(*arguments)` with gradient checkpointing: only its inputs are stored, and the step is recomputed in the backward pass.

    A chain of steps thus needs the memory of one step plus the inputs of all. Nothing is stored if no gradient is `wanted`, or under
    `torch.no_grad()`.
    """
    if not torch.is_grad_enabled():
        return step(*arguments)
    if not wanted:
        with torch.no_grad():
            return step(*arguments)
    return checkpoint(step, *arguments, use_reentrant=False)
