"""Templates made by adversarial attacks instead of learning (paper, section 4.5 and Table 7): FGSM, PGD and CW.

The paper says that these attacks "guide the learning of the added template", and nothing about loss, network or budget. Here an attack looks for *one* template
for all images, (S, S) and added to every channel as MaLP's are, that lowers J_L of Eq. 8 for a given localizer; it then stays fixed while MaLP is trained as
usual. So all rows of Table 7 have the same networks, losses and steps, and differ in the template alone. `recipes/research/attack_templates.py` does both.

An attack sees nothing but a function ``loss(template, step)``, whose minibatch `step` selects. Templates are in units of images in [-1, 1]: ε = 8/255 of the
literature, whose images are in [0, 1], is 16/255 here. A template with ±ε everywhere has PSNR 20 log10(2 / ε), 30.1 dB for 16/255; MaLP's own
templates are limited to 30 dB by default.

Note:
    torchattacks and similar libraries attack a classifier's cross-entropy, one perturbation per image; a common template with a loss of its own isn't
    offered, so the three updates are written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from malp_disc.metrics.psnr import psnr_of_error

Loss = Callable[[Tensor, int], Tensor]
"""(template (S, S), step) -> scalar to minimise, differentiable in the template."""

EPSILON = 16 / 255  # 8/255 for images in [0, 1], the usual budget for ImageNet
PGD_STEP = 4 / 255  # 2/255 for images in [0, 1] (Madry et al., ICLR 2018)
PGD_STEPS = 40  # as for MNIST there; CIFAR-10 has 7 to 20 per image, but here one template serves all
CW_STEPS, CW_RATE = 200, 0.01  # Adam's learning rate of Carlini and Wagner's code; their 1000 steps and more are for one image


def fgsm(loss: Loss, side: int, *, epsilon: float = EPSILON, batches: int = 1) -> Tensor:
    """FGSM (Goodfellow et al., ICLR 2015): one step of size ε from no template, δ = -ε sign ∇J(0); (side, side).

    Args:
        batches: ∇J is the mean over the minibatches 0 … batches - 1.

    Raises:
        ValueError: an ε outside (0, 2], no batch, or a gradient that isn't finite.
    """
    _check(epsilon, batches=batches)
    start = torch.zeros(side, side)
    return -epsilon * torch.stack([_gradient(loss, start, step) for step in range(batches)]).mean(0).sign()


def pgd(loss: Loss, side: int, *, epsilon: float = EPSILON, step_size: float = PGD_STEP, steps: int = PGD_STEPS, seed: int = 0) -> Tensor:
    """PGD (Madry et al., ICLR 2018): from a uniform random start, δ ← clip(δ - α sign ∇J(δ), -ε, ε); (side, side).

    Raises:
        ValueError: an ε outside (0, 2], a step size or number of steps not above 0, or a gradient that isn't finite.
    """
    _check(epsilon, steps=steps, step_size=step_size)
    template = (2 * torch.rand(side, side, generator=torch.Generator().manual_seed(seed)) - 1) * epsilon
    for step in range(steps):
        template = (template - step_size * _gradient(loss, template, step).sign()).clamp(-epsilon, epsilon)
    return template


def cw(
    loss: Loss,
    side: int,
    *,
    c: float = 1.0,
    bound: float = 2 * EPSILON,
    steps: int = CW_STEPS,
    rate: float = CW_RATE,
    psnr: float | None = None,
    seed: int = 0,
) -> Tensor:
    """CW-L2 (Carlini and Wagner, S&P 2017): minimise mean δ² / bound² + c·J(δ) by Adam over w, δ = bound · tanh w; (side, side).

    In the attack on an image, tanh keeps the sum of image and perturbation within the image range. A template has no image of its own, so here it keeps
    |δ| below `bound`. The penalty replaces the budget of FGSM and PGD; `psnr` makes the strengths equal.

    Args:
        c: weight of the loss. The binary search for the least one that fools a classifier has no counterpart, since a map isn't fooled or not.
        psnr: scale the result to this PSNR in dB, as far as `bound` allows; None leaves it.

    Raises:
        ValueError: a bound outside (0, 2], other numbers not above 0, or a gradient that isn't finite.
    """
    _check(bound, steps=steps, c=c, rate=rate)
    w = (
        0.01 * torch.randn(side, side, generator=torch.Generator().manual_seed(seed))
    ).requires_grad_()  # at 0, tanh would give the penalty no direction
    adam = torch.optim.Adam([w], lr=rate)
    for step in range(steps):
        template = bound * torch.tanh(w.detach())
        gradient = c * _gradient(loss, template, step) + 2 * template / (template.numel() * bound**2)
        w.grad = gradient * (bound * (1 - torch.tanh(w.detach()).square()))  # dδ/dw
        adam.step()
    template = bound * torch.tanh(w.detach())
    return template if psnr is None else scaled_to(template, psnr).clamp(-bound, bound)


def scaled_to(template: Tensor, psnr: float) -> Tensor:
    """The template times the factor with which images plus template have this PSNR, in dB and before clamping to [-1, 1]; zeros stay zeros."""
    deviation = template.square().mean().sqrt()
    return template * (2 * 10 ** (-psnr / 20) / deviation.clamp(min=1e-12))


def psnr_of(template: Tensor) -> float:
    """PSNR of images plus template, in dB and before clamping to [-1, 1]; infinite for zeros."""
    return psnr_of_error(template.square().mean().double()).item()


def _gradient(loss: Loss, template: Tensor, step: int) -> Tensor:
    """∇J at `template`, on the CPU."""
    with torch.enable_grad():
        variable = template.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(variable, step), variable)
    if not gradient.isfinite().all():
        raise ValueError(f"the gradient of the loss isn't finite in step {step}; check the localizer's and the generator's outputs")
    return gradient


def _check(limit: float, **positive: float) -> None:
    if not 0 < limit <= 2:
        raise ValueError(f"expected a largest change in (0, 2], the width of the image range, got {limit}")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"expected {name.replace('_', ' ')} above 0, got {value}")
