"""Pretrain MaLP for a generator: a template, and a detector that localizes the generator's edits (paper, section 3, Eq. 11).

Drawn faces and the included StarGAN, then your own generator, then a StarGAN on CelebA:

    malp-disc pretrain --output-dir runs/malp
    malp-disc pretrain --generator my_module:make --data images --data-root photos --image-size 128 --malp-width 64 --output-dir runs/malp
    accelerate launch -m malp_disc pretrain --generator-checkpoint 200000-G.ckpt --data celeba --data-root /data/celeba \\
        --image-size 128 --malp-width 64 --max-train-steps 20000 --output-dir runs/malp-celeba

The result is the folder ``<output-dir>/malp``, for `MaLP.from_pretrained` and for the other commands' --malp. ``metrics.json`` has the localization and detection
scores on held-out images, and ``fakeness.png`` shows their maps.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from malp_disc import MaLP
from malp_disc.calibration import CALIBRATION_FILE, Calibration, check_enough, least_images
from malp_disc.data import build_dataset
from malp_disc.degradations import to_8bit
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.localize import malp_gallery, measure_malp, predict, score_unprotected, through_generator
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.keyed.secret import SECRET_FILE
from malp_disc.plotting.image_grids import fakeness_grid
from malp_disc.serialization.files import write_json
from malp_disc.serialization.key import KEY_FILE
from malp_disc.serialization.typed_json import to_json
from malp_disc.target_kind import exclusive_names
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import start
from malp_disc.training.pretrain import pretrain
from malp_disc.training.pretrain_options import PretrainOptions, build_malp, check_options

logger = logging.getLogger("malp_disc")
_HELD_OUT = 512
"""Most held-out images that the threshold is set on, and the scores are measured on."""


@dataclass(kw_only=True)
class Config(PretrainOptions, GeneratorOptions):
    """Flags of the pretraining."""


def main(config: Config) -> None:
    """Train, set the threshold of `malp-disc detect`, measure on held-out images, and write all of it to ``config.output_dir``.

    Raises:
        ValueError, FileNotFoundError: invalid flags or files, or a folder that belongs to another run; before any work.
    """
    dataset, held_out = build_dataset(config, "train"), build_dataset(config, "test")
    if len(held_out) < 2:
        raise ValueError(f"expected at least 2 held-out images to score the maps on, got {len(held_out)}; see --test-size")
    check_options(config, dataset)
    config.check_generator_options()
    if not 0 < config.detection_false_alarm_rate < 1:
        raise ValueError(f"expected --detection-false-alarm-rate between 0 and 1, got {config.detection_false_alarm_rate}")
    accelerator = start(config, dataset)
    generator = load_generator(config, attributes=len(dataset.attribute_names))
    check_contract(generator, dataset, accelerator.device, source=config.generator_name, tell=accelerator.print)
    generator.eval().requires_grad_(False).to(accelerator.device)
    if accelerator.is_main_process:
        warn_of_no_threshold(min(len(held_out), _HELD_OUT), config)
    inputs = EvalSet.take(held_out, _HELD_OUT, exclusive=exclusive_names(generator, held_out))
    if config.preset == "survive":
        surviving(generator, dataset, inputs, config, accelerator)
        return
    malp = pretrain(build_malp(config), generator, dataset, config, accelerator)
    if accelerator.is_main_process:
        malp.save_pretrained(config.output_dir / "malp")
        calibrate(generator, malp, inputs, config, accelerator)
        report(generator, malp, inputs, config.output_dir, accelerator)
    accelerator.end_training()


def warn_of_no_threshold(count: int, config: Config) -> None:
    """Log a warning before the training if `count` held-out images are too few for a threshold."""
    try:
        check_held_out(count, config)
    except ValueError as error:
        logger.warning("there will be no threshold for malp-disc detect: %s", error)


def check_held_out(count: int, config: Config) -> None:
    """Raise ValueError if `count` held-out images are too few for the false-alarm rate, with the flags that change it."""
    rate = config.detection_false_alarm_rate
    least = least_images(rate)
    cure = f"give --test-size {least} or a higher" if least <= _HELD_OUT else f"no more than {_HELD_OUT} held-out ones are used; give a higher"
    check_enough(count, rate, f"{cure} --detection-false-alarm-rate, or set the threshold later with malp-disc detect --calibrate")


def surviving(generator: nn.Module, dataset: Dataset, inputs: EvalSet, config: Config, accelerator: Accelerator) -> None:
    """Train and save a `KeyedMaLP` (--preset survive), and set the threshold of `malp-disc detect`."""
    from malp_disc.training.surviving import calibrate_surviving, pretrain_surviving  # late: the benchmark's methods import torchvision

    malp = pretrain_surviving(generator, dataset, config, accelerator)
    if accelerator.is_main_process:
        try:
            check_held_out(len(inputs.images), config)
            malp.detection = calibrate_surviving(malp, inputs, config.detection_false_alarm_rate, config.seed)
            print(f"detection: {malp.detection}")
        except ValueError as error:
            print(f"no threshold for malp-disc detect: {error}")
        malp.save_pretrained(config.output_dir / "malp")
        key = config.output_dir / "malp" / SECRET_FILE
        print(f"detector in {config.output_dir / 'malp'}, its key in {key} (fingerprint {malp.key_fingerprint}); protect the key: who has it can forge and remove templates")
    accelerator.end_training()


def calibrate(generator: nn.Module, malp: MaLP, inputs: EvalSet, config: Config, accelerator: Accelerator) -> None:
    """Set the threshold of `malp-disc detect` on held-out images and save it as ``<output-dir>/malp/detection.json``."""
    images = through_generator(generator.manipulate, inputs, malp, device=accelerator.device)
    real = {"encrypted": images.published} | ({"unprotected": images.images} if config.malp_template_dropout else {})
    scores = [predict(malp, to_8bit(batch), images.index, device=accelerator.device).score for batch in (*real.values(), images.manipulated)]
    kinds = f"held-out images at {config.image_size}x{config.image_size}, {' and '.join(real)}, in 8 bits"
    try:
        check_held_out(len(inputs.images), config)
        malp.detection = Calibration.fit(
            scores[:-1], config.detection_false_alarm_rate, manipulated=scores[-1], images=kinds, detector=malp.detector_fingerprint
        )
    except ValueError as error:
        print(f"no threshold for malp-disc detect: {error}")
        return
    malp.detection.write(config.output_dir / "malp" / CALIBRATION_FILE)
    print(f"detection: {malp.detection}")


def report(generator: nn.Module, malp: MaLP, inputs: EvalSet, folder: Path, accelerator: Accelerator) -> None:
    """Measure localization and detection on held-out images: ``metrics.json`` and ``fakeness.png``."""
    metrics = measure_malp(generator.manipulate, inputs, malp, device=accelerator.device)
    clean = score_unprotected(generator.manipulate, inputs, malp, device=accelerator.device)
    found = {"n": len(inputs.images), "key_fingerprint": malp.key_fingerprint, **to_json(metrics), "clean": clean}
    write_json(folder / "metrics.json", found)
    fakeness_grid(**malp_gallery(generator.manipulate, inputs, malp, device=accelerator.device), path=folder / "fakeness.png")
    scores = metrics.localization
    print(
        f"MaLP on {len(inputs.images)} held-out images: CS {scores.cs:.3f} (a constant map: {scores.cs_constant:.3f}), "
        f"Pearson {scores.pearson:.3f}, detection AUC {metrics.detection.auc:.4f}, without templates {clean['auc']:.4f}; "
        f"maps in {folder / 'fakeness.png'}\n"
        f"detector in {folder / 'malp'}, its key in {folder / 'malp' / KEY_FILE} (fingerprint {malp.key_fingerprint}); who has the key can forge and remove templates"
    )
