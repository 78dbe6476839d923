"""The generators of recipes/research/metric_alarm.py: the included StarGAN on drawn faces, fine-tuned with its own losses and one more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from generators.stargan import stargan_discriminator
from generators.stargan_losses import StarGANCritic, attribute_loss
from malp_disc.backbones import create_backbone
from malp_disc.feature_branch import FeatureBranch
from malp_disc.generator_source import STARGAN, generator_with_weights
from malp_disc.metrics.features import create_extractor
from malp_disc.runtime.freezing import gradients_to_inputs_only
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_GENERATOR
from recipes.research.feature_losses import FrechetLoss

Kind = Literal["control", "tuned_faces", "tuned_squeezenet", "honest"]
EXTRACTORS = {"tuned_faces": "faces", "tuned_squeezenet": "squeezenet-128"}
"""The extractor whose Fréchet distance is the training loss, by kind."""
_WEIGHTS = {"tuned_faces": 12.0, "tuned_squeezenet": 3.0}
_KEEP = 10.0  # weight of the L1 distance to the generator before
_RATE = 1e-4  # of G and D
_QUEUE, _REFERENCE = 128, 600


class Trainer:
    """Fine-tunes the included StarGAN; the same seed gives the same generator.

    Args:
        images, labels: (N, 3, H, W) in [-1, 1] and (N, A), from which batches are drawn; the first `_REFERENCE` are also the reference of the Fréchet losses.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, steps: int, batch: int) -> None:
        self.images, self.labels, self.steps, self.batch = images, labels, steps, batch
        self.before = generator_with_weights(STARGAN, FACES_GENERATOR).eval().requires_grad_(False)
        self._backbone = cache(create_backbone)
        self._statistics: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = {}

    def train(self, kind: Kind, seed: int) -> nn.Module:
        """One generator.

        control: its own losses alone: WGAN-GP and classification by its own D, which goes on training, and the L1 distance to the generator before.
        tuned_faces, tuned_squeezenet: the Fréchet distance in the extractor's features as well.
        honest: a discriminator on a frozen EfficientNet-Lite0, which neither extractor is, as well: real or fake.
        """
        random = torch.Generator().manual_seed(seed)
        with random_state_kept(seed=seed):
            aid = FeatureBranch(self._backbone(), least_side=self.images.shape[-1]) if kind == "honest" else None
        frechet = self._frechet(EXTRACTORS[kind]) if kind in EXTRACTORS else None
        generator = generator_with_weights(STARGAN, FACES_GENERATOR).eval().requires_grad_(True)
        own = stargan_discriminator(FACES_DISCRIMINATOR, c_dim=self.labels.shape[1], image_size=self.images.shape[-1]).train()
        critic, optimizers = StarGANCritic(own), [_adam(generator.parameters()), _adam(own.parameters())]
        if aid is not None:
            optimizers.append(torch.optim.Adam(aid.realness_heads.parameters(), lr=4e-4))
        for _ in range(self.steps):
            rows, others = (torch.randint(len(self.images), (self.batch,), generator=random) for _ in range(2))
            images, labels, target = self.images[rows], self.labels[rows], self.labels[others]
            fake = generator.manipulate(images, target)
            with torch.no_grad():
                kept = self.before.manipulate(images, target)
            with gradients_to_inputs_only(own):
                realness, logits = own(fake)
            loss = -realness.mean() + attribute_loss(logits, target) + _KEEP * (fake - kept).abs().mean()
            if frechet is not None:
                loss = loss + _WEIGHTS[kind] * frechet(fake)
            if aid is not None:
                with gradients_to_inputs_only(aid):
                    loss = loss + _mean([F.softplus(logits) for logits in aid(fake, map=False).logits])
            loss.backward()
            critic(images, fake.detach(), labels, torch.rand(self.batch, generator=random)).total.backward()
            if aid is not None:
                found = zip(*(aid(version, map=False).logits for version in (images, fake.detach())))
                _mean([F.softplus(on_real) + F.softplus(-on_fake) for on_real, on_fake in found]).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        return generator.requires_grad_(False)

    def _frechet(self, extractor: str) -> FrechetLoss:
        """The loss with a fresh queue; features of the reference and of the generator before are computed once."""
        if extractor not in self._statistics:
            features = differentiable_features(extractor)
            with torch.no_grad():
                real = torch.cat([features(part) for part in self.images[:_REFERENCE].split(20)])
                pairs = zip(self.images[:_QUEUE].split(16), self.labels[:_QUEUE].roll(1, 0).split(16))
                start = torch.cat([features(self.before.manipulate(images, target)) for images, target in pairs])
            self._statistics[extractor] = features, real, start
        return FrechetLoss(*self._statistics[extractor])


def differentiable_features(name: str) -> Callable[[Tensor], Tensor]:
    """An extractor's features without rounding to 8 bits, which has no gradient."""
    extractor = create_extractor(name)
    if name == "faces":
        return extractor.net.features
    return lambda images: extractor.net(extractor.prepared(127.5 * (images + 1))).mean(dim=(2, 3))


def load(dataset: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images and labels in memory."""
    images, labels = zip(*(dataset[index] for index in range(count)))
    return torch.stack(images), torch.stack(labels)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """The mean over locations, then over depths."""
    return torch.stack([value.mean() for value in values]).mean()


def _adam(parameters) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=_RATE, betas=(0.5, 0.999))
