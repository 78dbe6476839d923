"""Train a method that MaLP is compared with, or a localizer of your own, on pairs of an image and its edit (paper, sections 4.2 and 4.3).

Drawn faces and the included StarGAN, then your own localizer and generator, then FFD with a StarGAN on CelebA:

    malp-disc baseline --method resnet50_map --output-dir runs/resnet50
    malp-disc baseline --method my_localizer:make --generator my_module:make --data images --data-root photos --image-size 128 --output-dir runs/mine
    accelerate launch -m malp_disc baseline --method ffd_reg --initial-weights xception.pth --generator-checkpoint 200000-G.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --max-train-steps 20000 --output-dir runs/ffd

The data, the generator and the pairs are those of malp-disc pretrain with the same flags. The result is the folder ``<output-dir>/localizer``, which the benchmark
takes, as ``my_localizer:make=runs/mine/localizer`` if the method is your own. ``metrics.json`` has the localization and detection scores on held-out images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from malp_disc.benchmark.localizer import thresholds_of
from malp_disc.benchmark.measure import measure
from malp_disc.benchmark.methods import save_method
from malp_disc.benchmark.results import summarized
from malp_disc.benchmark.run import published_by
from malp_disc.data import build_dataset
from malp_disc.evaluation.eval_set import EvalSet, edit
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.levels import as_images, quantize
from malp_disc.manipulate import Manipulate
from malp_disc.run_folder.experiment import training_settings
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.serialization.files import write_json
from malp_disc.target_kind import exclusive_names
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import start
from malp_disc.training.localizer import train_localizer
from malp_disc.training.localizer_options import LocalizerOptions, build_method

_MEASURED = 512  # held-out images


@dataclass(kw_only=True)
class Config(LocalizerOptions, GeneratorOptions):
    """Flags of the training."""


def main(config: Config) -> None:
    """Train the method, measure it on held-out images, and write both to ``config.output_dir``.

    Raises:
        ValueError, FileNotFoundError: invalid flags or files, or a folder that belongs to another run; before any work.
    """
    dataset, held_out = build_dataset(config, "train"), build_dataset(config, "test")
    if len(held_out) < 2:
        raise ValueError(f"expected at least 2 held-out images to score the maps on, got {len(held_out)}; see --test-size")
    config.check(dataset)
    config.check_generator_options()
    with random_state_kept():
        build_method(config)  # a wrong name or file is found before the folder is opened
    accelerator = start(config, dataset)
    generator = load_generator(config, attributes=len(dataset.attribute_names))
    check_contract(generator, dataset, accelerator.device, source=config.generator_name, tell=accelerator.print)
    generator.eval().requires_grad_(False).to(accelerator.device)
    inputs = EvalSet.take(held_out, _MEASURED, exclusive=exclusive_names(generator, held_out))
    torch.manual_seed(config.seed)  # the same initial weights whatever the generator's construction has drawn
    method = train_localizer(build_method(config), generator, dataset, config, accelerator)
    if accelerator.is_main_process:
        save_method(config.output_dir / "localizer", method, config.method, {"data": dataset.description, "generator": config.generator_name, **training_settings(config)})
        report(method, generator.manipulate, inputs, config, accelerator.device)
    accelerator.end_training()


def report(method: nn.Module, manipulate: Manipulate, inputs: EvalSet, config: Config, device: torch.device) -> None:
    """Measure the method on held-out images, print it and write ``metrics.json``."""
    found = score(method, manipulate, inputs, device=device)
    write_json(config.output_dir / "metrics.json", {"n": len(inputs.images), "method": config.method, "scores": found})
    value = {name: estimate[0] for name, estimate in found.items()}
    has_maps, changed = "false_pixels" in value, "cs" in value
    said = f"CS {value['cs']:.3f} (a constant map: {value['cs_constant']:.3f}), Pearson {value['pearson']:.3f}, " if changed else "nothing was changed, " * has_maps
    print(
        f"{config.method} on {len(inputs.images)} held-out images: {said}detection AUC {value['auc']:.4f}, "
        f"average precision {value['average_precision']:.4f}; saved in {config.output_dir / 'localizer'}"
    )


def score(method: nn.Module, manipulate: Manipulate, inputs: EvalSet, *, device: torch.device | str = "cpu") -> dict[str, tuple[float | None, ...]]:
    """The benchmark's scores (`malp_disc.benchmark.measure`) on the edits of held-out images, in 8 bits: value and ends of the 95 % interval over images, by name."""
    real = quantize(inputs.images)
    published = published_by(method, real, device)
    edited = quantize(edit(manipulate, as_images(published), inputs.targets, current=inputs.labels, device=device))
    threshold, score_threshold = thresholds_of(method)
    return summarized(measure(method, real, published, edited, threshold=threshold, device=device), score_threshold=score_threshold)
