"""Finds the pretrained networks that a fine-tuning learns from, and refuses them as feature extractors of its evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from malp_disc.evaluation.evaluation_models import EvaluationOptions
from malp_disc.evaluation.feature_views import EvaluationModels
from malp_disc.run_folder.measurement import Network
from malp_disc.run_folder.teachers import is_teacher


def teachers_of(*modules: nn.Module | None) -> tuple[Network, ...]:
    """The pretrained networks within `modules` (discriminators, losses), without repetition.

    A network counts if it has two attributes of type str: ``backbone``, the architecture by timm's or torchvision's name ("squeezenet1_0"), and
    ``fingerprint``, the `malp_disc.serialization.state_dicts.values_fingerprint` of its weights. Give your own perceptual loss both, and the report knows that it can't be
    measured by the same network.
    """
    found: dict[tuple[str, str], None] = {}
    for module in modules:
        for part in module.modules() if module is not None else ():
            names = (getattr(part, "backbone", None), getattr(part, "fingerprint", None))
            if all(isinstance(name, str) and name for name in names):
                found[names] = None
    return tuple(Network(backbone, fingerprint) for backbone, fingerprint in found)


def without_automatic_teacher(models: EvaluationModels, options: EvaluationOptions, teachers: Mapping[str, Sequence[Network]]) -> EvaluationModels:
    """The models without a third extractor that nobody chose and that teaches one of the arms."""
    taught = models.third is not None and any(is_teacher(models.third, networks) for networks in teachers.values())
    return dataclasses.replace(models, third=None) if taught and options.third_extractor == "auto" else models


def check_extractors(models: EvaluationModels, teachers: Mapping[str, Sequence[Network]]) -> None:
    """Refuse an evaluation with a network that teaches one of the arms, before any training.

    Args:
        teachers: by arm, from `teachers_of`.

    Raises:
        ValueError: one of the extractors is the teacher of an arm.
    """
    for flag, extractor in (("--extractor", models.extractor), ("--second-extractor", models.second), ("--third-extractor", models.third)):
        taught = [arm for arm, networks in teachers.items() if extractor is not None and is_teacher(extractor, networks)]
        if taught:
            raise ValueError(
                f"{flag} is {extractor.name}, the backbone of {', '.join(taught)}: the generator is fine-tuned on its features, so a lower distance in them "
                f"would show nothing. Choose another {flag}, or another backbone of the discriminator"
            )
