"""Train a StarGAN from scratch on your own data, as a generator to fine-tune later.

Drawn faces, one process on the CPU:

    python recipes/train_stargan.py --output-dir runs/stargan

CelebA with the paper's network and schedule, on one GPU and on four:

    accelerate launch recipes/train_stargan.py --data celeba --data-root /data/celeba --image-size 128 --conv-dim 64 \\
        --train-batch-size 16 --n-critic 5 --max-train-steps 200000 --warmup-steps 0 --learning-rate 1e-4 \\
        --discriminator-learning-rate 1e-4 --mixed-precision bf16 --output-dir runs/stargan-celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/train_stargan.py …

Steps are counted as in the paper: each is one discriminator update, and every --n-critic steps the generator is updated too. The results are
``G.safetensors`` (the exponential moving average of the generator) and ``D.safetensors``, with the authors' keys. With --generator-checkpoint and
--discriminator-checkpoint, training starts from such files, with new optimizers and the schedule from its beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import make_grid, save_image

from generators import create_generator
from generators.stargan import StarGANDiscriminator, StarGANGenerator, deepest_repeat_num, stargan_discriminator
from generators.stargan_losses import StarGANCritic, StarGANWeights, generator_losses
from malp_disc.data import DataOptions, build_dataset
from malp_disc.evaluation.evaluator import check_same_attributes
from malp_disc.metrics.editing import HAIR_COLOURS
from malp_disc.run_folder.experiment import not_compared, training_settings
from malp_disc.serialization.files import atomic_path
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training.batches import micro_batches, steps
from malp_disc.training.checkpoints import CheckpointManager, check_space
from malp_disc.training.curves import Curves, progress
from malp_disc.training.interrupt import GracefulInterrupt
from malp_disc.training.launch import run_recipe, start
from malp_disc.training.learning_rates import constant_then_linear, set_learning_rates
from malp_disc.training.train_options import TrainOptions


@dataclass(kw_only=True)
class Config(TrainOptions, DataOptions):
    output_dir: Path = Path("runs/stargan")
    """Folder of the run, created if absent."""
    max_train_steps: int = 40_000
    """Number of discriminator updates."""
    train_batch_size: int = 16
    """Images per process and micro-batch."""
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
    n_critic: int = 2
    """Discriminator updates per generator update, 1 or more. The paper uses 5."""
    learning_rate: float = 3e-4
    """Learning rate of the generator. It is constant for the first half of the steps and then falls linearly to 0."""
    discriminator_learning_rate: float = 4e-4
    """Learning rate of the discriminator, with the same schedule. The paper trains five times longer with 1e-4 for both."""
    reconstruction_weight: float = 10.0
    """Weight λ_rec of the reconstruction loss. The paper uses 10.
    At 64x64 the L1 loss is weak compared with WGAN's; a larger weight preserves the face."""
    identity_share: float = 0.0
    """Share of each batch, in [0, 1], whose target is its own labels; an L1 loss to the input with the same weight is added for these images.
    The paper doesn't have it. The included generator was trained with 0.25, without an ablation."""
    warmup_steps: int = 4000
    """Number of first steps in which the generator only learns to copy, G(x, own labels) -> x, with an L1 loss.
    The discriminator joins in the last quarter of them, so that adversarial training starts from recognisable faces."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the generator's weights, in [0, 1). The average is saved as G.safetensors."""
    save_precision: Literal["float32", "float16"] = not_compared("float32")
    """Precision of the saved G and D files. float16 halves their size; they are computed with in float32 either way."""


