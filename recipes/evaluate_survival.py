"""Measure how a MaLP of the preset "survive" survives: degradations, sizes, crops, local edits, false alarms, attackers.

    malp-disc pretrain --preset survive --output-dir runs/survive
    python recipes/evaluate_survival.py --malp runs/survive/malp --output-dir runs/survival

writes ``survival.jsonl``, one line per measurement with seed, key, detector and numbers of images, and ``gallery.png``. For every seed there is a new key, and other regions, crops and noise.
All images are held-out ones, except those on which the detection threshold is set, and those of the attacker. With ``pip install opencv-python-headless``, OpenCV's inpainting is measured too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from malp_disc.data import DataOptions, build_dataset
from malp_disc.degradations import to_8bit
from malp_disc.evaluation.eval_set import EvalSet, edit, load_all
from malp_disc.evaluation.forging import forging, hiding
from malp_disc.evaluation.survival import (
    SAME_SIZE,
    claimed,
    faint_edits,
    issued_to,
    local_edits,
    protected,
    scores,
    survival,
    whole_changes,
)
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.keyed import KeyedMaLP
from malp_disc.metrics.localization import localization_scores
from malp_disc.plotting.survival_gallery import survival_gallery
from malp_disc.run_folder.environment import collect_environment
from malp_disc.run_folder.experiment import not_compared, work
from malp_disc.serialization.files import write_json
from malp_disc.serialization.state_dicts import fingerprint
from malp_disc.target_kind import exclusive_names
from malp_disc.training.launch import run_recipe
from malp_disc.training.surviving import calibrate_surviving

Part = Literal["fidelity", "detection", "local", "generated", "alarms", "attacks", "faint", "whole", "gallery"]
_ALL: tuple[Part, ...] = get_args(Part)


@dataclass(kw_only=True)
class Config(GeneratorOptions, DataOptions):
    output_dir: Path = not_compared(Path("runs/survival"))
    malp: Path = Path("runs/malp/malp")
    """Folder of a MaLP of the preset survive."""
    reference_size: int | None = None
    """Side of the reference grid. By default, that of the MaLP."""
    psnr: float | None = None
    """PSNR of protected images in dB: lower values protect more strongly. By default, that of the MaLP."""
    parts: tuple[Part, ...] = work(_ALL)
    """The parts to run."""
    seeds: tuple[int, ...] = work((0, 1, 2))
    """Seeds of keys, regions, crops and noise."""
    eval_size: int = 48
    """Number of held-out images per score and seed."""
    calibration_size: int = 300
    """Number of training images on which the detection threshold is set, for 1 % false alarms."""
    alarm_size: int = 1000
    """Number of images for the false alarms, over all seeds, and of templates that are issued for the part "detection"."""
    published: tuple[int, ...] = (1, 10, 100, 1000)
    """Numbers of published images that the attackers have."""


def main(config: Config) -> None:
    saved = KeyedMaLP.from_pretrained(config.malp, key=evaluation_key(0))  # its own key isn't needed: every seed has another
    held_out, training = build_dataset(config, "test"), build_dataset(config, "train")
    check_attack(config, len(training), config.reference_size or saved.config.image_size)
    check_splices(config, len(held_out))
    generator = load_generator(config, attributes=len(held_out.attribute_names)).eval().requires_grad_(False)
    inputs = EvalSet.take(
        held_out,
        max(config.eval_size, config.alarm_size),
        exclusive=exclusive_names(generator, held_out),
    )
    calibration = EvalSet.take(training, config.calibration_size)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(config.output_dir / "environment.json", collect_environment())
    with open(config.output_dir / "survival.jsonl", "a", encoding="utf-8") as file:
        for seed in config.seeds:
            malp = with_key(saved, seed, image_size=config.reference_size, psnr=config.psnr)
            about = {"seed": seed, "asked_psnr": malp.config.psnr, "key": malp.key_fingerprint, "detector": fingerprint(malp.state_dict()), "data": held_out.description}
            malp.detection = calibrate_surviving(malp, calibration, 0.01, seed)
            for part in config.parts:
                for line in measure(part, malp, inputs, generator, training, seed, config):
                    print(json.dumps({"part": part, **about, **line}, allow_nan=False), file=file, flush=True)


def check_attack(config: Config, training: int, grid: int) -> None:
    """Raise ValueError, before any work, if the attackers of the part "attacks" would get too few images, or images that don't have the size of the reference grid."""
    if "attacks" not in config.parts:
        return
    if training < max(config.published):
        raise ValueError(
            f"expected --published of at most {training}, the number of training images, got {max(config.published)}; leave the part attacks out with --parts, or give more images"
        )
    if config.image_size != grid:
        raise ValueError(f"the part attacks needs images of the reference grid's size, {grid}x{grid}: give --image-size {grid} or --reference-size {config.image_size}, or leave it out with --parts")


