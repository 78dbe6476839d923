"""The flags of a pretraining, and the MaLP that they describe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from torch.utils.data import Dataset

from malp_disc.data import DataOptions
from malp_disc.discriminator import GeneratorGradient
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.malp import MaLP, MaLPConfig
from malp_disc.run_folder.experiment import not_compared, training_settings
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.train_options import TrainOptions


@dataclass(kw_only=True)
class MaLPOptions:
    """Architecture of MaLP, and how it is pretrained."""

    malp_set_size: int = 1
    """Number of templates in the set. Each image gets one of them."""
    malp_strength: float = 0.3
    """Strength m of the template in Eq. 6. 0 trains a passive detector, which works without a template."""
    malp_width: int = 16
    """Channels of the shallow CNN. The authors use 64."""
    malp_branch: str = "vit"
    """MaLP's second branch, beside the shallow CNN. vit: the paper's transformer E_T. none: no second branch.
    The name of a timm model, such as tf_efficientnet_lite0, or squeezenet1_0: a frozen pretrained backbone with trained heads."""
    malp_backbone_weights: Path | None = None
    """Weights of a backbone given as --malp-branch, or of the one that a MaLP given as --malp has, a state dict as timm or torchvision saves it.
    By default, the installed ones of tf_efficientnet_lite0, and timm's download for others."""
    malp_learning_rate: float = 1e-3
    """Learning rate of MaLP's networks, above 0. It is constant for the first half of the steps and then falls linearly to 0.
    The authors use 1e-5."""
    malp_template_learning_rate: float | None = None
    """Learning rate of the templates, 0 or more. 0 keeps the templates at their random initialisation.
    By default, five times --malp-learning-rate. The authors use 1e-6."""
    malp_least_psnr: float = 30.0
    """Lowest PSNR of encrypted images, in dB. A template that grows stronger is scaled down to it after every step. 0 sets no limit."""
    malp_template_delay: float = 0.25
    """Share of the steps, in [0, 1), during which the templates keep their initial values.
    Without a delay, a wider network or a higher learning rate can lose the template.
    The reason: before E_E can recover a template, J_T shrinks it, and J_R settles on a constant that fits both classes by half."""
    malp_generator_gradient: GeneratorGradient = "none"
    """Gradient that the templates get through the generator's images.
    none: no gradient. map: the gradient of the predicted map. truth: that of the true map as well (Eq. 4 and 5 to the letter).
    The last two backpropagate through the generator, which doubles its share of the time."""
    malp_template_dropout: float = 0.0
    """Share of the images, in [0, 1], that get no template but still count as real.
    With 0, as in the paper, MaLP takes a missing template for manipulation and cannot score unprotected images.
    With 0.5 it can also be used as a discriminator of unprotected images."""
    malp_degradation: float = 0.0
    """Share of the steps, in [0, 1], in which MaLP sees degraded images (JPEG, blur, noise, or lower resolution).
    The templates then learn to survive it, which images for publication need: otherwise a JPEG of quality 80 erases a faint template."""
    malp_attribute: str | None = None
    """Train only on edits of this attribute, to test how MaLP generalises to others (Table 3 of the paper).
    By default, all attributes are used."""


