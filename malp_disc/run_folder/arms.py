"""What a run compares: the generators (arms), what each has to beat, and through which eyes they are looked at (views)."""

from __future__ import annotations

ARMS = {
    "before": "the pretrained generator, as it came",
    "control": "fine-tuned for the same steps on the same images in the same order, without MaLP",
    "control_d": "the control, with the compute that MaLP would have taken spent on the generator's own discriminator",
    "random": "fine-tuned against a MaLP that was never trained, with the same weight",
    "frozen": "fine-tuned against a MaLP that stays as it is",
    "cotrain": "fine-tuned against a MaLP that goes on learning",
    "passive": "fine-tuned against the same network, learning along, without any template",
    "scratch": "fine-tuned against a MaLP that learns along from random weights",
    "aided": "fine-tuned against a discriminator on the features of a frozen SqueezeNet, without MaLP",
    "aided_map": "fine-tuned against that discriminator where it is asked what MaLP is asked: how much each place was changed",
    "joint": "fine-tuned against both: a MaLP that goes on learning, and the feature discriminator of the arm aided",
}
"""The generators a run compares, in the order of every table, and what each is."""

CANDIDATES = ("frozen", "cotrain")
"""Arms that a verdict is given on: fine-tuned against MaLP."""

CONTROLS = ("control", "control_d", "random")
"""What a candidate has to beat, each where it was measured; without the first there is no verdict."""

BASELINES = (*CONTROLS, "passive", "scratch", "aided", "aided_map", "before")
"""What every arm is compared with."""

SMALLER = {"frechet_2x": 2, "frechet_4x": 4}
"""Views of down-sampled images, and how many times smaller they are: structure without texture."""

VIEWS = {
    "frechet": "full size",
    "second": "second extractor, full size",
    "frechet_2x": "half the size",
    "frechet_4x": "a quarter of the size",
}
"""The Fréchet distances that are taken of every arm, by their name in the run's files."""

SCORES = (*VIEWS, "kid")
"""Whose differences get intervals."""
