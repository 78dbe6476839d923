"""RePaint: inpainting using denoising diffusion probabilistic models (Lugmayr et al., CVPR 2022).

Official code: https://github.com/andreas128/RePaint (CC BY-NC-SA 4.0: no commercial use; no separate licence for the checkpoints, which
``download.sh`` fetches). Written from the paper and a description, without that code, with the state-dict keys of a guided-diffusion UNet.

Note:
    The paper's Algorithm 1 inserts the known pixels, with noise of level t - 1, into the result of every reverse step; the authors' script inserts
    them, with noise of level t, into the input of the step, and therefore not into that of the first one. The script was followed. It returns
    the last sample, whose known pixels are close to the given ones; here they are restored exactly unless `paste` is False.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from generators.diffusion_steps import Diffusion, Noise, step_with_gradient
from generators.guided_diffusion import CELEBA256, GuidedUNet, load_unet
from generators.images import check_input


class RePaintGenerator(GuidedUNet):
    """Inpaints image x where the mask is 0.

    The forward pass is the UNet's; `manipulate` samples.

    Args:
        steps: number of time steps, evenly spaced among the 1000 of training.
        jump_length, jump_n_sample: the paper's j, by how many steps the sampling jumps back, and r, how often every interval is traversed.
            The defaults are the paper's and take 2410 network evaluations; ``jump_n_sample=1`` takes `steps`.
        start_resampling: largest time step that a jump may lead to; None: no limit.
        seed: default seed of the noise.
        paste: restore the known pixels exactly.
        gradient_steps: number of last network evaluations through which gradients are propagated; None: all. See the note.
        progress: show a progress bar.
        unet: arguments of `GuidedUNet`; by default those of the CelebA-HQ network.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by 32 (2^(levels - 1)), target (B, 1, H, W) -> (B, 3, H, W) in [-1, 1].
        Trained at 256.

    Note:
        The result is a function of image, mask and seed. Unless one seed per image is given, all images get the same noise.

        If gradients are enabled, they are propagated through the whole chain, to every weight and to the known pixels, with the memory of about one
        evaluation plus a few images per step, and two more evaluations per step. With `gradient_steps` they are propagated through the last
        evaluations only (and, through `paste`, to the known pixels). For sampling alone use ``torch.no_grad()``. One evaluation of the CelebA-HQ
        network takes about 16 s on a CPU core, the paper's schedule therefore 11 hours per image.
    """

    target_kind = "none"  # a mask can't be made from labels: the commands take its default

    def __init__(
        self,
        *,
        steps: int = 250,
        jump_length: int = 10,
        jump_n_sample: int = 10,
        start_resampling: int | None = None,
        seed: int = 0,
        paste: bool = True,
        gradient_steps: int | None = None,
        progress: bool = True,
        **unet: Any,
    ) -> None:
        super().__init__(**{**CELEBA256, **unet})
        self.steps, self.jump_length, self.jump_n_sample, self.start_resampling = steps, jump_length, jump_n_sample, start_resampling
        self.seed, self.paste, self.gradient_steps, self.progress = seed, paste, gradient_steps, progress

    def manipulate(self, images: Tensor, target: Tensor | None = None, *, seed: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Common interface of all generators: images in [-1, 1] -> images in [-1, 1], same size.

        Args:
            target: the mask (B, 1, H, W): 1 where the image is known and kept, 0 where it is inpainted, as in the authors' mask files.
                None: the centre square, of half the side lengths, is inpainted.
            seed: one, or one per image. None: the constructor's.

        Raises:
            ValueError: other shapes, a mask outside [0, 1], or another number of seeds.
        """
        check_input(images, "RePaint", divisor=self.divisor)
        mask = centre_square(images) if target is None else _checked(target, images)
        diffusion, noise = Diffusion(self.steps), Noise(self.seed if seed is None else seed, images)
        start = math.inf if self.start_resampling is None else self.start_resampling
        times = jump_schedule(self.steps, jumps=((self.jump_length, self.jump_n_sample),), start=start)
        left = sum(after < before for before, after in itertools.pairwise(times))  # network evaluations
        x, first = noise(), True
        for before, after in itertools.pairwise(tqdm(times, desc="RePaint", leave=False, disable=not self.progress)):
            if after > before:
                x = diffusion.forward_step(x, after, noise())
                continue
            drawn, known_noise = noise(), None if first else noise()
            wanted = self.gradient_steps is None or left <= self.gradient_steps
            x = step_with_gradient(self._step, diffusion, x, before, images, mask, drawn, known_noise, wanted=wanted)
            first, left = False, left - 1
        x = x.clamp(-1, 1)
        return mask * images + (1 - mask) * x if self.paste else x

    def _step(
        self, diffusion: Diffusion, x: Tensor, t: int, images: Tensor, mask: Tensor, noise: Tensor, known_noise: Tensor | None
    ) -> Tensor:
        if known_noise is not None:
            x = with_known(x, mask, diffusion.noised(images, t, known_noise))
        output = self(x, torch.full((len(x),), diffusion.timesteps[t], device=x.device))
        return diffusion.reverse_step(x, t, output, noise)[0]


def with_known(x: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Insert the known pixels into x (Eq. 8c)."""
    return mask * known + (1 - mask) * x


def centre_square(images: Tensor) -> Tensor:
    """Mask (B, 1, H, W): 0 in the centre, of half the height and width, 1 elsewhere."""
    mask = images.new_ones(len(images), 1, *images.shape[2:])
    height, width = images.shape[2:]
    mask[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = 0
    return mask


def _checked(mask: Tensor, images: Tensor) -> Tensor:
    expected = (len(images), 1, *images.shape[2:])
    if mask.shape != expected:
        raise ValueError(f"expected a mask {expected}, 1 where the image is kept, got {tuple(mask.shape)}")
    mask = mask.to(images)
    low, high = (value.item() for value in mask.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected a mask in [0, 1], 1 where the image is kept, got min {low:g} max {high:g}")
    return mask


def jump_schedule(steps: int, *, n_sample: int = 1, jumps: Sequence[tuple[int, int]] = ((10, 10),), start: float = math.inf) -> list[int]:
    """RePaint's sequence of time steps, from steps - 1 to -1: a decrement is a reverse step, an increment a forward (noising) step.

    Args:
        n_sample: how often every single step is traversed.
        jumps: (length, how often every interval is traversed), from the outermost to the innermost; after a jump the inner ones start again.
        start: largest time step that a jump may lead to.
    """
    if any(length < 1 or uses < 1 for length, uses in jumps):
        raise ValueError(f"jumps are of 1 step and more, and a stretch is walked once or more, got (length, times) {tuple(jumps)}")
    fresh = [{t: uses - 1 for t in range(0, steps - length, length)} for length, uses in jumps]
    left = [dict(level) for level in fresh]
    times, t = [], steps
    while t >= 1:
        t -= 1
        times.append(t)
        if t + 1 < steps - 1 and t <= start:
            times += (n_sample - 1) * [t + 1, t]
        for level in reversed(range(len(jumps))):
            length = jumps[level][0]
            if left[level].get(t, 0) > 0 and t <= start - length:
                left[level][t] -= 1
                times += range(t + 1, t + length + 1)
                t += length
                left[level + 1 :] = [dict(inner) for inner in fresh[level + 1 :]]
    return [*times, -1]


def repaint(checkpoint: str | Path | None = None, **config: Any) -> RePaintGenerator:
    """A RePaint sampler; with a checkpoint, the UNet's arguments are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    return RePaintGenerator(**config) if checkpoint is None else load_unet(RePaintGenerator, checkpoint, config)
