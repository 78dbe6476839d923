"""Teachers: pretrained networks whose features a generator was fine-tuned on. None of them can evaluate it.

A generator that was tuned on a network's features comes nearer to real images in these features, whether its images became better or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from malp_disc.run_folder.measurement import Network


class Named(Protocol):
    """A `Network`, or a feature extractor or its measurement, which have the same two names."""

    backbone: str | None
    fingerprint: str | None


def is_teacher(extractor: Named, teachers: Iterable[Network]) -> bool:
    """Whether a feature extractor is one of the teachers: the same architecture, whatever the weights, or the same weights under another name.

    Two trainings of one architecture on the same data have similar features, so other weights don't make it an independent extractor.
    """
    return any(is_same_network(extractor, teacher) for teacher in teachers)


def architecture(backbone: str) -> str:
    """The architecture that a backbone's name means, without the origin of its weights: ``tf_efficientnet_lite0.in1k`` is ``efficientnet_lite0``."""
    return backbone.lower().partition(".")[0].replace("-", "_").removeprefix("tf_")


def is_same_network(a: Named, b: Named) -> bool:
    """Whether two networks are the same for `is_teacher`."""
    names, prints = ((a.backbone, b.backbone), (a.fingerprint, b.fingerprint))
    return all(names) and architecture(names[0]) == architecture(names[1]) or all(prints) and prints[0] == prints[1]
