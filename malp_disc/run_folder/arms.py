"""What a run compares: the generators (arms), their controls, and the feature extractors and image sizes of evaluation (views)."""

from __future__ import annotations

ARMS = {
    "before": "the pretrained generator, before fine-tuning",
    "control": "fine-tuned for the same steps on the same images in the same order, without MaLP",
    "control_2xD": "the control, with two updates per step of the generator's own discriminator, the compute that MaLP would take",
    "random": "fine-tuned against a MaLP with random weights, at the same loss weight",
    "frozen": "fine-tuned against a fixed pretrained MaLP",
    "cotrain": "fine-tuned against a co-trained pretrained MaLP",
    "no_template": "as cotrain, against a MaLP that never had a template",
    "from_scratch": "fine-tuned against a MaLP co-trained from random weights",
    "vision_aided": "fine-tuned against MaLP's second branch alone, on a frozen pretrained backbone, trained on real or fake",
    "feature_map": "fine-tuned against that branch, trained to predict the fakeness map instead",
    "joint": "fine-tuned against both branches of a co-trained MaLP, E_C and the one on a frozen pretrained backbone, both trained on real or fake",
}
"""The generators a run compares, in the order of every table, with a description of each."""

CONTROLS = ("control", "control_2xD", "random")
"""Arms that a candidate has to beat, each where it was measured; without the first there is no verdict."""

CANDIDATES = tuple(arm for arm in ARMS if arm not in ("before", *CONTROLS))
"""Arms that a verdict is given on: everything fine-tuned that isn't a control."""

BASELINES = (*CONTROLS, "no_template", "from_scratch", "vision_aided", "feature_map", "before")
"""Arms that every other arm is compared with."""

UNEDITED = "unedited"
"""The evaluation's inputs as they are, in place of an arm: what the generator before fine-tuning is compared with."""

SMALLER = {"frechet_2x": 2, "frechet_4x": 4}
"""Views of down-sampled images with their factor: structure without texture."""

FURTHER = {"second": "the second extractor", "third": "the third extractor"}
"""Views by another extractor than the first."""

VIEWS = {
    "frechet": "full size",
    "second": "second extractor, full size",
    "third": "third extractor, full size",
    "frechet_2x": "half the size",
    "frechet_4x": "a quarter of the size",
}
"""The Fréchet distances measured of every arm, by their key in the run's files."""

SCORES = (*VIEWS, "kid")
"""The scores whose differences have intervals."""

LEVERAGE = "leverage"
"""The score of `malp_disc.metrics.leverage`, which has intervals as well but is no distance: was an arm tuned on the extractor?"""

EDIT_ACCURACY, CONTENT = "edit_accuracy", "content"
"""Share of the images whose requested attributes a classifier reads, and agreement of their edges with the input's."""

PERFECT_EDIT = "perfect_edit"
"""The mean absolute difference from the perfect edits, where the data set knows them (drawn faces), with intervals too: are the edits right, by no network's
opinion?"""

OF_IMAGES = (PERFECT_EDIT, EDIT_ACCURACY, CONTENT)
"""Scores of every single image, whose mean differences have intervals over images."""
