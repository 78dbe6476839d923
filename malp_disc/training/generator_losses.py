"""The generator's own losses plus those of a `FeatureDiscriminator`, for the arms vision_aided, feature_map and joint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from malp_disc.feature_discriminator import FeatureDiscriminator
from malp_disc.generator_objective import call_discriminator_loss, call_generator_loss
from malp_disc.training.batches import Batch
from malp_disc.training.diff_augment import Augmentation, augment


class VisionAidedObjective(nn.Module):
    """A generator's own objective and a feature discriminator as one `malp_disc.generator_objective.GeneratorObjective`.

    Args:
        own: the generator's own objective, or None.
        discriminator: trained together with it.
        weight: of the discriminator's loss on the generator.
        augmentation: of all images that the discriminator gets.
    """

    def __init__(
        self, own: nn.Module | None, discriminator: FeatureDiscriminator, weight: float, augmentation: Sequence[Augmentation] = ()
    ) -> None:
        super().__init__()
        self.own, self.discriminator, self.weight, self.augmentation = own, discriminator, weight, tuple(augmentation)
        self._own_is_trained = own is not None and any(p.requires_grad for p in own.parameters())

    def generator_loss(self, fake: Tensor, batch: Batch, edit: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """The generator's own terms, and "vision_aided", the weighted loss of the discriminator."""
        terms = call_generator_loss(self.own, fake, batch, edit) if self.own is not None else {}
        return terms | {"vision_aided": self.weight * self.discriminator.generator_loss(self._augmented(fake, batch))}

    def forward(self, fake: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms of the generator's own discriminator, if it has one, and "vision_aided", the discriminator's loss."""
        terms = call_discriminator_loss(self.own, fake, batch) if self._own_is_trained else {}
        images, fake = (self._augmented(version, batch) for version in (batch.images, fake))
        real = None if batch.reference is None else self._augmented(batch.reference, batch)
        return terms | {"vision_aided": self.discriminator.discriminator_loss(images, fake, real)}

    def _augmented(self, images: Tensor, batch: Batch) -> Tensor:
        """Augmented images, with the same random numbers for every version of an image, so that the fakeness map of a pair stays valid."""
        return augment(images, batch.numbers, self.augmentation)
