"""Train a StarGAN from scratch on your own data, as a generator to fine-tune later.

Drawn faces, one process on the CPU:

    python recipes/train_stargan.py --output-dir runs/stargan

CelebA with the paper's network and schedule, on one GPU and on four:

    accelerate launch recipes/train_stargan.py --data celeba --data-root /data/celeba --image-size 128 --conv-dim 64 \\
        --train-batch-size 16 --n-critic 5 --max-train-steps 200000 --warmup-steps 0 --learning-rate 1e-4 \\
        --discriminator-learning-rate 1e-4 --mixed-precision bf16 --output-dir runs/stargan-celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/train_stargan.py …

With MaLP's second branch, a frozen pretrained backbone with trained heads, beside StarGAN's own discriminator or in its place:

    python recipes/train_stargan.py --realness-weight 1 --output-dir runs/stargan-branch
    python recipes/train_stargan.py --realness-weight 1 --adversarial-weight 0 --output-dir runs/stargan-branch-alone

With an attention mask as in GANimation, so that what isn't edited is copied; from scratch, or added to a trained StarGAN:

    python recipes/train_stargan.py --attention --warmup-steps 0 --output-dir runs/stargan-attention
    python recipes/train_stargan.py --attention --warmup-steps 0 --generator-checkpoint G.safetensors --discriminator-checkpoint D.safetensors …

Steps are counted as in the paper: each is one discriminator update, and every --n-critic steps the generator is updated too. The results are
``G.safetensors`` (the exponential moving average of the generator) and ``D.safetensors``, with the authors' keys. With --generator-checkpoint and
--discriminator-checkpoint, training starts from such files, with new optimizers and the schedule from its beginning. The training loop is malp_disc/training/stargan.py, one step of
it malp_disc/training/stargan_step.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from torch.utils.data import Dataset

from generators import create_generator
from generators.stargan import StarGANDiscriminator, StarGANGenerator, deepest_repeat_num, stargan_discriminator, with_attention
from generators.stargan_losses import StarGANCritic, StarGANWeights
from malp_disc.data import DataOptions, build_dataset
from malp_disc.evaluation.evaluator import check_same_attributes
from malp_disc.training.launch import check_has_attributes, run_recipe, start
from malp_disc.training.stargan import train_stargan
from malp_disc.training.stargan_branch import second_branch
from malp_disc.training.stargan_options import StarGANOptions


@dataclass(kw_only=True)
class Config(StarGANOptions, DataOptions):
    output_dir: Path = Path("runs/stargan")
    """Folder of the run, created if absent."""
    generator_checkpoint: Path | None = None
    """StarGAN generator to start from, instead of random weights. Its widths are read from the file.
    --conv-dim and --residual-blocks have no effect then. Use --warmup-steps 0 for a generator that can edit already."""
    discriminator_checkpoint: Path | None = None
    """Weights of its own discriminator."""
    conv_dim: int = 16
    """Channels of the generator's first layer. The paper uses 64."""
    discriminator_conv_dim: int | None = None
    """Channels of the discriminator's first layer. By default, those of --conv-dim."""
    residual_blocks: int = 6
    """Number of residual blocks of the generator."""
    attention: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Give the generator GANimation's attention mask, with which it copies what it doesn't edit. The paper's StarGAN has none.
    A --generator-checkpoint without a mask gets an untrained one. A mask learns to copy at once, so use --warmup-steps 0."""


def main(config: Config) -> None:
    config.check()
    if (config.generator_checkpoint is None) != (config.discriminator_checkpoint is None):
        raise ValueError("expected --generator-checkpoint and --discriminator-checkpoint, or neither; they were trained against each other")
    for name in ("conv_dim", "discriminator_conv_dim", "residual_blocks"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(config, name)}")
    dataset, held_out = build_dataset(config, "train"), build_dataset(config, "test")
    check_has_attributes(dataset, config.data, "StarGAN edits attributes", ", or recipes/train_attribute_gan.py --method cyclegan")
    accelerator = start(config, dataset)
    accelerator.print(f"{dataset.description}; {config.images_per_step * accelerator.num_processes} images per optimizer step")
    generator, discriminator = networks(config, dataset)
    weights = StarGANWeights(rec=config.reconstruction_weight, adv=config.adversarial_weight, branch=config.realness_weight)
    branch = second_branch(config, config.image_size, len(dataset.attribute_names))
    critic = StarGANCritic(discriminator, weights, branch if branch is None else branch.to(accelerator.device))
    train_stargan(generator, critic, dataset, held_out, config, accelerator)
    folder = config.output_dir
    accelerator.print(f"wrote {folder / 'G.safetensors'}, {folder / 'D.safetensors'}; look at {folder / 'samples.png'}")
    accelerator.end_training()


def networks(config: Config, dataset: Dataset) -> tuple[StarGANGenerator, StarGANDiscriminator]:
    """Generator and discriminator, from the checkpoints or with random weights."""
    attributes = len(dataset.attribute_names)
    if config.generator_checkpoint is not None:
        generator = create_generator("stargan", config.generator_checkpoint).train()
        generator = with_attention(generator) if config.attention else generator
        check_same_attributes(dataset, generator.c_dim, str(config.generator_checkpoint))
        return generator, stargan_discriminator(config.discriminator_checkpoint, c_dim=attributes, image_size=config.image_size)
    generator = StarGANGenerator(conv_dim=config.conv_dim, c_dim=attributes, repeat_num=config.residual_blocks, attention=config.attention)
    discriminator = StarGANDiscriminator(
        image_size=config.image_size,
        conv_dim=config.discriminator_conv_dim or config.conv_dim,
        c_dim=attributes,
        repeat_num=deepest_repeat_num(config.image_size),
    )
    return generator, discriminator


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
