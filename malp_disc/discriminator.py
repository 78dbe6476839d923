"""MaLP as a discriminator (paper, section 3.3, Eq. 12): a generator is fine-tuned until MaLP finds nothing left to localize."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from malp_disc.degradation_chain import straight_through
from malp_disc.discriminator_losses import Degradation, branch_losses, squared_gradient_norm
from malp_disc.distributed import mean_over_processes
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.fakeness import fakeness_map
from malp_disc.feature_branch import FeatureBranch
from malp_disc.generator_terms import (
    CNN_TERMS,
    NEEDS_BRANCH,
    TERMS,
    GeneratorLosses,
    branch_values,
    called,
    cnn_values,
    completed_scale,
    divisor,
    term_weights,
    undetermined,
    weighted_losses,
)
from malp_disc.localization import ShallowCNN
from malp_disc.losses import LossWeights, MaLPLosses
from malp_disc.malp import MaLP
from malp_disc.runtime.freezing import (
    Float32Module,
    Freezable,
    called_for_two_losses,
    called_on_copies,
    freeze,
    gradients_to_inputs_only,
    unfreeze,
)
from malp_disc.runtime.input_checks import check_batches, check_images, looks_at_values
from malp_disc.runtime.precision import full_precision
from malp_disc.runtime.transfer import to_device

GeneratorGradient = Literal["none", "map", "truth"]


class MaLPDiscriminator(Freezable, Float32Module):
    """A plug-in discriminator. Three lines in a training loop:

        encrypted, index = disc.encrypt(images)
        loss = loss + disc.generator_loss(fake, index).total                       # generator update; fake = G(encrypted, …)
        disc.discriminator_loss(images, encrypted, fake, index).total.backward()   # discriminator update, when co-training

    The order doesn't matter: MaLP's optimizer step may also lie between the generator's loss and its ``backward``. All arithmetic is float32, as in `MaLP`.

    Args:
        malp: a pretrained `MaLP`.
        trainable: False for a frozen MaLP, the paper's first strategy: it stays in evaluation mode and collects no gradient, even if a parent calls
            ``train()`` or ``requires_grad_(True)`` (`malp_disc.runtime.freezing.unfreeze` undoes it). True for a co-trained MaLP, the second strategy.
        map_weight: weight of ‖M̂(fake)‖²: "generate a fakeness map as a zero image" (section 4.4). 1 by default, the paper's objective; 0 if MaLP has a pretrained
            second branch, since E_C's map then adds nothing that a generator learns from (docs/results/real-faces.md).
        classifier_weight: weight of -log P(not manipulated) by the classifier C.
        template_weight: weight of 1 - CS(S_i, S_R), which asks the generator to preserve the template.
        branch_map_weight: as `map_weight`, of the map that a pretrained second branch predicts (`malp_disc.feature_branch`).
        realness_weight: weight of -log P(not manipulated) by a pretrained second branch, the mean over its locations and depths. 1 by default, with such a branch.
        train_cnn, train_branch_map: whether E_C, E_E, C and the templates, and the map heads of a pretrained second branch, learn in co-training as its realness heads do.
        train_template: whether E_E and the templates learn in co-training. False needs a template dropout of 1, and saves E_E's passes: J_T and J_R ask nothing of
            images that have no template, but to recover none.
        report_template: whether `generator_loss` reports the plain template term where its weight is 0 too. False saves a pass through E_E.
        relative: divide each term except realness by its value at the first call, so that a weight of 1 means the same for every generator
            (`malp_disc.generator_terms`). These values are a buffer: they are saved, and shared by all processes. `calibrate` takes them from several batches.
        r1_weight: γ of the gradient penalty R1 (Mescheder et al., ICML 2018), γ/2 · E‖∇D(x)‖² on the images that count as real, in `discriminator_loss`. D is
            the map and classifier part of the generator's objective. Above 0, each discriminator update needs a second, differentiated backward pass.
        template_dropout: share of images that `encrypt` leaves without a template (index -1), so that the detector has to use the image content.
        loss_weights: λ of Eq. 7-11 for `discriminator_loss`.
        generator_gradient: for pretraining, which gradient through G(T(I)) the templates get. "none": none, so G may be any program. "map": that of
            the map predicted on it. "truth": that of M_GT too, as Eq. 4 and 5 have it to the letter, where J is minimised over the templates and M_GT
            depends on them: they learn to be edited in a predictable way. With the last two, the result of `encrypt` carries gradients to the
            templates, and `fake` has to be computed with gradients on.

    Raises:
        ValueError: no `MaLP`, an unknown generator gradient, weights that are negative or not finite, a dropout outside [0, 1], or options that contradict each other.

    Note:
        Eq. 12 prints E[1 - log D(fake)] for the second term; it is read as the usual log(1 - D(fake)), and G minimises the non-saturating form. The paper
        doesn't say which output of MaLP stands for D in it; section 4.4 says the map. Eq. 11 is "end to end"; in the authors' code the generator is another
        program and no gradient passes through it. The effect of each generator_gradient is measured in docs/results/localizer.md.
    """

    _determined: tuple[int, tuple[float, ...]] | None = None
    _determined_scale: Tensor | None = None
    """The version of the scale, the weights, and the scale for which every term was found to have a value: a GPU has to be waited for to find that out."""

    def __init__(
        self,
        malp: MaLP,
        trainable: bool = False,
        *,
        map_weight: float | None = None,
        classifier_weight: float = 0.0,
        template_weight: float = 0.0,
        branch_map_weight: float = 0.0,
        realness_weight: float | None = None,
        train_cnn: bool = True,
        train_branch_map: bool = True,
        train_template: bool = True,
        report_template: bool = True,
        relative: bool = True,
        r1_weight: float = 0.0,
        template_dropout: float = 0.0,
        loss_weights: LossWeights | None = None,
        generator_gradient: GeneratorGradient = "none",
    ) -> None:
        super().__init__()
        if not isinstance(getattr(malp, "_orig_mod", malp), MaLP):  # torch.compile wraps it
            raise ValueError(f"expected a MaLP, got {type(malp).__name__}; load a pretrained one with MaLP.from_pretrained(folder), or make one with MaLP(MaLPConfig(…))")
        if generator_gradient not in get_args(GeneratorGradient):
            raise ValueError(f"expected a generator gradient out of {get_args(GeneratorGradient)}, got {generator_gradient!r}")
        asked = (map_weight, classifier_weight, template_weight, branch_map_weight, realness_weight)
        weights = term_weights(malp, dict(zip(TERMS, asked, strict=True)))
        if not train_cnn and not isinstance(malp.branch, FeatureBranch):
            raise ValueError(f"the option train_cnn=False would {NEEDS_BRANCH}")
        if not 0 <= template_dropout <= 1:
            raise ValueError(f"expected a template dropout in [0, 1], got {template_dropout}")
        if not train_template and template_dropout < 1:
            raise ValueError(f"train_template=False needs a template dropout of 1, got {template_dropout}: images with a template train it")
        if not 0 <= r1_weight < math.inf:
            raise ValueError(f"expected a finite R1 weight >= 0, got {r1_weight}")
        if r1_weight and not train_cnn:
            raise ValueError(f"r1_weight={r1_weight} is a penalty on E_C and C, which don't learn with train_cnn=False; leave one of them out")
        self.malp, self.weights, self.loss_weights, self.generator_gradient = malp, weights, loss_weights or LossWeights(), generator_gradient
        self.train_cnn, self.train_branch_map, self.train_template, self.report_template = train_cnn, train_branch_map, train_template, report_template
        self.relative, self.r1_weight, self.template_dropout = relative, r1_weight, template_dropout
        self.register_buffer("scale", torch.zeros(len(TERMS), dtype=torch.float32))  # s of `generator_terms`; 0 until a term has its first value
        if trainable:
            unfreeze(malp).requires_grad_(True)
            self.train()
            if not train_cnn:
                for part in (malp.cnn, malp.classifier, malp.encryption):
                    freeze(part)
        else:
            freeze(self)

    @property
    def trainable(self) -> bool:
        """Whether MaLP is co-trained."""
        return not self.frozen

    @classmethod
    def from_pretrained(
        cls, folder_or_hub_id: str | Path, trainable: bool = False, *,
        key: str | Path | None = None, backbone_weights: str | Path | None = None, **options: Any,
    ) -> MaLPDiscriminator:  # fmt: skip
        """A discriminator around `MaLP.from_pretrained`, which takes `key` and `backbone_weights`; the other options are the constructor's."""
        return cls(MaLP.from_pretrained(folder_or_hub_id, key=key, backbone_weights=backbone_weights), trainable, **options)

    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """T(I) and the index, as `MaLP.encrypt`; the template dropout applies where the index is drawn here.

        The result carries no gradient to the templates, or the generator update would move them; `discriminator_loss` encrypts again for theirs.
        Only with a `generator_gradient` does it carry one.

        Raises:
            ValueError: as `MaLP.encrypt`.
        """
        check_batches({"images": images}, device=self.malp.device)
        if index is None:
            index = self.malp.encryption.draw(len(images), generator)
            if self.template_dropout:
                where = generator.device if generator is not None else "cpu"
                dropped = torch.rand(len(images), generator=generator, device=where) < self.template_dropout
                index = torch.where(dropped.to(index.device), NO_TEMPLATE, index)
        with contextlib.nullcontext() if self.generator_gradient != "none" else gradients_to_inputs_only(self.malp):
            return self.malp.encrypt(images, index)

    def generator_loss(self, fake: Tensor, index: Tensor, target: Tensor | None = None, *, keep_map: bool = False) -> GeneratorLosses:
        """L_G = Σ w v / s, the generator's part of Eq. 12. Gradients reach `fake` alone, in its dtype, even if MaLP is updated before ``backward``.

        Shapes: fake (B, 3, H, W) in [-1, 1], index (B,) as `encrypt` returned it, target (B, A) in [0, 1], the attributes that `fake` was edited to, if the second
        branch is told them (`branch_labels` of its configuration).

        Args:
            keep_map: return the `known_map` that saves `discriminator_loss` E_C's pass of `fake`, where `shares_map`; None otherwise. The generator's ``backward`` has to
                come before MaLP's then, and MaLP's update after both.

        Raises:
            ValueError: no images; wrong shape, range, dtype or device; an index outside the set; attributes that are missing; or a `generator_gradient`,
                with which the loss would also reach the templates through `fake`.
        """
        values, features, known_map = self._terms(fake, index, target, keep_map=keep_map)
        if self.generator_gradient != "none" and values.requires_grad:
            raise ValueError(
                f"generator_gradient={self.generator_gradient!r} is for pretraining against a generator that doesn't learn: its loss would move the templates too; "
                "make the discriminator that a generator is fine-tuned against with generator_gradient='none'"
            )
        losses = weighted_losses(values, self._term_weights(), self._relative_scale(values.detach()) if self.relative else None, features)
        return dataclasses.replace(losses, known_map=known_map)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, ...]]) -> GeneratorLosses:
        """Set the scale s from several batches (fake, index) or (fake, index, target): the mean of each term over all of them and over all processes.

        For a first step of several micro-batches; without it the first one alone would set the scale. Returns the mean terms. Every process has
        to call it, with the same number of batches.

        Raises:
            ValueError: no batch.
        """
        terms = [self._terms(*batch)[0] for batch in batches]
        if not terms:
            raise ValueError("expected at least one batch (fake, index) to calibrate on")
        values = mean_over_processes(torch.stack(terms).mean(0))
        self.scale.copy_(completed_scale(torch.zeros_like(self.scale), self._term_weights(), values))
        return weighted_losses(values, self._term_weights(), self._relative_scale(values) if self.relative else None)

    @full_precision
    def _terms(
        self, fake: Tensor, index: Tensor, target: Tensor | None = None, *, keep_map: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """v of `generator_terms`, (5,), with a graph to `fake` alone, 0 where a weight is 0; the second branch's feature maps of `fake`; and its `known_map`."""
        check_batches({"fake": fake}, device=self.malp.device, nonempty=True)
        check_images(fake, "fake")
        index = self.malp.encryption.check_index(index, len(fake))
        seen_map, known_map = None, None
        if keep_map and self.shares_map and torch.is_grad_enabled():
            seen_map, known_map = called_for_two_losses(lambda images: self.malp.cnn(images, recovery=False)[0], fake)
        with gradients_to_inputs_only(self.malp, evaluation=True):
            call = called_on_copies if self.trainable else called
            by_cnn, by_branch, features = fake.new_zeros(3, dtype=torch.float32), fake.new_zeros(2, dtype=torch.float32), ()
            if self.uses_cnn:
                asked = {name: self.weights[name] > 0 for name in ("classifier", "template")}
                by_cnn = cnn_values(self.malp, fake, index, **asked, report_template=self.report_template, call=call, known_map=seen_map)
            if self.weights["branch_map"] or self.weights["realness"]:
                target = self.malp.branch.check_labels(target, len(fake), "target")
                by_branch, features = branch_values(self.malp.branch, fake, target, map=self.weights["branch_map"] > 0, call=call)
            return torch.cat([by_cnn, by_branch]), features, known_map

    @property
    def shares_map(self) -> bool:
        """Whether `discriminator_loss` can use E_C's map of `fake` from `generator_loss`: E_C learns, and E_E, which shares its layers, is run in neither.

        Not the authors' network, whose batch norm gives another map in training mode, and not with a `generator_gradient`, with which `fake` isn't detached.
        """
        learns = self.trainable and self.train_cnn and isinstance(self.malp.cnn, ShallowCNN) and self.generator_gradient == "none"
        runs_recovery = self.report_template or self.weights["template"] > 0 or (self.train_template and not self.malp.passive)
        return learns and self.uses_cnn and not runs_recovery

    @property
    def uses_cnn(self) -> bool:
        """Whether the generator's loss has a term of E_C, E_E or C."""
        return any(self.weights[name] for name in CNN_TERMS)

    @property
    def watched_terms(self) -> list[str]:
        """The terms of `GeneratorLosses` whose curves tell what the generator learns: the map, where E_C is asked, and the second branch's."""
        return ["map"] * self.uses_cnn + [name for name in ("branch_map", "realness") if self.weights[name]]

    def _term_weights(self) -> Tensor:
        """w of `generator_terms`, (5,)."""
        return to_device(torch.tensor(list(self.weights.values()), dtype=torch.float32), self.scale.device)

    def _relative_scale(self, values: Tensor) -> Tensor:
        """The scale s, after terms that had none yet got `values`, their mean over all processes."""
        version = None if self.scale.is_inference() else self.scale._version
        state = (version, tuple(self.weights.values()))
        if self._determined != state or self._determined_scale is not self.scale:
            weights = self._term_weights()
            if undetermined(self.scale, weights).any():
                self.scale.copy_(completed_scale(self.scale, weights, mean_over_processes(values)))
            elif version is not None:
                self._determined, self._determined_scale = state, self.scale
        return self.scale

    @full_precision
    def discriminator_loss(
        self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor, *,
        real: Tensor | None = None, degradation: Degradation | None = None, features: Sequence[Tensor] = (),
        labels: Tensor | None = None, target: Tensor | None = None, known_map: Tensor | None = None,
    ) -> MaLPLosses:  # fmt: skip
        """J = J_T + J_R + J_C + J_L (Eq. 7-11), plus R1; computed in one concatenated forward pass. `images` and `fake` are detached.

        Shapes: images, encrypted, fake (B, 3, H, W) in [-1, 1], index (B,). Every trainable parameter gets a gradient.

        Args:
            real: images of the generator's target domain, (N, 3, H', W') in [-1, 1], where that isn't the domain of `images` (horses to zebras): a pretrained second
                branch takes them as not manipulated. Ignored without such a branch.
            degradation: applied to `encrypted` and to `fake` before MaLP sees them, so that the templates learn to survive it; M_GT stays that of
                the images before. It needn't be differentiable: the gradient passes straight through, as if it were the identity.
            features: those of `generator_loss` for the same `fake`, if it was just called; they save a pass through the frozen backbone.
            labels, target: attributes of `images`, and those that `fake` was edited to, (B, A) in [0, 1], if the second branch is told them.
            known_map: that of ``generator_loss(…, keep_map=True)`` for the same `fake`; it saves a pass through E_C, once.

        Raises:
            ValueError: the discriminator is frozen; no images; attributes that are missing; wrong shapes, ranges, dtypes or devices; an index outside the set; or,
                with a `generator_gradient`, `fake` or `encrypted` carries no gradient.
        """
        if not self.trainable:
            raise ValueError("this MaLPDiscriminator is frozen and has nothing to learn; make it with trainable=True")
        check_batches({"images": images, "encrypted": encrypted, "fake": fake}, device=self.malp.device, nonempty=True)
        if real is not None:
            check_batches({"real": real}, device=self.malp.device, nonempty=True)
            check_images(real, "real")
        index = self.malp.encryption.check_index(index, len(images))
        images, encrypted, fake = images.detach().float(), encrypted.float(), fake.float()
        if self.generator_gradient != "none":
            if not (fake.requires_grad and encrypted.requires_grad):
                raise ValueError(f"generator_gradient={self.generator_gradient!r} needs a fake made from `encrypt`'s images with gradients on")
            changed = fake if self.generator_gradient == "truth" else fake.detach()
        else:
            changed, fake, encrypted = fake.detach(), fake.detach(), encrypted.detach()
            if (index != NO_TEMPLATE).any() if looks_at_values(index) else self.train_cnn and self.train_template:  # otherwise no gradient goes this way
                again, _ = self.malp.encrypt(images, index)
                encrypted = encrypted + (again - again.detach())  # the values that G saw, with the gradient to the templates
        seen = [straight_through(batch, degradation) for batch in (encrypted, fake)]
        known, known_map = (features, known_map) if degradation is None else ((), None)  # those of the images before
        if not self.train_cnn:
            return branch_losses(self.malp, *seen, fakeness_map(images, fake), self.loss_weights, real, known, labels, target, self.train_branch_map)
        learning = {"branch_map": self.train_branch_map, "template": self.train_template}
        options = {"real": real, "features": known, "labels": labels, "target": target, "known_map": known_map, **learning}
        losses = self.malp.losses(*seen, fakeness_map(images, changed), index, self.loss_weights, **options)
        if not self.r1_weight:
            return losses
        weights = self._term_weights() / divisor(self.scale) if self.relative else self._term_weights()
        penalty = self.r1_weight / 2 * squared_gradient_norm(self.malp, encrypted, weights[:2])
        return dataclasses.replace(losses, total=losses.total + penalty, penalty=penalty)

    def forward(self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor, **options: Any) -> MaLPLosses:
        """`discriminator_loss`, as a forward pass: DistributedDataParallel synchronises gradients only for calls of the wrapped module."""
        return self.discriminator_loss(images, encrypted, fake, index, **options)

    def parameter_groups(self, *, lr: float, template_lr: float | None = None, branch_lr: float | None = None) -> list[dict[str, Any]]:
        """For the co-training optimizer: the networks at `lr`, the templates at `template_lr` (five times `lr` if None), the heads of a pretrained second branch
        at `branch_lr` (`lr` if None). Only groups with trainable parameters, in this order.

        Raises:
            ValueError: the discriminator is frozen.
        """
        if not self.trainable:
            raise ValueError("a frozen MaLPDiscriminator has no parameters to train; make it with trainable=True")
        heads = list(self.malp.branch.parameters()) if isinstance(self.malp.branch, FeatureBranch) else []
        templates = list(self.malp.encryption.parameters())
        apart = {id(parameter) for parameter in (*heads, *templates)}
        networks = [parameter for parameter in self.malp.parameters() if id(parameter) not in apart]
        rates = (lr, 5 * lr if template_lr is None else template_lr, lr if branch_lr is None else branch_lr)
        groups = [{"params": [p for p in part if p.requires_grad], "lr": rate} for part, rate in zip((networks, templates, heads), rates)]
        return [group for group in groups if group["params"]]
