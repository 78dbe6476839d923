"""What a run compares: the generators (arms), their controls, and the feature extractors and image sizes of evaluation (views).

An arm is described in one place, `ARM_TABLE`: flags, training, report and charts read it. A new one also needs a name in `malp_disc.experiment.arms.Arm`, a flag in
recipes/evaluate.py, and a row in docs/evidence.md and docs/fine-tuning.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """One of the generators that a run compares.

    Attributes:
        description: in the report.
        in_short: in the help of --arms; None for the generator before, which isn't run.
        control: a candidate has to beat it.
        baseline: all other arms are compared with it. Controls are baselines.
        malp: the MaLP whose CNN E_C has a term in the generator's loss; None without.
        cotrained: whether E_C is trained as well.
        heads: whether MaLP has a second branch, trained heads on a frozen pretrained backbone.
        colour: in all charts. Distinguishable with any colour vision (after Okabe and Ito), with a contrast of at least 3 with white.
        dashes: the line style: lengths of dashes and gaps; None for a solid line.
        marker: of its points, in charts of candidates only.
        themed: the report's page has a colour of its own in its dark theme, where this one is too dark or could be brighter, as ``--<arm>`` in page.css.
    """

    description: str
    in_short: str | None = None
    control: bool = False
    baseline: bool = False
    malp: Literal["pretrained", "untrained", "passive"] | None = None
    cotrained: bool = False
    heads: bool = False
    colour: str
    dashes: tuple[float, ...] | None = None
    marker: str | None = None
    themed: bool = False


ARM_TABLE = {
    "before": ArmSpec(
        description="the pretrained generator, before fine-tuning",
        baseline=True,
        colour="#858585",
        dashes=(1, 1),
        themed=True,
    ),
    # A difference of another arm to this one is due to MaLP.
    "control": ArmSpec(
        description="fine-tuned for the same steps on the same images in the same order, without MaLP",
        in_short="no MaLP",
        control=True,
        colour="#474747",
        dashes=(4, 1.5),
        themed=True,
    ),
    # Would the extra compute do the same?
    "control_2xD": ArmSpec(
        description="the control, with two updates per step of the generator's own discriminator, the compute that MaLP would take",
        in_short="no MaLP, and two updates of the generator's own discriminator per step",
        control=True,
        colour="#8C7246",
        dashes=(4, 1.5, 1, 1.5),
    ),
    # Is the effect due to the detector, or would any regulariser do?
    "random": ArmSpec(
        description="fine-tuned against a MaLP with random weights, at the same loss weight",
        in_short="an untrained MaLP, frozen",
        control=True,
        malp="untrained",
        colour="#009E73",
        dashes=(2, 1),
    ),
    # The paper's first strategy.
    "frozen": ArmSpec(
        description="fine-tuned against a fixed pretrained MaLP",
        in_short="the pretrained MaLP, frozen",
        malp="pretrained",
        colour="#2D95CE",
        dashes=(9, 1.5),
        marker="o",
        themed=True,
    ),
    # The paper's second strategy.
    "cotrain": ArmSpec(
        description="fine-tuned against a co-trained pretrained MaLP",
        in_short="the pretrained MaLP, co-trained",
        malp="pretrained",
        cotrained=True,
        colour="#D55E00",
        marker="s",
    ),
    # Does the template help?
    "no_template": ArmSpec(
        description="as cotrain, against a MaLP that never had a template",
        in_short="as cotrain, but without templates",
        baseline=True,
        malp="passive",
        cotrained=True,
        colour="#CC79A7",
        dashes=(6, 1),
        marker="D",
    ),
    # Does the pretraining help?
    "from_scratch": ArmSpec(
        description="fine-tuned against a MaLP co-trained from random weights",
        in_short="as cotrain, but without pretraining",
        baseline=True,
        malp="untrained",
        cotrained=True,
        colour="#7D55A6",
        dashes=(6, 1, 1, 1),
        marker="^",
        themed=True,
    ),
    # As in vision-aided GANs, without templates.
    "vision_aided": ArmSpec(
        description="fine-tuned against MaLP's second branch alone, on a frozen pretrained backbone, trained on real or fake",
        in_short="heads on a frozen pretrained backbone, trained on real or fake",
        baseline=True,
        heads=True,
        colour="#0072B2",
        dashes=(3, 1, 3, 1),
        marker="v",
    ),
    # Does the objective matter, or the backbone?
    "feature_map": ArmSpec(
        description="fine-tuned against that branch, trained to predict the fakeness map instead",
        in_short="the same heads, trained to predict the fakeness map",
        baseline=True,
        heads=True,
        colour="#882255",
        dashes=(5, 1, 1, 1, 1, 1),
        marker="<",
        themed=True,
    ),
    # The shallow branch at full resolution beside the pretrained one: does it add anything?
    "joint": ArmSpec(
        description="fine-tuned against both branches of a co-trained MaLP, E_C and the one on a frozen pretrained backbone, both trained on real or fake",
        in_short="as vision_aided, with MaLP's CNN trained on real or fake as well",
        malp="pretrained",
        cotrained=True,
        heads=True,
        colour="#B8860B",
        dashes=(1, 0.6),
        marker=">",
    ),
}
"""The generators that a run compares, in the order of every table."""

ARMS = {arm: spec.description for arm, spec in ARM_TABLE.items()}
"""A description of each."""

ARMS_HELP = "\n".join(
    [
        "Arms to run and compare. Without control, the report has no verdict.",
        *(f"{arm}: {spec.in_short}." for arm, spec in ARM_TABLE.items() if spec.in_short is not None),
    ]
)
"""The help of --arms."""

CONTROLS = tuple(arm for arm, spec in ARM_TABLE.items() if spec.control)
"""Arms that a candidate has to beat, each where it was measured; without the first there is no verdict."""

CANDIDATES = tuple(arm for arm in ARMS if arm not in ("before", *CONTROLS))
"""Arms that a verdict is given on: everything fine-tuned that isn't a control."""

BASELINES = (*CONTROLS, *(arm for arm, spec in ARM_TABLE.items() if spec.baseline and arm != "before"), "before")
"""Arms that every other arm is compared with."""

COTRAINED = tuple(arm for arm, spec in ARM_TABLE.items() if spec.cotrained)
"""Arms with a co-trained MaLP."""

AGAINST_MALP = tuple(arm for arm, spec in ARM_TABLE.items() if spec.malp)
"""Arms whose generator is trained against E_C, frozen or co-trained."""

ON_BACKBONE = tuple(arm for arm, spec in ARM_TABLE.items() if spec.heads)
"""Arms whose MaLP has a pretrained second branch."""

_HEADS_ALONE = tuple(arm for arm in ON_BACKBONE if arm not in AGAINST_MALP)

LEARNING_MALP = (*COTRAINED, *_HEADS_ALONE)
"""Arms in which a part of MaLP is trained."""

WITH_MALP = (*AGAINST_MALP, *_HEADS_ALONE)
"""Arms in which the generator's loss has a term of MaLP."""

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
