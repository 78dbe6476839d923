"""Fine-tune any pretrained generator against MaLP, and report whether that made its pictures better.

    accelerate launch recipes/finetune.py --generator my_module:make_generator --losses my_module:make_losses --data pictures --data-root photos
    accelerate launch recipes/finetune.py --generator cartoongan --generator-checkpoint Hayao_net_G_float.pth --keep-weight 10 \\
        --data pictures --data-root photos --reference-root frames --image-size 128 --arms control frozen cotrain --output-dir runs/cartoon

A generator is named by the zoo (generators/README.md) or as MODULE:FUNCTION, a module of the working folder (or path/to/file.py:FUNCTION, or an installed module)
and a function without arguments that returns an nn.Module with ``manipulate(images, target)``. `malp-disc doctor MODULE:FUNCTION` looks it over first. Its own losses come the same way, as an nn.Module with
``generator_loss(fake, batch, edit)`` and, where something of its own learns along, ``forward(fake, batch)``; generators/README.md shows both in ten lines. Without them
``--keep-weight`` holds it near what it was. `--reference-root` names pictures of the domain it leads to: the losses see them as
``batch.reference``, and the report compares with them.

`--arms` compares, `--dry-run` says what will be done and what it needs, ``--resume-from-checkpoint latest`` goes on after a stop or a kill as if it hadn't been.
The report is ``<output-dir>/report.md``, the tuned generators are ``<output-dir>/G-<arm>.safetensors``. StarGAN has a recipe of its own, finetune_stargan.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from generators import create_generator
from malp_disc import MaLP
from malp_disc.data import PlainFolder, WithReferences, build_dataset
from malp_disc.experiment.arms import ArmOptions, run_arms
from malp_disc.import_object import call_by_name
from malp_disc.training.generator_contract import check_contract, check_own_losses
from malp_disc.training.launch import run_recipe, start


@dataclass(kw_only=True)
class Config(ArmOptions):
    generator: str
    """Name of the zoo, or MODULE:FUNCTION that makes one."""
    generator_checkpoint: Path | None = None
    """Weights of a generator of the zoo."""
    losses: str | None = None
    """Its own losses, MODULE:FUNCTION. Without them --keep-weight (10 if not given) is all that holds it."""
    reference_root: Path | None = None
    """Pictures of the domain that the generator leads to: its own losses see them, and its pictures are compared with them."""
    paired: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Each picture has its partner, of the same name, in --reference-root."""


def main(config: Config) -> None:
    # What is given, checked before any work
    if config.losses is None and not config.keep_weight:
        config.keep_weight = 10.0
    config.check()
    if config.paired and config.reference_root is None:
        raise ValueError("--paired needs --reference-root, the folder of the partners")
    if ":" in config.generator and config.generator_checkpoint is not None:
        raise ValueError("--generator-checkpoint is for generators of the zoo; your own function loads its weights itself")
    dataset, reference = build_dataset(config, "train"), None
    if config.reference_root is not None:
        dataset = WithReferences(dataset, config.reference_root, paired=config.paired)
        reference = PlainFolder(config.reference_root, image_size=config.image_size, crop_size=config.crop_size, test_size=0)
    accelerator = start(config, dataset)

    # The generator, its own losses, and MaLP
    made = call_by_name(config.generator) if ":" in config.generator else create_generator(config.generator, config.generator_checkpoint)
    check_contract(made, dataset, accelerator.device, source=config.generator, training=True, tell=accelerator.print)
    generator = made.to(accelerator.device).eval()
    own = call_by_name(config.losses) if config.losses is not None else None
    if own is not None:
        check_own_losses(own, generator, dataset, accelerator.device, source=config.losses)
    malp = MaLP.from_pretrained(config.malp) if config.malp is not None else None

    # The arms, measured side by side
    run_arms(config, generator, own, malp, dataset, accelerator, source=config.generator_checkpoint, reference=reference)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