@dataclass(kw_only=True)
class PretrainOptions(TrainOptions, MaLPOptions, DataOptions):
    """Flags of a pretraining, except those that name the generator."""

    preset: Literal["paper", "survive"] = "paper"
    """MaLP as in the paper, or one that survives what happens to published images.
    With paper, the templates are learned, and the same for all images.
    With survive, they follow from a secret key and each image, survive JPEG, resizing and cropping, and local edits are localized too.
    Of MaLP's flags, survive takes width, learning rate, degradation (by default 0.75 of the images), local edits, PSNR, and attribute."""
    malp_local_edits: float = 0.0
    """With --preset survive: share of the images, in [0, 1], that are edited locally instead of by the generator. 0 takes the preset's, 0.5."""
    malp_psnr: float = 38.5
    """With --preset survive: PSNR of protected images, in dB; it is higher for objects on a plain background."""
    malp_start: str | None = None
    """With --preset survive: folder or Hugging Face Hub id of a trained detector of this preset to start from, such as weights/survive, instead of random weights.
    Its width is kept, and its key isn't needed."""
    malp_change_steps: int = 1000
    """With --preset survive: optimizer steps, after the others, of a network that tells how much the generator changed every pixel.
    0 leaves it out: the fakeness map is a coarse one then."""
    malp_change_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --malp-start: train only this second network, which takes minutes, for the edits of another generator. What is detected stays as it is."""
    output_dir: Path = Path("runs/malp")
    """Folder of the run, created if absent. The trained MaLP is saved in its sub-folder malp."""
    max_train_steps: int = 1000
    """Number of optimizer steps."""
    detection_false_alarm_rate: float = not_compared(0.01)
    """False-alarm rate, in (0, 1), for which the detection threshold of malp-disc detect is set and saved with MaLP.
    At most this share of real images scores above the threshold."""


_PAPER_ONLY = {
    "malp_set_size", "malp_strength", "malp_branch", "malp_backbone_weights", "malp_template_learning_rate", "malp_least_psnr", "malp_template_delay",
    "malp_generator_gradient", "malp_template_dropout",
}  # fmt: skip
_SURVIVE_ONLY = {"malp_local_edits", "malp_psnr", "malp_change_steps", "malp_change_only", "malp_start"}


def check_options(config: MaLPOptions, dataset: Dataset) -> None:
    """Raise ValueError for invalid flags, before any work."""
    if config.malp_attribute is not None and config.malp_attribute not in dataset.attribute_names:
        raise ValueError(f"expected --malp-attribute out of {' '.join(dataset.attribute_names)}, got {config.malp_attribute}")
    if isinstance(config, PretrainOptions):
        check_preset(config)
        if config.malp_backbone_weights is not None and config.malp_branch in ("vit", "none"):
            raise ValueError(f"--malp-backbone-weights {config.malp_backbone_weights} has no effect with --malp-branch {config.malp_branch}, which has no backbone; leave it out, or name one")
    if not 0 <= getattr(config, "malp_local_edits", 0) <= 1:
        raise ValueError(f"expected --malp-local-edits in [0, 1], got {config.malp_local_edits}")
    if not config.malp_learning_rate > 0:
        raise ValueError(f"expected --malp-learning-rate above 0, got {config.malp_learning_rate}")
    if config.malp_template_learning_rate is not None and config.malp_template_learning_rate < 0:
        raise ValueError(f"expected --malp-template-learning-rate of 0 or more, got {config.malp_template_learning_rate}")
    if config.malp_least_psnr < 0:
        raise ValueError(f"expected --malp-least-psnr of 0 or more, got {config.malp_least_psnr}")
    with random_state_kept():
        build_malp(config)


def check_learned_templates(config: PretrainOptions, what: str) -> None:
    """Raise ValueError for --preset survive, in a recipe that has learned templates only.

    Args:
        what: what the recipe does, for the message.
    """
    if config.preset != "paper":
        raise ValueError(f"{what}, and --preset {config.preset} has none: its templates follow from a key; leave --preset out")


def check_preset(config: PretrainOptions) -> None:
    """Raise ValueError for flags of the preset that wasn't chosen, which would have no effect, and for settings that survive can't have; or OSError without a ``malp_start``."""
    without_effect = _PAPER_ONLY if config.preset == "survive" else _SURVIVE_ONLY
    given = [field.name for field in dataclasses.fields(config) if field.name in without_effect and getattr(config, field.name) != field.default]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        other = "paper" if config.preset == "survive" else "survive"
        raise ValueError(f"{flags}: for --preset {other} only, without effect with --preset {config.preset}; leave {'it' if len(given) == 1 else 'them'} out")
    if config.malp_start is not None and config.malp_width != PretrainOptions.malp_width:
        raise ValueError(f"--malp-width {config.malp_width} has no effect with --malp-start, whose width is kept; leave it out")
    if config.malp_change_only and (config.malp_start is None or not config.malp_change_steps):
        raise ValueError("--malp-change-only needs a trained detector as --malp-start, and --malp-change-steps of 1 or more")
    if config.malp_change_steps < 0:
        raise ValueError(f"expected --malp-change-steps of 0 or more, got {config.malp_change_steps}")
    if config.malp_start is not None:
        KeyedMaLP.from_pretrained(config.malp_start, key=bytes(32))
    if config.preset == "survive":
        KeyedConfig(image_size=config.random_crop or config.image_size, width=config.malp_width, psnr=config.malp_psnr)


def build_malp(config: MaLPOptions) -> MaLP:
    """A randomly initialised MaLP with the architecture that the flags describe.

    Raises:
        ValueError: a flag is out of its range.
    """
    if not 0 <= config.malp_degradation <= 1:
        raise ValueError(f"expected --malp-degradation in [0, 1], got {config.malp_degradation}")
    if not 0 <= config.malp_template_dropout <= 1:
        raise ValueError(f"expected --malp-template-dropout in [0, 1], got {config.malp_template_dropout}")
    if not 0 <= config.malp_template_delay < 1:
        raise ValueError(f"expected --malp-template-delay in [0, 1), got {config.malp_template_delay}")
    return MaLP(
        MaLPConfig(
            image_size=getattr(config, "random_crop", None) or config.image_size,  # of the images that it is trained on
            set_size=config.malp_set_size,
            strength=config.malp_strength,
            width=config.malp_width,
            branch=None if config.malp_branch == "none" else config.malp_branch,
        ),
        backbone_weights=config.malp_backbone_weights,
    )


def resume_fingerprint(config: PretrainOptions) -> dict[str, object]:
    """The settings that a pretraining's checkpoint depends on; they are the same where the pretraining is a part of a fine-tuning."""
    names = {field.name for options in (MaLPOptions, DataOptions) for field in dataclasses.fields(options)} | {"generator", "generator_checkpoint", "mixed_precision", "random_crop"}
    own = {name: value for name, value in training_settings(config).items() if name in names}
    return {"seed": config.seed, "max_train_steps": config.max_train_steps, **own}
