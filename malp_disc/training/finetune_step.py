"""The updates of one fine-tuning step (Eq. 12): the generator's own discriminator, the generator, MaLP. Each is a method that can be called alone.

Every update of a step uses the same micro-batches, so accumulated gradients are those of one large batch:

    batches = step.present(batches)                          # encrypted where MaLP takes part
    fakes = step.generate(batches, keep_graph=True)          # None where an image isn't finite
    step.update_discriminator(1, batches, fakes)
    terms, fakes, known = step.update_generator(1, batches, fakes, malp_weight=1.0)
    step.update_malp(1, batches, fakes, known)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from malp_disc.backbones import near_nyquist
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.distributed import mean_over_processes, mean_values_over_processes
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.generator_terms import GeneratorLosses
from malp_disc.malp import MaLP
from malp_disc.manipulate import Editor, call_manipulate
from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.runtime.input_checks import TOLERATED, check_images, without_value_checks
from malp_disc.training.batches import Batch, mean_terms, micro_batches
from malp_disc.training.diff_augment import NUMBERS, augment
from malp_disc.training.gradient_balance import GradientBalance
from malp_disc.training.guards import FiniteSteps, gradient_norm
from malp_disc.training.options import FinetuneOptions

NAMES = {"G": "the generator", "D": "the generator's own discriminator", "MaLP": "MaLP"}


@dataclass
class Networks:
    """The networks of one arm.

    Attributes:
        editor: the generator that is tuned, as a module whose forward pass is `manipulate`.
        before: the generator before fine-tuning, frozen.
        objective: the generator's own losses, perhaps with a trainable discriminator (`GeneratorObjective`), or None.
        malp: the discriminator, frozen or co-trained, or None.
        trained: the networks with an optimizer, by "G", "D", "MaLP".
        wrapped: the same after `Accelerator.prepare`; `trained` itself until then.
    """

    editor: Editor
    before: nn.Module
    objective: nn.Module | None
    malp: MaLPDiscriminator | None
    trained: dict[str, nn.Module] = field(init=False)
    wrapped: dict[str, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = {"G": self.editor}
        if self.objective is not None and any(p.requires_grad for p in self.objective.parameters()):
            self.trained["D"] = self.objective
        if self.malp is not None and self.malp.trainable:
            self.trained["MaLP"] = self.malp
        self.wrapped = dict(self.trained)


class FinetuneStep:
    """The updates of a step, for the networks of one arm.

    Args:
        optimizers: of ``networks.trained``, by the same names.
        guard: counts the steps that were skipped because a gradient wasn't finite.
        balance: sets MaLP's weight by the gradient norms; None for a fixed weight.
    """

    def __init__(
        self,
        networks: Networks,
        optimizers: Mapping[str, torch.optim.Optimizer],
        config: FinetuneOptions,
        accelerator: Accelerator,
        *,
        guard: FiniteSteps,
        balance: GradientBalance | None = None,
    ) -> None:
        self.networks, self.optimizers, self.config, self.accelerator = networks, optimizers, config, accelerator
        self.guard, self.balance = guard, balance

    def present(self, batches: Sequence[Batch], *, encrypted: bool = True) -> list[Batch]:
        """The micro-batches with the images that G gets, `shown`: encrypted ones in the arms with MaLP."""
        malp = self.networks.malp
        presented = []
        for batch in batches:
            # Every arm draws the same numbers, so that all later random numbers are shared by the arms.
            chance, drawn = batch.noise.uniform(), batch.noise.integers(malp.malp.encryption.set_size if malp is not None else 1)
            shown, index, numbers = batch.images, None, batch.noise.uniform(NUMBERS)
            if malp is not None and encrypted:
                with without_value_checks():  # the loader has looked at the images
                    shown, index = malp.encrypt(batch.images, torch.where(chance < malp.template_dropout, NO_TEMPLATE, drawn))
                shown = shown.detach()
            presented.append(dataclasses.replace(batch, shown=shown, index=index, numbers=numbers))
        return presented

    def edit(self, images: Tensor, desired: Tensor, current: Tensor | None = None) -> Tensor:
        """G(images) with gradients, through the wrapper that synchronises them between processes; labels as in `Editor`."""
        with self.accelerator.autocast():
            return self.networks.wrapped["G"](images, desired, current)

    def generate(self, batches: Sequence[Batch], *, keep_graph: bool) -> list[Tensor] | None:
        """G's images of every micro-batch, for all updates of the step; None if a value isn't finite in any process.

        Later updates needn't look at their values again.

        Args:
            keep_graph: with a single micro-batch, keep the graph for the generator update, which saves a forward pass. With several, the generator
                update computes them again, so that memory doesn't grow with their number.

        Raises:
            ValueError: images on another scale than [-1, 1], in the arms with MaLP.
        """
        fakes = []
        for batch in batches:
            if keep_graph and len(batches) == 1:
                fakes.append(self.edit(batch.shown, batch.target, batch.labels))
            else:
                with torch.no_grad(), self.accelerator.autocast():
                    fakes.append(self.networks.editor(batch.shown, batch.target, batch.labels))
        extremes = torch.stack([fake.detach().float().abs().amax() for fake in fakes])
        broken, too_large = mean_over_processes(torch.stack([~extremes.isfinite().all(), extremes.amax() > TOLERATED]).float()).tolist()
        if broken:
            return None
        if too_large and self.networks.malp is not None:
            for fake in fakes:
                check_images(fake, "fake")
        return fakes

    def update_discriminator(self, step: int, batches: Sequence[Batch], fakes: Sequence[Tensor]) -> dict[str, Tensor]:
        """One update of the generator's own discriminator; returns the mean terms of its loss."""
        collected = []
        for batch, fake in zip(micro_batches(self.accelerator, batches, self.networks.wrapped["D"]), fakes):
            with self.accelerator.autocast():
                terms = call_discriminator_loss(self.networks.wrapped["D"], fake, batch)
            self.accelerator.backward(sum(terms.values()) / len(batches))
            collected.append(terms)
        return self._finish(step, "D", mean_terms("D", collected))

    def update_generator(
        self, step: int, batches: Sequence[Batch], fakes: Sequence[Tensor], *, malp_weight: float, measure_balance: bool = False
    ) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Any]]:
        """One update of the generator: its own losses, and `malp_weight` times MaLP's loss on it.

        Returns the mean terms; G's images from before the update, detached, on which MaLP is updated; and what is known of them for that, `features` by MaLP's frozen
        backbone and the map by E_C, where it is the same. This is kept for a single micro-batch only, so that memory doesn't grow with the number of micro-batches.
        """
        collected, detached, known = [], [], {}
        with gradients_to_inputs_only(self.networks.objective):
            for batch, fake in zip(micro_batches(self.accelerator, batches, self.networks.wrapped["G"]), fakes):
                fake = fake if fake.requires_grad else self.edit(batch.shown, batch.target, batch.labels)
                terms, fooling = self._generator_losses(fake, batch, keep_map=len(batches) == 1)
                total = sum(terms.values())
                if measure_balance:
                    self.balance.measure(total, fooling.total)
                self.accelerator.backward((total + malp_weight * fooling.total if fooling is not None else total) / len(batches))
                if fooling is not None:
                    known = {"features": fooling.features, "known_map": fooling.known_map} if len(batches) == 1 else {}
                    terms |= {"malp": fooling.total} | {name: getattr(fooling, name) for name in self.networks.malp.watched_terms}
                detached.append(fake.detach())
                collected.append(terms | {"edit_strength": (detached[-1] - batch.images).abs().mean()})
        terms = self._finish(step, "G", mean_terms("G", collected))
        if measure_balance:
            self.balance.update()
        return terms, detached, known

    def update_malp(
        self, step: int, batches: Sequence[Batch], fakes: Sequence[Tensor], known: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """One update of a co-trained MaLP (Eq. 11) on the images, their encrypted versions, G's images, and images of its target domain where there are some.

        `known` is that of `update_generator`, which saves passes of `fakes` through the backbone and E_C. Returns the mean terms of its loss.
        """
        collected = []
        for batch, fake in zip(micro_batches(self.accelerator, batches, self.networks.wrapped["MaLP"]), fakes):
            seen = [augment(images, batch.numbers, self.config.augmentation) for images in (batch.images, batch.shown, fake.detach())]
            real = None if batch.reference is None else augment(batch.reference, batch.numbers, self.config.augmentation)
            with without_value_checks():
                losses = self.networks.wrapped["MaLP"](*seen, batch.index, real=real, labels=batch.labels, target=batch.target, **(known or {}))
            self.accelerator.backward(losses.total / len(batches))
            collected.append({name: getattr(losses, name) for name in ("total", "localization", "penalty", "realness")})
        return self._finish(step, "MaLP", mean_terms("MaLP", collected))

    def calibrate(self, batches: Sequence[Batch], fakes: Sequence[Tensor]) -> dict[str, float]:
        """Before the first update, set the scale and the weight of MaLP's loss on G. Returns the initial values for the training monitor.

        ``edit_strength`` is mean |x - G(x)|, ``map`` the mean square of MaLP's map of G's images.
        """
        strength = torch.stack([(fake.detach() - batch.images).abs().mean() for batch, fake in zip(batches, fakes)]).mean()
        start = {"edit_strength": float(mean_over_processes(strength))}
        if self.networks.malp is not None:
            seen = [augment(fake.detach(), batch.numbers, self.config.augmentation) for batch, fake in zip(batches, fakes)]
            values = self.networks.malp.calibrate((fake, batch.index, batch.target) for batch, fake in zip(batches, seen))
            if self.networks.malp.uses_cnn:
                start["map"] = float(values.map)
        if self.balance is not None:
            with gradients_to_inputs_only(self.networks.objective):
                for batch, fake in zip(micro_batches(self.accelerator, batches, self.networks.wrapped["G"]), fakes):
                    fake = fake if fake.requires_grad else self.edit(batch.shown, batch.target, batch.labels)
                    terms, fooling = self._generator_losses(fake, batch)
                    self.balance.measure(sum(terms.values()), fooling.total)
            self.balance.update()
        return start

    def _generator_losses(self, fake: Tensor, batch: Batch, *, keep_map: bool = False) -> tuple[dict[str, Tensor], GeneratorLosses | None]:
        """The weighted terms of the generator's own losses, and MaLP's losses on it (None without MaLP)."""
        terms: dict[str, Tensor] = {}
        if self.networks.objective is not None:
            with self.accelerator.autocast():
                terms |= call_generator_loss(self.networks.objective, fake, batch, self.edit)
        if self.config.keep_weight or self.config.keep_nyquist_weight or self.networks.objective is None:
            with torch.no_grad(), self.accelerator.autocast():
                kept = call_manipulate(self.networks.before.manipulate, batch.shown, batch.target, current=batch.labels)
            terms["keep"] = self.config.keep_weight * (fake - kept).abs().mean()
            if self.config.keep_nyquist_weight:
                terms["keep_nyquist"] = self.config.keep_nyquist_weight * near_nyquist(fake - kept)
        malp = self.networks.malp
        if malp is None:
            return terms, None
        seen = augment(fake, batch.numbers, self.config.augmentation)
        with without_value_checks():  # `generate` has looked at them
            return terms, malp.generator_loss(seen, batch.index, batch.target, keep_map=keep_map)

    def _finish(self, step: int, name: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clip the gradient and take the optimizer's step, unless the gradient isn't finite; returns `terms` unchanged."""
        accelerator, optimizer, network = self.accelerator, self.optimizers[name], self.networks.trained[name]
        if accelerator.scaler is not None:
            accelerator.unscale_gradients(optimizer)
        norm = gradient_norm(network.parameters())  # of the synchronised gradient, so all processes decide the same
        skipped = None
        if not norm.isfinite():
            shared = mean_values_over_processes(terms)
            # In half precision occasional overflows are expected: the scaler then skips the update and lowers its factor.
            if accelerator.scaler is None or not all(value.isfinite() for value in shared.values()):
                skipped = self.guard.allow(step, NAMES[name], norm, shared)
                accelerator.print(skipped)
        if skipped is None:
            if self.config.max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(network.parameters(), self.config.max_grad_norm, norm)
            optimizer.step()
        elif accelerator.scaler is not None:
            accelerator.scaler.update()  # resets the state that unscaling set
        optimizer.zero_grad()
        return terms


@torch.no_grad()
def map_peak(malp: MaLP, fakes: Sequence[Tensor]) -> Tensor:
    """The maximum of each image's map, averaged over the step's images. Near 0 the map has no gradient."""
    with without_value_checks():
        return torch.stack([malp(fake.detach()).map.amax((1, 2, 3)).mean() for fake in fakes]).mean()
