"""A chain of degradations, as an image meets them between its publication and its analysis: resized and back, blurred or noisy, then compressed.

    chain = DegradationChain.seeded(seed=0, step=12, image=3)
    seen = chain(images)                          # exact: Pillow's own JPEG and WebP, 8 bits after every stage
    seen = straight_through(images, chain)        # the same values; the gradient is that of the identity

JPEG and WebP aren't differentiable. Differentiable approximations of JPEG differ from the decoder that people use; here the forward pass is exact, and the backward
pass ignores the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from malp_disc.degradations import gaussian_blur, gaussian_noise, jpeg, resized_and_back, to_8bit, webp

_STAGES: dict[str, Callable[..., Tensor]] = {
    "resize": resized_and_back,
    "blur": gaussian_blur,
    "noise": gaussian_noise,
    "jpeg": jpeg,
    "webp": webp,
}
DRAWS = 8
"""Random numbers that determine a chain."""


@dataclass(frozen=True)
class DegradationChain:
    """Stages (name, level) in the order in which they are applied; none only rounds to 8 bits.

    Attributes:
        stages: names out of resize (scale), blur (σ in pixels), noise (σ in grey levels), jpeg and webp (quality).
        noise_seed: seed of the noise.
    """

    stages: tuple[tuple[str, float], ...] = ()
    noise_seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [name for name, _ in self.stages if name not in _STAGES]:
            raise ValueError(f"expected stages out of {' '.join(_STAGES)}, got {' '.join(unknown)}")

    @classmethod
    def from_draws(cls, draws: Sequence[float]) -> DegradationChain:
        """A random moderate chain: a resize by 0.45 … 2 and back (in every second chain, every third of them to less than 0.6), blur up to σ 1.2 or noise up to 6 grey
        levels (in every second), and JPEG 45 … 95 or WebP 60 … 95 (in three of four). Each may be missing, all of them in one chain of sixteen.

        Args:
            draws: `DRAWS` numbers in [0, 1).

        Raises:
            ValueError: another count.
        """
        if len(draws) != DRAWS:
            raise ValueError(f"expected {DRAWS} numbers in [0, 1), got {len(draws)}")
        stages: list[tuple[str, float]] = []
        if draws[0] < 0.5:
            stages.append(("resize", 0.45 * (2 / 0.45) ** (draws[1] ** 1.5)))
        if draws[2] < 0.5:
            stages.append(("blur", 1.2 * draws[3]) if draws[2] < 0.25 else ("noise", 6 * draws[3]))
        if draws[4] < 0.75:
            stages.append(("jpeg", 45 + round(50 * draws[5])) if draws[6] < 2 / 3 else ("webp", 60 + round(35 * draws[5])))
        return cls(tuple(stages), int(draws[7] * 2**31))

    @classmethod
    def seeded(cls, seed: int, step: int, image: int) -> DegradationChain:
        """The random chain of `from_draws` for this image of this step: a function of the three numbers."""
        return cls.from_draws(np.random.default_rng([seed, step, image]).random(DRAWS).tolist())

    def __call__(self, images: Tensor) -> Tensor:
        """The degraded images, (B, 3, H, W) in [-1, 1], rounded to 8 bits.

        Raises:
            ValueError: as the stages' functions in `malp_disc.degradations`.
        """
        images = to_8bit(images)
        for name, level in self.stages:
            arguments = (level, torch.Generator(images.device).manual_seed(self.noise_seed)) if name == "noise" else (level,)
            images = _STAGES[name](images, *arguments)
        return images

    def __str__(self) -> str:
        return " + ".join(f"{name} {level:.3g}" for name, level in self.stages) or "8 bits"


def straight_through(images: Tensor, change: Callable[[Tensor], Tensor] | None) -> Tensor:
    """The values of `change(images)` with the gradient of the identity; the images themselves if `change` is None."""
    return images if change is None else images + (change(images.detach()) - images).detach()
