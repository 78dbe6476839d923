"""MaLP as a discriminator (paper, section 3.3, Eq. 12): a generator is fine-tuned until MaLP finds nothing left to localize."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.detection import template_similarity
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.fakeness import check_batches, check_images, fakeness_map
from malp_disc.freezing import Float32Module, Freezable, called_on_copies, freeze, gradients_to_inputs_only, unfreeze
from malp_disc.losses import LossWeights, MaLPLosses
from malp_disc.malp import MaLP, MaLPOutput
from malp_disc.precision import full_precision

GeneratorGradient = Literal["none", "map", "truth"]


@dataclass
class GeneratorLosses:
    """The generator's part of Eq. 12. `total` is what to add to the generator's own loss; the others are the plain terms, for curves."""

    total: Tensor
    map: Tensor
    classifier: Tensor
    template: Tensor


class MaLPDiscriminator(Freezable, Float32Module):
    """A plug-in discriminator. Three lines in a training loop:

        encrypted, index = disc.encrypt(images)
        loss = loss + disc.generator_loss(fake, index).total                       # G's step; fake = G(encrypted, …)
        disc.discriminator_loss(images, encrypted, fake, index).total.backward()   # co-training only

    in any order, also with MaLP's optimizer step between G's loss and its ``backward``. It computes in float32 as `MaLP` does, whatever it is turned into.

    Args:
        malp: a pretrained `MaLP`.
        trainable: False: frozen, the paper's first strategy. It stays in evaluation mode and collects no gradient, whatever a parent's ``train()``
            or ``requires_grad_(True)`` ask for (`malp_disc.freezing.unfreeze` undoes it). True: co-trained, the second.
        map_weight: of ‖M̂(fake)‖²: "generate a fakeness map as a zero image" (section 4.4).
        classifier_weight: of -log P(not manipulated) by the classifier C.
        template_weight: of 1 - CS(S_i, S_R): the template shall survive.
        relative: divide each term by its value at the first call, so that a weight of 1 means the same for every generator. The values are
            buffers: they are saved, and shared by all processes. `calibrate` takes them from several batches.
        r1_weight: of the gradient penalty R1 (Mescheder et al., ICML 2018), γ/2 · E‖∇D(x)‖² on the images that stand for real ones, in
            `discriminator_loss`. D is the map's and the classifier's part of the generator's objective, so that what G is told about a
            image without fault is nothing. 0 for none; a second, differentiated backward pass otherwise.
        template_dropout: share of images that `encrypt` leaves without a template (index -1), so that the detector looks at the
            image and not at the template.
        scales: how many times smaller MaLP looks at the images, each a whole number; its losses are the means over these. (1,) is the paper's; with
            (1, 2, 4) the same shallow network sees structure too. For images without templates, which don't survive being made smaller.
        loss_weights: λ of Eq. 7-11 for `discriminator_loss`.
        generator_gradient: for pretraining, what of G(T(I)) the templates learn from. "none": nothing, G may be any program. "map": from what
            MaLP predicts on it. "truth": from M_GT too, as Eq. 4 and 5 have it to the letter, where the templates are minimised over and M_GT
            is made with them: they learn to be edited in a way that can be predicted. With the last two, `encrypt` leaves the way back
            to the templates open, and `fake` has to be made with gradients on.
        send: what happens to every image, encrypted and manipulated alike, before `discriminator_loss` shows it to MaLP, images to images of
            one shape: a degradation, for templates that survive one. M_GT stays that of the images before. It needn't be differentiable, the
            gradient is passed on as if nothing had happened. It may be exchanged at any time: ``disc.send = …``.

    Note:
        Eq. 12 prints E[1 - log D(fake)] for the second term; it is read as the usual log(1 - D(fake)), and G minimises the
        non-saturating form. The paper doesn't say which output of MaLP stands for D in it; section 4.4 says the map, which is the default.
        Eq. 11 is "end to end"; in the authors' code the generator is another program and no gradient passes it. What each generator_gradient
        brings is measured in docs/results/localizer.md.
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
        send: Callable[[Tensor], Tensor] | None = None,
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
        self.send = send
        self.register_buffer("scale", torch.zeros(3, dtype=torch.float32))  # first values of the terms; 0 until then
        if trainable:
            unfreeze(malp).requires_grad_(True)
            self.train()
        else:
            freeze(self)

    @property
    def trainable(self) -> bool:
        """Whether MaLP learns along."""
        return not self.frozen

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path, trainable: bool = False, *, key: str | Path | None = None, **options: Any) -> MaLPDiscriminator:
        """A discriminator around `MaLP.from_pretrained`, which takes `key`; the other options are the constructor's."""
        return cls(MaLP.from_pretrained(folder_or_hub_id, key=key), trainable, **options)

    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """T(I) and the index, as `MaLP.encrypt`, with the template dropout applied where the index is drawn here.

        No gradient leads back to the templates, or G's step would move them; `discriminator_loss` finds its own way to them. Only a
        `generator_gradient` asks for one.

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
        """What G has to lower. Gradients reach `fake` alone, in its dtype, also when MaLP is co-trained and learns before ``backward`` is called.

        Shapes: fake (B, 3, H, W) in [-1, 1], index (B,) as `encrypt` returned it.

        Raises:
            ValueError: no images; wrong shape, range, dtype or device; an index outside the set; or a `generator_gradient`, with which the templates
                would be pulled at through `fake`.
        """
        values = self._terms(fake, index)
        if self.generator_gradient != "none" and values.requires_grad:
            raise ValueError(
                f"generator_gradient={self.generator_gradient!r} is for pretraining against a generator that doesn't learn: its loss would move the templates too; "
                "make the discriminator that a generator is fine-tuned against with generator_gradient='none'"
            )
        scaled = values / self._scale_of(values.detach()) if self.relative else values
        return self._losses(values, scaled)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> GeneratorLosses:
        """Fix what a weight of 1 means from several batches (fake, index), the mean over all and over all processes.

        For a first step of several forward passes: without it the first pass alone would decide. Returns the plain means. Every process has
        to call it, with as many batches.

        Raises:
            ValueError: no batch.
        """
        terms = [self._terms(fake, index) for fake, index in batches]
        if not terms:
            raise ValueError("expected at least one batch (fake, index) to calibrate on")
        values = torch.stack(terms).mean(0)
        self.scale.zero_()
        values = self._over_processes(values)
        self.scale.copy_(self._first_scale(values))
        return self._losses(values, values / self._scale_of(values) if self.relative else values)

    @full_precision
    def _terms(self, fake: Tensor, index: Tensor) -> Tensor:
        """(3,): map, classifier, template; the mean over the scales. The graph leads to `fake` alone."""
        self._check({"fake": fake})
        check_images(fake, "fake")
        index = self.malp.encryption.check_index(index, len(fake))
        terms = []
        with gradients_to_inputs_only(self.malp, evaluation=True):
            for scale in self.scales:
                seen = made_smaller(fake, scale)
                out = called_on_copies(self.malp, seen) if self.trainable else self.malp(seen)
                terms.append(torch.stack([*self._faults(out).mean(1), self._template_gone(out.template, index)]))
        return torch.stack(terms).mean(0)

    def _check(self, batches: dict[str, Tensor]) -> None:
        """Raise ValueError unless all are images of one shape on MaLP's device, at least one, and not too small for the scales."""
        check_batches(batches, device=self.malp.device, nonempty=True)
        height, width = next(iter(batches.values())).shape[2:]
        if min(height, width) < max(self.scales):
            raise ValueError(f"scales {self.scales} need images of at least {max(self.scales)}x{max(self.scales)}, got {height}x{width}")

    @staticmethod
    def _faults(out: MaLPOutput) -> Tensor:
        """What speaks against each image: the map's mean square and the classifier's -log P(not manipulated), (2, B)."""
        return torch.stack([out.map.square().mean((1, 2, 3)), F.softplus(out.logit)])

    def _losses(self, values: Tensor, scaled: Tensor) -> GeneratorLosses:
        weights = torch.tensor(list(self.weights.values()), device=values.device)
        return GeneratorLosses(total=(weights * scaled).sum(), **dict(zip(self.weights, values.detach())))

    @full_precision
    def discriminator_loss(self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor) -> MaLPLosses:
        """What MaLP has to lower to keep finding G's changes: Eq. 7-11 on one concatenated forward; `images` and `fake` are detached.

        Shapes: images, encrypted, fake (B, 3, H, W) in [-1, 1], index (B,). Every trainable parameter takes part.

        Raises:
            ValueError: the discriminator is frozen; its `generator_gradient` has no way through the generator; no images; wrong shapes, ranges, dtypes or
                devices; or an index outside the set.
        """
        if not self.trainable:
            raise ValueError("this MaLPDiscriminator is frozen and has nothing to learn; make it with trainable=True")
        self._check({"images": images, "encrypted": encrypted, "fake": fake})
        index = self.malp.encryption.check_index(index, len(images))
        images, encrypted, fake = images.detach().float(), encrypted.float(), fake.float()
        if self.generator_gradient != "none":
            if not (fake.requires_grad and encrypted.requires_grad):
                raise ValueError(f"generator_gradient={self.generator_gradient!r} needs a fake made from `encrypt`'s images with gradients on")
            truth = fake if self.generator_gradient == "truth" else fake.detach()
            return self._penalised(self._losses_at_scales(images, encrypted, fake, truth, index), encrypted)
        fake = fake.detach()
        again, _ = self.malp.encrypt(images, index)
        encrypted = encrypted.detach() + (again - again.detach())  # the values G saw, with the templates' gradient
        return self._penalised(self._losses_at_scales(images, encrypted, fake, fake, index), encrypted)

    def _losses_at_scales(self, images: Tensor, encrypted: Tensor, fake: Tensor, changed: Tensor, index: Tensor) -> MaLPLosses:
        """Eq. 11, the mean over the scales; M_GT is that of `images` and `changed`."""
        found = []
        for scale in self.scales:
            truth = fakeness_map(made_smaller(images, scale), made_smaller(changed, scale))
            pictures = [made_smaller(self._sent(pictures), scale) for pictures in (encrypted, fake)]
            found.append(self.malp.losses(*pictures, truth, index, self.loss_weights))
        if len(found) == 1:
            return found[0]
        names = [field.name for field in dataclasses.fields(MaLPLosses)]
        return MaLPLosses(**{name: torch.stack([getattr(losses, name) for losses in found]).mean() for name in names})

    def forward(self, images: Tensor, encrypted: Tensor, fake: Tensor, index: Tensor) -> MaLPLosses:
        """`discriminator_loss`, so that a discriminator wrapped for several processes is called as the wrapper wants to be."""
        return self.discriminator_loss(images, encrypted, fake, index)

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

    def _penalised(self, losses: MaLPLosses, real: Tensor) -> MaLPLosses:
        if not self.r1_weight:
            return losses
        real = real.detach().requires_grad_(True)
        # Per image, of the values that G's step has fixed; before any, of the plain ones.
        weights = torch.tensor([self.weights["map"], self.weights["classifier"]], device=real.device)
        if self.relative:
            weights = weights / torch.where(self.scale == 0, 1.0, self.scale)[:2]
        faults = torch.stack([self._faults(self.malp(made_smaller(real, scale))) for scale in self.scales]).mean(0)
        objective = (weights[:, None] * faults).sum()
        (gradient,) = torch.autograd.grad(objective, real, create_graph=True)
        penalty = self.r1_weight / 2 * gradient.square().flatten(1).sum(1).mean()
        return dataclasses.replace(losses, total=losses.total + penalty, penalty=penalty)

    def _sent(self, images: Tensor) -> Tensor:
        """As they arrive; the gradient is that of the images as they left."""
        return images if self.send is None else images + (self.send(images.detach()) - images).detach()

    def _template_gone(self, recovered: Tensor, index: Tensor) -> Tensor:
        kept = (index != NO_TEMPLATE).float()
        similarity = template_similarity(recovered, self.malp.encryption.at(recovered.shape[2:]))
        own = similarity.gather(1, index.clamp(min=0)[:, None])[:, 0]
        return ((1 - own) * kept).mean()  # over all images, so that batches add up

    def _scale_of(self, values: Tensor) -> Tensor:
        """The first value of each term that counts, the mean over all processes; kept from then on."""
        if ((self.scale == 0) & self._wanted()).any():
            self.scale.copy_(self._first_scale(self._over_processes(values)))
        return torch.where(self.scale == 0, 1.0, self.scale)

    def _wanted(self) -> Tensor:
        return torch.tensor([weight > 0 for weight in self.weights.values()], device=self.scale.device)

    def _first_scale(self, values: Tensor) -> Tensor:
        """A template can only be missed where there was one: its term waits for the first batch that has any."""
        return torch.where((self.scale == 0) & self._wanted() & (values > 1e-6), values, self.scale)

    @staticmethod
    def _over_processes(values: Tensor) -> Tensor:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            values = values.clone()
            torch.distributed.all_reduce(values)
            values /= torch.distributed.get_world_size()
        return values


def made_smaller(images: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H // factor, W // factor), means over squares; the images themselves for 1."""
    return images if factor == 1 else F.avg_pool2d(images.float(), factor)
