"""Pretraining with the preset "survive": a `KeyedMaLP`, with local edits and degradation chains.

Its templates aren't learned: they follow from a secret key. What is trained is the network that tells from their evidence, and from the image, what was changed.
The network is trained with many keys, and the saved MaLP has a new one. Then a second network learns how much the generator changes every pixel, from
its edits alone: among local edits and degraded images, the first one learns a coarse map only.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc.benchmark.keyed_method import KeyedChangeMethod, KeyedMethod
from malp_disc.calibration import Calibration
from malp_disc.degradation_chain import DegradationChain
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.survival import issued_to, protected, scores
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.secret import SECRET_FILE, load_secret, new_secret, save_secret
from malp_disc.training.localizer import train_localizer
from malp_disc.training.localizer_options import LocalizerOptions
from malp_disc.training.pretrain_options import PretrainOptions

DEGRADED, LOCALLY_EDITED = 0.75, 0.5
"""Shares of the images that meet a degradation chain, and that are edited locally instead of by the generator."""


def surviving_options(config: PretrainOptions) -> LocalizerOptions:
    """The flags of the training, out of those of the pretraining."""
    names = {field.name for field in dataclasses.fields(LocalizerOptions)} & {field.name for field in dataclasses.fields(config)}
    return LocalizerOptions(
        **{name: getattr(config, name) for name in names},
        method=KeyedMethod.name,
        learning_rate=config.malp_learning_rate,
        edit_attribute=config.malp_attribute,
        degradation=config.malp_degradation or DEGRADED,
        degradation_chain=True,
        local_edits=config.malp_local_edits or LOCALLY_EDITED,
    )


def change_options(config: PretrainOptions) -> LocalizerOptions:
    """The flags of the second training."""
    return dataclasses.replace(
        surviving_options(config),
        output_dir=Path(config.output_dir) / "change",
        max_train_steps=config.malp_change_steps,
        degradation=0.0,
        local_edits=0.0,
        resume_from_checkpoint="latest" if config.resume_from_checkpoint else None,
    )


def pretrain_surviving(generator: nn.Module, dataset: Dataset, config: PretrainOptions, accelerator: Accelerator) -> KeyedMaLP:
    """Train a `KeyedMaLP` on the edits of `generator`, which stays fixed, and on local ones; in evaluation mode.

    A later run in the same folder keeps the key of the first, which is written before the training: ``malp/secret.safetensors``. With ``random_crop``, the network learns on crops at the scale of the whole images, for whose size the
    result's reference grid is made.

    Raises:
        ValueError, KeyboardInterrupt: as `train_localizer`.
    """
    key = Path(config.output_dir) / "malp" / SECRET_FILE
    torch.manual_seed(config.seed)
    malp = initial_detector(config, load_secret(key, grid=config.image_size) if key.is_file() else None)
    if accelerator.is_main_process and not key.is_file():
        save_secret(key, malp.secret, grid=config.image_size)
    if not config.malp_change_only:
        malp = train_localizer(KeyedMethod(malp).train(), generator, dataset, surviving_options(config), accelerator).malp
    if config.malp_change_steps:
        malp = train_change(malp, generator, dataset, config, accelerator)
    malp.config = dataclasses.replace(malp.config, image_size=config.image_size)
    return malp.requires_grad_(True)


def train_change(malp: KeyedMaLP, generator: nn.Module, dataset: Dataset, config: PretrainOptions, accelerator: Accelerator) -> KeyedMaLP:
    """Train the detector's `ChangeNet`, a new one if it has none, for ``malp_change_steps``; the rest of the detector stays as it is."""
    torch.manual_seed(config.seed)  # also where the detector's training was resumed
    if malp.change is None:
        malp = with_change_net(malp, malp.config.width)
    return train_localizer(KeyedChangeMethod(malp).train(), generator, dataset, change_options(config), accelerator).malp


def initial_detector(config: PretrainOptions, secret: bytes | None) -> KeyedMaLP:
    """The detector before the training, of random weights or of ``malp_start``, with this key or, for None, a new one.

    Raises:
        ValueError, OSError: ``malp_start`` isn't a detector of this preset.
    """
    settings = KeyedConfig(image_size=config.random_crop or config.image_size, width=config.malp_width, psnr=config.malp_psnr)
    if config.malp_start is None:
        return KeyedMaLP(settings, secret=secret)
    malp = KeyedMaLP.from_pretrained(config.malp_start, key=secret or new_secret())
    malp.config, malp.detection = dataclasses.replace(malp.config, image_size=settings.image_size, psnr=settings.psnr), None
    return malp


def with_change_net(malp: KeyedMaLP, width: int) -> KeyedMaLP:
    """The same detector and key with a new, untrained `ChangeNet`."""
    refined = KeyedMaLP(dataclasses.replace(malp.config, change_width=width), secret=malp.secret).to(malp.device)
    refined.load_state_dict(malp.state_dict(), strict=False)
    return refined


@torch.no_grad()
def calibrate_surviving(malp: KeyedMaLP, inputs: EvalSet, false_alarm_rate: float, seed: int) -> Calibration:
    """The detection threshold for protected images, as they are and after a degradation chain each. The score of one that isn't recognised counts as 0, since
    `malp-disc detect` never calls it manipulated.

    Raises:
        ValueError: too few images for the rate.
    """
    images = protected(malp, inputs.images.to(malp.device))
    degraded = torch.cat([DegradationChain.seeded(seed, 0, i)(image) for i, image in enumerate(images.split(1))])
    issued = issued_to(inputs.images)
    found = [scores(malp, kind, issued, crops=True) for kind in (images, degraded)]
    counted = [np.where(own.present, own.score, 0.0) for own in found]
    kinds = f"held-out images at {inputs.images.shape[3]}x{inputs.images.shape[2]}, protected, as they are and degraded"
    return Calibration.fit(counted, false_alarm_rate, images=kinds, detector=malp.detector_fingerprint)
