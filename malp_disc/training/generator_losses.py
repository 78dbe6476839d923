"""A generator's own losses and a `FeatureDiscriminator` beside them, for the arms aided, aided_map and joint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from malp_disc.feature_discriminator import FeatureDiscriminator
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.training.batches import Batch
from malp_disc.training.diff_augment import Augmentation, augment


class VisionAidedObjective(nn.Module):
    """Both as `malp_disc.training.finetune.GeneratorObjective`.

    Args:
        own: None for a generator without.
        discriminator: learns along.
        weight: of its loss on G.
        augmentation: what happens to all images before it sees them.
    """

    def __init__(
        self, own: nn.Module | None, discriminator: FeatureDiscriminator, weight: float, augmentation: Sequence[Augmentation] = ()
    ) -> None:
        super().__init__()
        self.own, self.discriminator, self.weight, self.augmentation = own, discriminator, weight, tuple(augmentation)
        self._own_learns = own is not None and any(p.requires_grad for p in own.parameters())

    def generator_loss(self, fake: Tensor, batch: Batch, edit: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        terms = call_generator_loss(self.own, fake, batch, edit) if self.own is not None else {}
        return terms | {"aided": self.weight * self.discriminator.generator_loss(self._augmented(fake, batch))}

    def forward(self, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        terms = call_discriminator_loss(self.own, fake, batch) if self._own_learns else {}
        images, fake = (self._augmented(pictures, batch) for pictures in (batch.images, fake))
        real = None if batch.reference is None else self._augmented(batch.reference, batch)
        return terms | {"aided": self.discriminator.discriminator_loss(images, fake, real)}

    def _augmented(self, pictures: Tensor, batch: Batch) -> Tensor:
        """All of an image alike, so that the map of a pair stays right."""
        return augment(pictures, batch.numbers, self.augmentation)