def check_splices(config: Config, held_out: int) -> None:
    """Raise ValueError, before any work, if the part "local" would paste each splice from the image itself."""
    if "local" in config.parts and (images := min(config.eval_size, held_out)) < 2:
        raise ValueError(f"the part local pastes splices from another image: expected an --eval-size and held-out images of at least 2, got {images}; or leave it out with --parts")


def evaluation_key(seed: int) -> bytes:
    """The key of a seed, which is no secret."""
    return hashlib.sha256(b"malp-disc evaluation key %d" % seed).digest()


def with_key(saved: KeyedMaLP, seed: int, **settings: float | None) -> KeyedMaLP:
    """The saved MaLP with the key of a seed, and with other settings where they aren't None."""
    given = {name: value for name, value in settings.items() if value is not None}
    malp = KeyedMaLP(dataclasses.replace(saved.config, **given), secret=evaluation_key(seed))
    malp.load_state_dict(saved.state_dict())
    return malp.eval()


@torch.no_grad()
def measure(part: Part, malp: KeyedMaLP, inputs: EvalSet, generator: Any, training: Any, seed: int, config: Config) -> Iterator[dict[str, Any]]:
    """The lines of one part."""
    few = inputs.first(config.eval_size)
    images = to_8bit(few.images.clamp(-1, 1))

    def edited(published: Tensor) -> Tensor:
        shown = few.first(len(published))
        return edit(generator.manipulate, published, shown.targets, current=shown.labels)

    if part == "fidelity":
        psnr = -10 * torch.log10((protected(malp, images) - images).square().mean((1, 2, 3)) / 4)
        yield {"n": len(images), "psnr": psnr.mean().item(), "psnr_least": psnr.min().item(), "reference": malp.config.image_size}
    elif part == "detection":
        yield from survival(malp, images, edited, seed, to_8bit(inputs.images[len(images) :].clamp(-1, 1)))
    elif part == "local":
        yield from local_edits(malp, images, edited, seed, {name: SAME_SIZE[name](seed) for name in ("none", "JPEG 75")})
    elif part == "generated":
        fake, index = to_8bit(edited(protected(malp, images))), torch.arange(len(images))
        for name in ("none", "JPEG 75", "blur 1 pixel"):
            maps = torch.cat([malp(rows, numbers).map for rows, numbers in zip(SAME_SIZE[name](seed)(fake).split(16), index.split(16))])
            yield {"degradation": name, "n": len(images), **dataclasses.asdict(localization_scores(maps, images, fake))}
    elif part == "alarms":
        share = to_8bit(inputs.images[config.seeds.index(seed) :: len(config.seeds)][: -(-config.alarm_size // len(config.seeds))].clamp(-1, 1))
        published, issued, threshold = protected(malp, share), issued_to(share), malp.threshold
        found = scores(malp, published, issued)
        counts = {"alarms": (found.score > threshold) & found.present, "lost": ~found.present, "claimed": claimed(malp, share, issued)}
        yield {"n": len(share), "threshold": threshold, **{name: int(counted.sum()) for name, counted in counts.items()}}
    elif part == "attacks":
        originals, _ = load_all(training, max(config.published), "images for the attacker")
        for line in forging(malp, originals.clamp(-1, 1), images, config.published):
            yield {"what": "forging", **line}
        for line in hiding(malp, images, seed):
            yield {"what": "hiding", **line}
    elif part == "faint":
        yield from faint_edits(malp, images, seed)
    elif part == "whole":
        yield from whole_changes(malp, images, to_8bit(inputs.images[len(images) :].clamp(-1, 1)), seed)
    elif part == "gallery" and seed == config.seeds[0]:
        survival_gallery(malp, images[:6], edited, config.output_dir / "gallery.png", seed=seed)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
