"""The lines of a run's folder, a dataclass for each kind. None, and a key that is missing, mean not measured.

`malp_disc.run_folder.schema` reads the files, `malp_disc.evaluation` and `malp_disc.report` write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """A pretrained network: its architecture by timm's or torchvision's name, and the fingerprint of its weights' values."""

    backbone: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance with everything needed to compare it with another one."""

    label: str | None = None
    value: float | None = None
    n: float | None = None
    dims: float | None = None
    extractor: str | None = None
    backbone: str | None = None
    fingerprint: str | None = None
    resize: str | None = None
    reference: str | None = None
    reference_n: float | None = None
    infinity: float | None = None
    """The value extrapolated to an infinite number of images."""


@dataclass(frozen=True)
class KernelDistance:
    """KID: mean and standard deviation over subsets."""

    value: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Spectrum:
    """Power relative to real images, by frequency; ``fine`` from ¾ to 1 of the Nyquist frequency, ``nyquist`` at it."""

    frequency: tuple[float | None, ...] | None = None
    ratio: tuple[float | None, ...] | None = None
    fine: float | None = None
    nyquist: float | None = None


@dataclass(frozen=True)
class Content:
    """Agreement of an image's and its edit's edge orientations: mean and standard deviation over images."""

    value: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Identity:
    """Cosine of face embeddings of an image and its edit, and the name of the embedding."""

    name: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class Localization:
    """Scores of a MaLP's maps of manipulated images against M_GT, and of its maps of encrypted ones.

    Attributes:
        cs, pearson, psnr, ssim: of the map with M_GT; ``cs_official`` by the authors' code, ``…_constant`` those of a constant map.
        cs_encrypted: CS of the encrypted image's map with M_GT, 0 in the ideal case (Eq. 8).
        mean_encrypted, mean_manipulated: means of the maps.
        spread: standard deviation of the manipulated images' maps over all pixels, near 0 for a collapsed head.
        cs_mean_map, pearson_mean_map: of a baseline that predicts the mean M_GT of all *other* images.
    """

    cs: float | None = None
    cs_constant: float | None = None
    cs_official: float | None = None
    cs_official_constant: float | None = None
    pearson: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    cs_encrypted: float | None = None
    mean_encrypted: float | None = None
    mean_manipulated: float | None = None
    spread: float | None = None
    cs_mean_map: float | None = None
    pearson_mean_map: float | None = None


@dataclass(frozen=True)
class Detection:
    """Detection of manipulated images among encrypted ones."""

    accuracy: float | None = None
    eer: float | None = None
    auc: float | None = None
    average_precision: float | None = None


@dataclass(frozen=True)
class TemplateSimilarity:
    """CS of the recovered and the added template for both kinds of images, and between the templates of the set."""

    encrypted: float | None = None
    manipulated: float | None = None
    between: float | None = None


@dataclass(frozen=True)
class MalpScores:
    """What one MaLP finds in one generator's edits; ``template`` and ``encrypted_psnr`` are None for a passive one."""

    localization: Localization
    detection: Detection
    template: TemplateSimilarity | None
    encrypted_psnr: float | None


@dataclass(frozen=True)
class WeightsFile:
    """Name and hash of a generator's file."""

    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Measurement:
    """One arm of one seed: a line of ``measurements.jsonl``, without its arm and seed.

    Attributes:
        attributes: number of attributes that the generator edits, 0 for a translation to another domain.
        identity_l1: edit strength, mean |x - G(x)|.
        perfect_edit: mean |G(x) - the perfect edit of x|, where the data set knows perfect edits (drawn faces).
        edit_accuracy, kept_accuracy: share of requested attributes that changed, and of others that didn't.
        localization_fresh, detection_fresh: by a MaLP that was trained from scratch against this generator.
        experiment: hash of the options that all arms share.
        teachers: the pretrained networks that the generator was fine-tuned on.
        skipped: number of updates in the fine-tuning that were left out because a gradient or an image wasn't finite.
        diverged: its images are not finite, so nothing was measured.
    """

    frechet: Distance = Distance()
    second: Distance = Distance()
    third: Distance = Distance()
    frechet_2x: Distance = Distance()
    frechet_4x: Distance = Distance()
    kid: KernelDistance = KernelDistance()
    spectrum: Spectrum = Spectrum()
    attributes: float | None = None
    identity_l1: float | None = None
    perfect_edit: float | None = None
    content: Content = Content()
    ssim_to_input: float | None = None
    psnr_to_input: float | None = None
    edit_accuracy: float | None = None
    edit_accuracy_per_attribute: dict[str, float | None] = field(default_factory=dict)
    kept_accuracy: float | None = None
    leakage: float | None = None
    leakage_per_attribute: dict[str, float | None] = field(default_factory=dict)
    identity: Identity = Identity()
    localization: Localization = Localization()
    detection: Detection = Detection()
    template: TemplateSimilarity = TemplateSimilarity()
    encrypted_psnr: float | None = None
    localization_fresh: Localization = Localization()
    detection_fresh: Detection = Detection()
    weights: WeightsFile = WeightsFile()
    steps: float | None = None
    seconds: float | None = None
    skipped: float | None = None
    experiment: str | None = None
    teachers: tuple[Network, ...] = ()
    diverged: bool | None = None

    def distance(self, view: str) -> Distance:
        """The distance in a view out of `malp_disc.run_folder.arms.VIEWS`."""
        return getattr(self, view)


@dataclass(frozen=True)
class Points:
    """Reference points of a distance: the unedited inputs, and one half of the reference against the other."""

    unedited: Distance = Distance()
    real_split: Distance = Distance()


@dataclass(frozen=True)
class KernelPoints:
    """`Points` of KID."""

    unedited: KernelDistance = KernelDistance()
    real_split: KernelDistance = KernelDistance()


@dataclass(frozen=True)
class ReferencePoints:
    """``reference_points.json``: what every arm and seed is compared with. `spectrum` and accuracies are those of the unedited inputs."""

    unedited: Distance = Distance()
    real_split: Distance = Distance()
    second: Points = Points()
    third: Points = Points()
    frechet_2x: Points = Points()
    frechet_4x: Points = Points()
    kid: KernelPoints = KernelPoints()
    spectrum: Spectrum = Spectrum()
    inputs_sha256: str | None = None
    reference_sha256: str | None = None
    edit_accuracy: float | None = None
    kept_accuracy: float | None = None
    perfect_edit: float | None = None
    encrypted_psnr: float | None = None
    key_fingerprint: str | None = None

    def points(self, view: str) -> Points:
        """The points of a view out of `malp_disc.run_folder.arms.VIEWS`."""
        return Points(self.unedited, self.real_split) if view == "frechet" else getattr(self, view)


@dataclass(frozen=True)
class Difference:
    """A line of ``bootstrap.jsonl``: one arm's score minus another's with its interval, or with ``against`` None the score itself.

    ``features`` is a hash of the features it was computed from.
    """

    seed: int
    score: str
    arm: str
    against: str | None
    value: float
    low: float | None
    high: float | None
    features: str
    resamples: int
    bootstrap_seed: int
    confidence: float


@dataclass(frozen=True)
class TrainingDistance:
    """A line of ``quality.jsonl``: the Fréchet distance of an arm at a step of its training."""

    seed: int
    arm: str
    step: int
    frechet: float | None
