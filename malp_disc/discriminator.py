"""MaLP as a discriminator (paper, section 3.3, Eq. 12): a generator is fine-tuned until MaLP finds nothing left to localize."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.distributed import mean_over_processes
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.fakeness import check_batches, check_images, fakeness_map
from malp_disc.freezing import Float32Module, Freezable, called_on_copies, freeze, gradients_to_inputs_only, unfreeze
from malp_disc.generator_terms import GeneratorLosses, completed_scale, divisor, image_terms, template_term, undetermined, weighted_losses
from malp_disc.losses import LossWeights, MaLPLosses
from malp_disc.malp import MaLP
from malp_disc.precision import full_precision

GeneratorGradient = Literal["none", "map", "truth"]
Degradation = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [-1, 1] -> images of the same shape and range."""


class MaLPDiscriminator(Freezable, Float32Module):
    """A plug-in discriminator. Three lines in a training loop:

        encrypted, index = disc.encrypt(images)
        loss = loss + disc.generator_loss(fake, index).total                       # generator update; fake = G(encrypted, …)
        disc.discriminator_loss(images, encrypted, fake, index).total.backward()   # discriminator update, when co-training

    The order doesn't matter: MaLP's optimizer step may also lie between the generator's loss and its ``backward``. All arithmetic is float32, as in `MaLP`.

    Args:
        malp: a pretrained `MaLP`.
        trainable: False for a frozen MaLP, the paper's first strategy: it stays in evaluation mode and collects no gradient, even if a parent calls
            ``train()`` or ``requires_grad_(True)`` (`malp_disc.freezing.unfreeze` undoes it). True for a co-trained MaLP, the second strategy.
        map_weight: weight of ‖M̂(fake)‖²: "generate a fakeness map as a zero image" (section 4.4).
        classifier_weight: weight of -log P(not manipulated) by the classifier C.
        template_weight: weight of 1 - CS(S_i, S_R), which asks the generator to preserve the template.
        relative: divide each term by its value at the first call, so that a weight of 1 means the same for every generator
            (`malp_disc.generator_terms`). These values are a buffer: they are saved, and shared by all processes. `calibrate` takes them from several batches.
        r1_weight: γ of the gradient penalty R1 (Mescheder et al., ICML 2018), γ/2 · E‖∇D(x)‖² on the images that count as real, in
            `discriminator_loss`. D is the map and classifier part of the generator's objective, so the generator's gradient vanishes on real data.
            0 for no penalty; otherwise each discriminator update needs a second, differentiated backward pass.
        template_dropout: share of images that `encrypt` leaves without a template (index -1), so that the detector has to use the image content.
        scales: factors by which images are reduced (`average_pool`) before MaLP sees them; its losses are the means over these. (1,) is the paper's; with
            (1, 2, 4) the same shallow network sees structure too. Templates don't survive it, so this needs images without them.
        loss_weights: λ of Eq. 7-11 for `discriminator_loss`.
        generator_gradient: for pretraining, which gradient through G(T(I)) the templates get. "none": none, so G may be any program. "map": that of
            the map predicted on it. "truth": that of M_GT too, as Eq. 4 and 5 have it to the letter, where J is minimised over the templates and M_GT
            depends on them: they learn to be edited in a predictable way. With the last two, the result of `encrypt` carries gradients to the
            templates, and `fake` has to be computed with gradients on.

    Raises:
        ValueError: an unknown generator gradient, negative weights, a dropout outside [0, 1], or options that contradict each other.

    Note:
        Eq. 12 prints E[1 - log D(fake)] for the second term; it is read as the usual log(1 - D(fake)), and G minimises the
        non-saturating form. The paper doesn't say which output of MaLP stands for D in it; section 4.4 says the map, which is the default.
        Eq. 11 is "end to end"; in the authors' code the generator is another program and no gradient passes through it. The effect of each
        generator_gradient is measured in docs/results/localizer.md.
    """

    def __init__(
        self,
        malp: MaLP,
        trainable: bool = False,
        *,
        map_weight: float = 1.0,
        classifier_weight: float = 0.0,
        template_weight: float = 0.0,
        relative: bool = True,
        r1_weight: float = 0.0,
        template_dropout: float = 0.0,
        scales: Sequence[int] = (1,),
        loss_weights: LossWeights | None = None,
        generator_gradient: GeneratorGradient = "none",
    ) -> None:
        super().__init__()
        if generator_gradient not in get_args(GeneratorGradient):
            raise ValueError(f"expected a generator gradient out of {get_args(GeneratorGradient)}, got {generator_gradient!r}")
        if min(map_weight, classifier_weight, template_weight) < 0 or map_weight + classifier_weight + template_weight == 0:
            raise ValueError(f"expected weights >= 0, one of them > 0, got map {map_weight}, classifier {classifier_weight}, template {template_weight}")
        if not 0 <= template_dropout <= 1:
            raise ValueError(f"expected a template dropout in [0, 1], got {template_dropout}")
        if r1_weight < 0:
            raise ValueError(f"expected an R1 weight >= 0, got {r1_weight}")
        if not scales or any(scale < 1 for scale in scales):
            raise ValueError(f"expected scales of 1 or more, got {tuple(scales)}")
        if tuple(scales) != (1,) and not malp.passive and template_dropout < 1:
            raise ValueError(f"scales {tuple(scales)} need template_dropout=1: a template doesn't survive being made smaller; got {template_dropout}")
        if malp.passive and template_weight:
            raise ValueError("a passive MaLP (strength 0) has no template that could survive; set template_weight=0")
        self.malp = malp
        self.weights = {"map": map_weight, "classifier": classifier_weight, "template": template_weight}
        self.relative = relative
        self.r1_weight = r1_weight
        self.template_dropout = template_dropout
        self.scales = tuple(scales)
        self.loss_weights = loss_weights or LossWeights()
        self.generator_gradient = generator_gradient
        self.register_buffer("scale", torch.zeros(3, dtype=torch.float32))  # s of `generator_terms`; 0 until a term has its first value
        if trainable:
            unfreeze(malp).requires_grad_(True)
            self.train()
        else:
            freeze(self)

    @property
    def trainable(self) -> bool:
        """Whether MaLP is co-trained."""
        return not self.frozen

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path, trainable: bool = False, *, key: str | Path | None = None, **options: Any) -> MaLPDiscriminator:
        """A discriminator around `MaLP.from_pretrained`, which takes `key`; the other options are the constructor's."""
        return cls(MaLP.from_pretrained(folder_or_hub_id, key=key), trainable, **options)

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

    def generator_loss(self, fake: Tensor, index: Tensor) -> GeneratorLosses:
        """L_G = Σ w v / s, the generator's part of Eq. 12. Gradients reach `fake` alone, in its dtype, even if MaLP is updated before ``backward``.

        Shapes: fake (B, 3, H, W) in [-1, 1], index (B,) as `encrypt` returned it.

        Raises:
            ValueError: no images; wrong shape, range, dtype or device; an index outside the set; or a `generator_gradient`, with which the loss
                would also reach the templates through `fake`.
        """
        values = self._terms(fake, index)
        if self.generator_gradient != "none" and values.requires_grad:
            raise ValueError(
                f"generator_gradient={self.generator_gradient!r} is for pretraining against a generator that doesn't learn: its loss would move the templates too; "
                "make the discriminator that a generator is fine-tuned against with generator_gradient='none'"
            )
        return weighted_losses(values, self._term_weights(), self._relative_scale(values.detach()) if self.relative else None)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> GeneratorLosses:
        """Set the scale s from several batches (fake, index): the mean of each term over all of them and over all processes.

        For a first step of several micro-batches; without it the first one alone would set the scale. Returns the mean terms. Every process has
        to call it, with the same number of batches.

        Raises:
            ValueError: no batch.
        """
        terms = [self._terms(fake, index) for fake, index in batches]
        if not terms:
            raise ValueError("expected at least one batch (fake, index) to calibrate on")
        values = mean_over_processes(torch.stack(terms).mean(0))
        self.scale.copy_(completed_scale(torch.zeros_like(self.scale), self._term_weights(), values))
        return weighted_losses(values, self._term_weights(), self._relative_scale(values) if self.relative else None)

    @full_precision
    def _terms(self, fake: Tensor, index: Tensor) -> Tensor:
        """v of `generator_terms`, (3,): map, classifier, template, the mean over the scales. The graph leads to `fake` alone."""
        self._check({"fake": fake})
        check_images(fake, "fake")
        index = self.malp.encryption.check_index(index, len(fake))
        terms = []
        with gradients_to_inputs_only(self.malp, evaluation=True):
            for scale in self.scales:
                pooled = average_pool(fake, scale)
                out = called_on_copies(self.malp, pooled) if self.trainable else self.malp(pooled)
                templates = self.malp.encryption.at(out.template.shape[2:])
                terms.append(torch.stack([*image_terms(out).mean(1), template_term(out.template, templates, index)]))
        return torch.stack(terms).mean(0)

    def _term_weights(self) -> Tensor:
        """w of `generator_terms`, (3,)."""
        return torch.tensor(list(self.weights.values()), device=self.scale.device)

    def _relative_scale(self, values: Tensor) -> Tensor:
        """The scale s, after terms that had none yet got `values`, their mean over all processes."""
        weights = self._term_weights()
        if undetermined(self.scale, weights).any():
            self.scale.copy_(completed_scale(self.scale, weights, mean_over_processes(values)))
        return self.scale

    def _check(self, batches: dict[str, Tensor]) -> None:
        """Raise ValueError unless all are images of one shape on MaLP's device, at least one, and not too small for the scales."""
        check_batches(batches, device=self.malp.device, nonempty=True)
        height, width = next(iter(batches.values())).shape[2:]
        if min(height, width) < max(self.scales):
            raise ValueError(f"scales {self.scales} need images of at least {max(self.scales)}x{max(self.scales)}, got {height}x{width}")

    @full_precision
    def discriminator_loss(self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor, *, degradation: Degradation | None = None) -> MaLPLosses:
        """J = J_T + J_R + J_C + J_L (Eq. 7-11), plus R1; computed in one concatenated forward pass. `images` and `fake` are detached.

        Shapes: images, encrypted, fake (B, 3, H, W) in [-1, 1], index (B,). Every trainable parameter gets a gradient.

        Args:
            degradation: applied to `encrypted` and to `fake` before MaLP sees them, so that the templates learn to survive it; M_GT stays that of
                the images before. It needn't be differentiable: the gradient passes straight through, as if it were the identity.

        Raises:
            ValueError: the discriminator is frozen; with a `generator_gradient`, `fake` or `encrypted` carries no gradient; no images; wrong shapes, ranges,
                dtypes or devices; or an index outside the set.
        """
        if not self.trainable:
            raise ValueError("this MaLPDiscriminator is frozen and has nothing to learn; make it with trainable=True")
        self._check({"images": images, "encrypted": encrypted, "fake": fake})
        index = self.malp.encryption.check_index(index, len(images))
        images, encrypted, fake = images.detach().float(), encrypted.float(), fake.float()
        if self.generator_gradient != "none":
            if not (fake.requires_grad and encrypted.requires_grad):
                raise ValueError(f"generator_gradient={self.generator_gradient!r} needs a fake made from `encrypt`'s images with gradients on")
            changed = fake if self.generator_gradient == "truth" else fake.detach()
        else:
            changed = fake = fake.detach()
            again, _ = self.malp.encrypt(images, index)
            encrypted = encrypted.detach() + (again - again.detach())  # the values that G saw, with the gradient to the templates
        seen = [degraded_straight_through(batch, degradation) for batch in (encrypted, fake)]
        losses = self._losses_over_scales(*seen, images, changed, index)
        return self._add_gradient_penalty(losses, encrypted) if self.r1_weight else losses

    def _losses_over_scales(self, encrypted: Tensor, fake: Tensor, images: Tensor, changed: Tensor, index: Tensor) -> MaLPLosses:
        """Eq. 11, the mean over the scales, with M_GT = fakeness_map(images, changed)."""
        found = []
        for scale in self.scales:
            truth = fakeness_map(average_pool(images, scale), average_pool(changed, scale))
            found.append(self.malp.losses(average_pool(encrypted, scale), average_pool(fake, scale), truth, index, self.loss_weights))
        if len(found) == 1:
            return found[0]
        names = [field.name for field in dataclasses.fields(MaLPLosses)]
        return MaLPLosses(**{name: torch.stack([getattr(losses, name) for losses in found]).mean() for name in names})

    def _add_gradient_penalty(self, losses: MaLPLosses, real: Tensor) -> MaLPLosses:
        """J + γ/2 · E‖∇ₓ Σ_k w_k v_k(x) / s_k‖² on the images that count as real, k in (map, classifier)."""
        real = real.detach().requires_grad_(True)
        weights = self._term_weights()[:2]
        if self.relative:
            weights = weights / divisor(self.scale)[:2]
        terms = torch.stack([image_terms(self.malp(average_pool(real, scale))) for scale in self.scales]).mean(0)  # (2, B)
        (gradient,) = torch.autograd.grad((weights[:, None] * terms).sum(), real, create_graph=True)
        penalty = self.r1_weight / 2 * gradient.square().flatten(1).sum(1).mean()
        return dataclasses.replace(losses, total=losses.total + penalty, penalty=penalty)

    def forward(self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor, *, degradation: Degradation | None = None) -> MaLPLosses:
        """`discriminator_loss`, as a forward pass: DistributedDataParallel synchronises gradients only for calls of the wrapped module."""
        return self.discriminator_loss(images, encrypted, fake, index, degradation=degradation)

    def parameter_groups(self, *, lr: float, template_lr: float | None = None) -> list[dict[str, Any]]:
        """For the co-training optimizer: the networks at `lr`, the templates at `template_lr` (five times `lr` if None).

        Raises:
            ValueError: the discriminator is frozen.
        """
        if not self.trainable:
            raise ValueError("a frozen MaLPDiscriminator has no parameters to train; make it with trainable=True")
        templates = list(self.malp.encryption.parameters())
        networks = [parameter for name, parameter in self.malp.named_parameters() if not name.startswith("encryption.")]
        return [{"params": networks, "lr": lr}, {"params": templates, "lr": 5 * lr if template_lr is None else template_lr}]


def degraded_straight_through(images: Tensor, degradation: Degradation | None) -> Tensor:
    """The degraded images, with the gradient of the identity (a straight-through estimator)."""
    return images if degradation is None else images + (degradation(images.detach()) - images).detach()


def average_pool(images: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H // factor, W // factor), the mean over squares of `factor` pixels; the images themselves for 1.

    Box averaging, and not the antialiased resize that the evaluation uses (`malp_disc.evaluation.feature_views.downsample_antialiased`): the published
    fine-tunings with several scales were trained with it, and it has no kernel that reaches across the squares.
    """
    return images if factor == 1 else F.avg_pool2d(images.float(), factor)
