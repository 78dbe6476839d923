"""Interface of a generator's own losses, and safe calls of them: arguments are copied, and results are checked.

The losses are user code: one that augments ``batch.images`` in place must not change the images that MaLP and the curves get.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from malp_disc.import_object import users_line
from malp_disc.manipulate import describe
from malp_disc.runtime.copying import copy_module
from malp_disc.runtime.random_state import random_state_kept

if TYPE_CHECKING:
    from malp_disc.training.batches import Batch

Edit = Callable[..., Tensor]
"""(images, desired labels, current labels of these images) -> the generator's images, with gradients; see `malp_disc.manipulate.Editor`."""
AnyBatch = TypeVar("AnyBatch")
_RESERVED = ("keep", "keep_nyquist", "malp", "map", "branch_map", "realness", "edit_strength")
"""Names of other values of the generator update in the curves."""


class GeneratorObjective(Protocol):
    """A generator's own losses: an `nn.Module` with these two methods. Its parameters, such as those of a discriminator, are trained as well.

    Every part stays in the mode in which it is given: a discriminator in training mode, as new modules are, and a pretrained network that only measures a loss in
    evaluation mode, if it was put into it.
    """

    def generator_loss(self, fake: Tensor, batch: Batch, edit: Edit) -> Mapping[str, Tensor]:
        """Weighted loss terms for the generator. ``edit(images, desired, current)`` runs the generator once more, with gradients: images (B, 3, H, W), their desired
        labels and their current ones, (B, A) in {0, 1}. The current ones may be left out, unless the generator takes the change of the labels."""

    def __call__(self, fake: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Weighted loss terms for the module's own parameters (its ``forward``); `fake` is detached. Not called if there are none."""


class TermsError(ValueError):
    """The return value of the losses can't be used."""


def call_generator_loss(objective: nn.Module, fake: Tensor, batch: Any, edit: Edit) -> dict[str, Tensor]:
    """``objective.generator_loss(fake, batch, edit)`` on copies that keep gradients: weighted scalar terms for the generator, by name.

    Raises:
        TermsError: it doesn't return named scalar tensors.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled()):  # losses may call torch.set_grad_enabled themselves
        terms = objective.generator_loss(fake.clone(), copy_batch(batch), edit)
    terms = check_terms(terms, f"{type(objective).__name__}.generator_loss")
    if taken := [name for name in terms if name in _RESERVED]:
        raise TermsError(f"{type(objective).__name__}.generator_loss returns a term named {taken[0]!r}, a name that the recipe uses itself; choose another name")
    return terms


def call_discriminator_loss(network: nn.Module, fake: Tensor, batch: Any) -> dict[str, Tensor]:
    """``network(fake, batch)`` on copies, with `fake` detached: weighted scalar terms for the objective's own parameters, by name.

    Args:
        network: the objective, possibly wrapped by DistributedDataParallel.

    Raises:
        TermsError: it doesn't return named scalar tensors.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        terms = network(fake.detach().clone(), copy_batch(batch))
    return check_terms(terms, f"{type(getattr(network, 'module', network)).__name__}.forward")


def check_losses(objective: Any, batch: Any, edit: Edit, *, source: str) -> nn.Module:
    """Run both losses once on `batch`, before any long work; returns an unchanged copy of the objective.

    Args:
        edit: runs the generator once more, such as `malp_disc.manipulate.Editor`.
        source: name of the losses in messages.

    Raises:
        ValueError: it isn't such a module, can't be copied, fails, or its terms have no gradient or aren't finite.
    """
    if not isinstance(objective, nn.Module) or not callable(getattr(objective, "generator_loss", None)):
        raise ValueError(f"{source}: got a {type(objective).__name__}; expected an nn.Module with generator_loss(fake, batch, edit)")
    copied = copy_module(objective, source).to(batch.images.device)
    with random_state_kept(batch.images.device), torch.enable_grad():
        fake = batch.images.clone().requires_grad_(True)
        total = _tried(lambda: call_generator_loss(copied, fake, batch, edit), f"{source}: generator_loss")
        if not total.isfinite().all():  # perhaps because these images are unchanged
            fake = edit(batch.images, batch.target, batch.labels).detach().float().requires_grad_(True)
            total = _finite(lambda: call_generator_loss(copied, fake, batch, edit), f"{source}: generator_loss")
        if not total.requires_grad:
            raise ValueError(f"{source}: the terms of generator_loss have no gradient; compute them from `fake`, without detach, no_grad or .item()")
        if any(p.requires_grad for p in copied.parameters()):
            total = _finite(lambda: call_discriminator_loss(copied, fake, batch), f"{source}: forward")
            if not total.requires_grad:
                raise ValueError(f"{source}: the terms of forward have no gradient, but the module has trainable parameters; freeze them with requires_grad_(False)")
    return copy_module(objective, source)


def _tried(run: Callable[[], dict[str, Tensor]], what: str) -> Tensor:
    """The sum of the terms. Raises ValueError with the file and line of a failure."""
    try:
        return sum(run().values())
    except TermsError:
        raise
    except NotImplementedError as error:
        raise ValueError(f"{what} is missing, but the module has trainable parameters: define forward(fake, batch), or freeze them") from error
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise ValueError(f"{what} failed: {type(error).__name__}: {error}{users_line(error)}") from error


def _finite(run: Callable[[], dict[str, Tensor]], what: str) -> Tensor:
    """`_tried`, and a ValueError for terms that aren't finite."""
    terms: dict[str, Tensor] = {}
    total = _tried(lambda: terms.update(run()) or terms, what)
    if broken := [f"{name!r} is {float(value.detach())}" for name, value in terms.items() if not value.isfinite().all()]:
        raise ValueError(f"{what}: {', '.join(broken)} for the first images and what the generator makes of them; is there a division by 0, or the logarithm of it?")
    return total


def copy_batch(batch: AnyBatch) -> AnyBatch:
    """A batch with copies of its tensors; its random number generator is shared, not copied."""
    copied = copy.copy(batch)
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            setattr(copied, name, value.clone())
    return copied


def check_terms(terms: Any, source: str) -> dict[str, Tensor]:
    """The terms as a dict.

    Raises:
        TermsError: not a mapping from names to floating-point tensors of one value each, or an empty one.
    """
    expected = "expected a dict of weighted scalar tensors by name, as {'adversarial': loss}"
    if not isinstance(terms, Mapping) or not terms:
        raise TermsError(f"{source} returns {'an empty dict' if isinstance(terms, Mapping) else describe(terms)}; {expected}")
    for name, value in terms.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TermsError(f"{source} returns {describe(value)} as {name!r}; {expected} (no .item(): gradients have to pass)")
        if value.numel() != 1:
            raise TermsError(f"{source} returns {describe(value)} as {name!r}; {expected}: take its .mean()")
    return {str(name): value for name, value in terms.items()}