def main(config: Config) -> None:
    if (config.generator_checkpoint is None) != (config.discriminator_checkpoint is None):
        raise ValueError("expected --generator-checkpoint and --discriminator-checkpoint, or neither; they were trained against each other")
    if config.random_crop is not None:
        raise ValueError("--random-crop has no place here: StarGAN's discriminator takes images of one size")

    # Data
    dataset = build_dataset(config, "train")
    held_out = build_dataset(config, "test")
    accelerator = start(config, dataset)
    c_dim = len(dataset.attribute_names)

    # Networks
    if config.generator_checkpoint is not None:
        generator = create_generator("stargan", config.generator_checkpoint).train()
        check_same_attributes(dataset, generator.c_dim, str(config.generator_checkpoint))
        discriminator = stargan_discriminator(config.discriminator_checkpoint, c_dim=c_dim, image_size=config.image_size)
    else:
        generator = StarGANGenerator(conv_dim=config.conv_dim, c_dim=c_dim, repeat_num=config.residual_blocks)
        discriminator = StarGANDiscriminator(
            image_size=config.image_size,
            conv_dim=config.discriminator_conv_dim or config.conv_dim,
            c_dim=c_dim,
            repeat_num=deepest_repeat_num(config.image_size),
        )
    weights = StarGANWeights(rec=config.reconstruction_weight)
    critic = StarGANCritic(discriminator, weights)
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)).to(accelerator.device)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999))

    # Resume, then prepare
    networks = {"G_raw": generator, "D": discriminator, "G_average": average}
    settings = {"attribute_names": list(dataset.attribute_names), **training_settings(config)}
    training = CheckpointManager(config.output_dir, networks=networks, optimizers={"G": g_optimizer, "D": d_optimizer}, settings=settings)
    first = training.resume(config, accelerator)["step"]
    check_space(config.output_dir, training.space(config))
    generator_ddp, critic_ddp, g_optimizer, d_optimizer = accelerator.prepare(generator, critic, g_optimizer, d_optimizer)

    # Loop
    fixed = [held_out[i] for i in range(min(8, len(held_out)))]
    images_fixed = torch.stack([image for image, _ in fixed]).to(accelerator.device)
    labels_fixed = torch.stack([label for _, label in fixed]).to(accelerator.device)
    curves = Curves(config.output_dir / "curves.jsonl", accelerator, start=first)
    bar = progress(config, accelerator, start=first, label="train StarGAN")
    accelerator.print(f"{dataset.description}; {config.images_per_step * accelerator.num_processes} images per optimizer step")
    if first == 0 and accelerator.is_main_process:
        draw(average, images_fixed, labels_fixed, dataset.attribute_names, config.output_dir / "samples" / "000000.png")
    with GracefulInterrupt() as interrupt:
        for step, batches in steps(dataset, config, accelerator, start=first):
            factor = constant_then_linear(step - 1, config.max_train_steps)
            set_learning_rates(g_optimizer, [config.learning_rate * factor])
            set_learning_rates(d_optimizer, [config.discriminator_learning_rate * factor])
            own = [batch.noise.uniform() < config.identity_share for batch in batches]
            for batch, chosen in zip(batches, own):
                batch.target = torch.where(chosen[:, None], batch.labels, batch.target)
            values = {}
            if step - 1 >= 0.75 * config.warmup_steps:
                # Discriminator update
                for batch in micro_batches(accelerator, batches, critic_ddp):
                    with torch.no_grad(), accelerator.autocast():
                        fake = generator(batch.images, batch.target)
                    with accelerator.autocast():
                        d_losses = critic_ddp(batch.images, fake, batch.labels, batch.noise.uniform())
                    accelerator.backward(d_losses.total / len(batches))
                d_optimizer.step()
                d_optimizer.zero_grad()
                values |= {f"D/{name}": getattr(d_losses, name).detach() for name in ("adversarial", "classification", "penalty")}
            if step <= config.warmup_steps:
                # Generator update: warm-up, copying the input
                for batch in micro_batches(accelerator, batches, generator_ddp):
                    with accelerator.autocast():
                        copying = F.l1_loss(generator_ddp(batch.images, batch.labels), batch.images)
                    accelerator.backward(copying / len(batches))
                values["G/copying"] = copying.detach()
            elif step % config.n_critic == 0:
                # Generator update: editing
                discriminator.requires_grad_(False)
                for batch, chosen in micro_batches(accelerator, list(zip(batches, own)), generator_ddp):
                    with accelerator.autocast():
                        fake = generator_ddp(batch.images, batch.target)
                        g_losses = generator_losses(discriminator, batch.images, fake, generator_ddp(fake, batch.labels), batch.target, weights)
                        copying = ((fake - batch.images).abs().mean((1, 2, 3)) * chosen).sum() / len(fake)
                    accelerator.backward((g_losses.total + weights.rec * copying) / len(batches))
                discriminator.requires_grad_(True)
                values |= {f"G/{name}": getattr(g_losses, name).detach() for name in ("adversarial", "classification", "reconstruction")}
            if values.keys() & {"G/copying", "G/adversarial"}:
                g_optimizer.step()
                g_optimizer.zero_grad()
            average.update_parameters(generator)
            bar.update()
            if step % config.log_steps == 0:
                shown = curves.log(step, values)
                bar.set_postfix_str(" ".join(f"{key}={value:.3g}" for key, value in shown.items()), refresh=False)
            if accelerator.is_main_process and step % config.sample_steps == 0:
                draw(average, images_fixed, labels_fixed, dataset.attribute_names, config.output_dir / "samples" / f"{step:06d}.png")
            stop = interrupt.requested()
            if training.due(step, config) or stop:
                training.save(step, config, accelerator)
            if stop:
                raise KeyboardInterrupt
    bar.close()

    # Results
    if accelerator.is_main_process:
        metadata = {"attributes": " ".join(dataset.attribute_names), "image_size": str(config.image_size), "data": dataset.description}
        for name, network in (("G", average.module), ("D", discriminator)):
            tensors = {key: value.to(getattr(torch, config.save_precision)) if value.is_floating_point() else value for key, value in network.state_dict().items()}
            save_tensors(config.output_dir / f"{name}.safetensors", tensors, metadata)
        draw(average, images_fixed, labels_fixed, dataset.attribute_names, config.output_dir / "samples.png")
        print(f"wrote {config.output_dir / 'G.safetensors'}, {config.output_dir / 'D.safetensors'}; look at {config.output_dir / 'samples.png'}")
    accelerator.end_training()


@torch.no_grad()
def draw(generator: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, names: Sequence[str], path: Path) -> None:
    """Save a grid with one row per face: the image, its reconstruction with its own labels, and an edit of every attribute (hair colours are set, others flipped)."""
    columns = [images, generator(images, labels)]
    hair = [i for i, name in enumerate(names) if name in HAIR_COLOURS]
    for attribute in range(labels.shape[1]):
        target = labels.clone()
        target[:, attribute] = 1 - labels[:, attribute]
        if attribute in hair and len(hair) > 1:
            target[:, hair] = 0
            target[:, attribute] = 1
        columns.append(generator(images, target))
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    with atomic_path(path) as temporary:
        save_image(make_grid((rows.clamp(-1, 1) + 1) / 2, nrow=len(columns), padding=1), temporary)


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
