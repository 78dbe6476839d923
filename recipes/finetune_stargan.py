"""Fine-tune a pretrained StarGAN against MaLP, and report whether that made its pictures better (paper, section 4.4, Table 5).

The main job, on the embedded faces and the shipped StarGAN, a few minutes on a CPU:

    accelerate launch recipes/finetune_stargan.py

Your own StarGAN (authors' checkpoints) on CelebA; MaLP is pretrained on it first; then the same on four GPUs:

    accelerate launch recipes/finetune_stargan.py --generator-checkpoint 200000-G.ckpt --discriminator-checkpoint 200000-D.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --malp-width 64 --malp-pretrain-steps 20000 --max-train-steps 10000 \\
        --attribute-classifier runs/classifier.safetensors --arms control frozen cotrain --seeds 0 1 2 --output-dir runs/celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/finetune_stargan.py …

`--arms` chooses among eight arms (malp_disc/experiment/arms.py says what each is); `--dry-run` says what will be done and
what it needs. StarGAN's own losses stay on in every arm: without them a generator collapses, or wins by not editing. The loop itself is malp_disc/training/finetune.py;
another generator is fine-tuned by recipes/finetune.py. The report with its verdict is ``<output-dir>/report.md``, the tuned generators are
``<output-dir>/G-<arm>.safetensors``. A run that was stopped or killed goes on with ``--resume-from-checkpoint latest`` as if it hadn't been.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from generators import create_generator
from generators.stargan import stargan_discriminator
from generators.stargan_losses import StarGANObjective, StarGANWeights
from malp_disc import MaLP
from malp_disc.data import build_dataset
from malp_disc.evaluation.evaluator import check_same_attributes
from malp_disc.experiment.arms import ArmOptions, run_arms
from malp_disc.training.generator_contract import check_contract
from malp_disc.training.launch import run_recipe, start
from recipes.defaults import FACES_DISCRIMINATOR, FACES_GENERATOR, FACES_MALP


@dataclass(kw_only=True)
class Config(ArmOptions):
    generator_checkpoint: Path | None = None
    """StarGAN generator to fine-tune; the shipped one if not given."""
    discriminator_checkpoint: Path | None = None
    """Its own discriminator."""
    reconstruction_weight: float | None = None
    """λ_rec of StarGAN's own losses; give what the generator was trained with. Default: 30 for the shipped one, else the paper's 10."""


def main(config: Config) -> None:
    config.check()
    dataset = load_dataset(config)
    accelerator = start(config, dataset)
    generator, own, malp = load_networks(config, dataset, accelerator)
    run_arms(config, generator, own, malp, dataset, accelerator, source=config.generator_checkpoint or FACES_GENERATOR)


def load_dataset(config: Config) -> Dataset:
    """The training images.

    Raises:
        ValueError: options that don't go together.
    """
    if config.generator_checkpoint is not None and config.discriminator_checkpoint is None:
        raise ValueError("--generator-checkpoint needs --discriminator-checkpoint: G's own D stays on while it is fine-tuned")
    return build_dataset(config, "train")


def load_networks(config: Config, dataset: Dataset, accelerator: Accelerator) -> tuple[nn.Module, StarGANObjective, MaLP | None]:
    """The generator, its own losses, and MaLP where there is a pretrained one.

    Raises:
        ValueError: what is given doesn't go together.
    """
    own_networks = config.generator_checkpoint is not None
    generator = create_generator("stargan", config.generator_checkpoint or FACES_GENERATOR).to(accelerator.device).eval()
    check_same_attributes(dataset, generator.c_dim, str(config.generator_checkpoint or "the shipped generator"))
    check_contract(generator, dataset, accelerator.device, source=str(config.generator_checkpoint or "the shipped generator"), training=True, tell=accelerator.print)
    discriminator = stargan_discriminator(
        config.discriminator_checkpoint or FACES_DISCRIMINATOR, c_dim=len(dataset.attribute_names), image_size=config.image_size
    )
    own = StarGANObjective(discriminator, StarGANWeights(rec=config.reconstruction_weight or (10.0 if own_networks else 30.0)))
    given = config.malp or (None if own_networks else FACES_MALP)
    return generator, own, MaLP.from_pretrained(given) if given is not None else None


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
