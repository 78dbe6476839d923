"""ILVR: conditioning method for denoising diffusion probabilistic models (Choi et al., ICCV 2021).

Official code: https://github.com/jychoi118/ilvr_adm (MIT), whose checkpoints are plain guided-diffusion UNets. Written from the paper and
the published key list, with the authors' state-dict keys: ``ffhq_10m.pt``, ``afhq_dog_4m.pt`` (Google Drive, linked from the repository).

Note:
    The paper's Algorithm 1 adds noise of level t - 1 to the reference, the authors' code noise of level t. The code was followed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from generators.diffusion_steps import Diffusion, Noise, step_with_gradient
from generators.guided_diffusion import FFHQ256, GuidedUNet, load_unet
from generators.images import check_input


class ILVRGenerator(GuidedUNet):
    """Samples another image with the low frequencies of image x: the reverse diffusion is conditioned on phi_N(x) down to time `range_t`.

    The forward pass is the UNet's; `manipulate` samples.

    Args:
        N: downsampling factor of phi_N; the smaller, the more of the image is preserved.
        steps: number of time steps, evenly spaced among the 1000 of training.
        range_t: step, counted from the end, at which the conditioning stops; None: a fifth of the steps (20 of 100 in the authors' command).
        seed: default seed of the noise.
        gradient_steps: number of last steps through which gradients are propagated; None: all. See the note.
        progress: show a progress bar.
        unet: arguments of `GuidedUNet`; by default those of the FFHQ network.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by N and by 32 (2^(levels - 1)) -> (B, 3, H, W) in [-1, 1]. Trained at 256.

    Note:
        The result is a function of image and seed. Unless one seed per image is given, all images get the same noise.

        If gradients are enabled, they are propagated through the whole chain, with the memory of about one step and two more evaluations per step.
        With `gradient_steps` they are propagated through the last steps only, which still reaches every weight; but the image enters at steps
        above `range_t` only, so with `gradient_steps` <= `range_t` + 1 it gets no gradient. For sampling alone use ``torch.no_grad()``. One
        evaluation of the FFHQ network takes about 4 s on a CPU core.
    """

    def __init__(
        self,
        *,
        N: int = 32,
        steps: int = 100,
        range_t: int | None = None,
        seed: int = 0,
        gradient_steps: int | None = None,
        progress: bool = True,
        **unet: Any,
    ) -> None:
        super().__init__(**{**FFHQ256, **unet})
        if N < 1:
            raise ValueError(f"N is the downsampling factor, 1 or more, got {N}")
        self.N, self.steps, self.range_t, self.seed = N, steps, range_t, seed
        self.gradient_steps, self.progress = gradient_steps, progress

    def manipulate(self, images: Tensor, target: Tensor | None = None, *, seed: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1], same size. `target` is ignored.

        Args:
            seed: one, or one per image. None: the constructor's.

        Raises:
            ValueError: other shapes, or another number of seeds.
        """
        check_input(images, "ILVR's network", divisor=self.divisor)
        check_input(images, f"ILVR at N = {self.N}", divisor=self.N)
        diffusion, noise = Diffusion(self.steps), Noise(self.seed if seed is None else seed, images)
        range_t = self.steps // 5 if self.range_t is None else self.range_t
        x = noise()
        for t in tqdm(range(self.steps - 1, -1, -1), desc="ILVR", leave=False, disable=not self.progress):
            drawn, reference_noise = noise(), noise() if t > range_t else None
            wanted = self.gradient_steps is None or t < self.gradient_steps
            x = step_with_gradient(self._step, diffusion, x, t, images, drawn, reference_noise, wanted=wanted)
        return x.clamp(-1, 1)

    def _step(self, diffusion: Diffusion, x: Tensor, t: int, reference: Tensor, noise: Tensor, reference_noise: Tensor | None) -> Tensor:
        output = self(x, torch.full((len(x),), diffusion.timesteps[t], device=x.device))
        x, _ = diffusion.reverse_step(x, t, output, noise)
        return x if reference_noise is None else refined(x, diffusion.noised(reference, t, reference_noise), self.N)


def refined(x: Tensor, reference: Tensor, N: int) -> Tensor:
    """x with the low frequencies of the reference: x - phi(x) + phi(reference), the last line of the paper's Algorithm 1."""
    return x + low_pass(reference - x, N)


def low_pass(images: Tensor, N: int) -> Tensor:
    """phi_N: downsampling by N and upsampling again. (B, C, H, W) -> the same, for sides divisible by N."""
    height, width = images.shape[2:]
    return bicubic(bicubic(images, (height // N, width // N)), (height, width))


def bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's imresize to (B, C, *size): cubic kernel with a = -1/2, antialiased; borders are mirrored."""
    rows, columns = (_resize_matrix(before, after).to(images) for before, after in zip(images.shape[2:], size))
    with torch.autocast(images.device.type, enabled=False):
        return rows @ images @ columns.T


@functools.lru_cache(maxsize=32)
def _resize_matrix(length: int, new_length: int) -> Tensor:
    """(new_length, length): each row has the weights of one output pixel."""
    stretch = max(1.0, length / new_length)
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) * length / new_length - 0.5
    reach = math.ceil(2 * stretch) + 1
    places = centres.floor()[:, None] + torch.arange(-reach, reach + 1)
    d = ((centres[:, None] - places) / stretch).abs()
    weights = torch.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, (-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2) * (d < 2))
    folded = places.long() % (2 * length)
    folded = torch.where(folded < length, folded, 2 * length - 1 - folded)
    return torch.zeros(new_length, length, dtype=torch.float64).scatter_add_(1, folded, weights / weights.sum(1, keepdim=True))


def ilvr(checkpoint: str | Path | None = None, **config: Any) -> ILVRGenerator:
    """An ILVR sampler; with a checkpoint, the UNet's arguments are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    return ILVRGenerator(**config) if checkpoint is None else load_unet(ILVRGenerator, checkpoint, config)
