"""Fine-tune a pretrained StarGAN against MaLP, and report whether that made its pictures better (paper, section 4.4, Table 5).

The main job, on the embedded faces and the shipped StarGAN, a few minutes on a CPU:

    accelerate launch recipes/finetune_stargan.py

Your own StarGAN (authors' checkpoints) on CelebA; MaLP is pretrained on it first; then the same on four GPUs:

    accelerate launch recipes/finetune_stargan.py --generator-checkpoint 200000-G.ckpt --discriminator-checkpoint 200000-D.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --malp-width 64 --malp-pretrain-steps 20000 --max-train-steps 10000 \\
        --attribute-classifier runs/classifier.safetensors --arms control frozen cotrain --output-dir runs/celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/finetune_stargan.py …

Arms, each from the same checkpoints with the same pictures, targets and steps:

    control   G and its own D go on training; no MaLP. What an arm does beyond this is MaLP's doing.
    frozen    plus MaLP's loss on G, MaLP fixed: the paper's first strategy.
    cotrain   plus MaLP's loss on G, MaLP learning along: the paper's second strategy.

StarGAN's own losses stay on in every arm: without them a generator collapses, or wins by not editing. The report with its verdict is
``<output-dir>/report.md``, the tuned generators are ``<output-dir>/G-<arm>.safetensors``.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from generators import create_generator
from generators.stargan import StarGANDiscriminator, StarGANGenerator, stargan_discriminator
from generators.stargan_losses import StarGANCritic, StarGANWeights, generator_losses
from malp_disc import MaLP, MaLPDiscriminator
from malp_disc.checkpoint import load_state, load_tensors, save_tensors
from malp_disc.data import DataOptions, build_dataset, dequantize, random_flip
from malp_disc.data.sampling import StepRandom
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import LossWeights
from malp_disc.report import write_report
from recipes.judging import Bench, JudgeOptions, check_same_attributes, make_bench, make_judges
from recipes.pretrain_malp import MaLPOptions, build_malp, pretrain
from recipes.shared import (
    FACES_DISCRIMINATOR,
    FACES_GENERATOR,
    FACES_MALP,
    Curves,
    TrainOptions,
    checkpoint,
    progress,
    resume,
    run_recipe,
    shuffled_targets,
    start,
    step_batches,
)

Arm = Literal["control", "frozen", "cotrain"]
# Lighter than those of pretraining, which made the arm cotrain worse: FD-faces +3.83 against the control where these have +0.44 (drawn faces, seed 0).
COTRAIN_WEIGHTS = LossWeights(magnitude=0.5, encrypted_zero=10.0, classification=0.5, map_error=10.0, map_correlation=0.0)


@dataclass(kw_only=True)
class Config(TrainOptions, MaLPOptions, JudgeOptions, DataOptions):
    output_dir: Path = Path("runs/finetune")
    arms: tuple[Arm, ...] = ("control", "cotrain")
    """What to compare. Without control there is no verdict."""
    generator_checkpoint: Path | None = None
    """StarGAN generator to fine-tune; the shipped one if not given."""
    discriminator_checkpoint: Path | None = None
    """Its own discriminator."""
    malp: Path | None = None
    """Folder of a MaLP pretrained on this generator (pretrain_malp.py). Not given: the shipped one for the shipped generator, else
    MaLP is pretrained first."""
    malp_pretrain_steps: int = 1000
    """Steps of that pretraining."""
    max_train_steps: int = 250
    """Steps of every arm; each is one update of D, of MaLP (cotrain) and of G."""
    learning_rate: float = 1e-4
    """Of G."""
    discriminator_learning_rate: float = 4e-4
    """Of G's own D. Both rates are constant and start with fresh optimizers."""
    reconstruction_weight: float | None = None
    """λ_rec of StarGAN's own losses; give what the generator was trained with. Default: 30 for the shipped one, else the paper's 10."""
    cotrain_learning_rate: float = 1e-3
    """Of MaLP in the arm cotrain."""
    cotrain_weight: float = 1.0
    """Weight of MaLP's loss on G in the arm cotrain, relative to the loss's value at the first step."""
    frozen_weight: float = 0.2
    """The same in the arm frozen. At 1 a fixed MaLP draws an adversarial checkerboard (measured in a prototype)."""
    template_dropout: float = 1.0
    """Arm cotrain: share of pictures that go without a template, so that MaLP looks at the picture and not at the template."""
    ema_decay: float = 0.99
    """Of the moving average of G that is measured and saved."""
    eval_steps: int = 125
    """Measure the Fréchet distance on the way every so many steps; 0 for never."""


def main(config: Config) -> None:
    # What is given, checked before any work
    if len(set(config.arms)) < len(config.arms) or not config.arms:
        raise ValueError(f"expected different arms out of control, frozen and cotrain, got {list(config.arms)}")
    own = config.generator_checkpoint is not None
    if own and config.discriminator_checkpoint is None:
        raise ValueError("--generator-checkpoint needs --discriminator-checkpoint: G's own D stays on while it is fine-tuned")
    accelerator = start(config)
    dataset = build_dataset(config, "train")
    c_dim = len(dataset.attribute_names)
    generator = create_generator("stargan", config.generator_checkpoint or FACES_GENERATOR)
    check_same_attributes(dataset, generator.c_dim, str(config.generator_checkpoint or "the shipped generator"))
    discriminator = stargan_discriminator(config.discriminator_checkpoint or FACES_DISCRIMINATOR, c_dim=c_dim, image_size=config.image_size)
    given = config.malp or (None if own else FACES_MALP)
    malp = MaLP.from_pretrained(given) if given is not None else None
    judges = make_judges(config, config, dataset.attribute_names, accelerator.device)
    accelerator.print(f"{dataset.description}; {config.pictures_per_step * accelerator.num_processes} pictures per optimizer step")

    # MaLP
    generator.eval().requires_grad_(False).to(accelerator.device)
    if malp is None:
        malp = pretrained_malp(generator, dataset, config, accelerator)
    malp.eval().requires_grad_(False).to(accelerator.device)

    # Before
    bench = make_bench(config, config, judges, malp, config.output_dir, accelerator.device) if accelerator.is_main_process else None
    done = bench.measured() if bench is not None and config.resume_from_checkpoint else []
    if bench is not None and "before" not in done:
        bench.measure_anchors()
        bench.measure("before", generator.manipulate, steps=0, seconds=0.0)

    # Arms
    tuned: dict[str, StarGANGenerator] = {}
    for arm in config.arms:
        result = config.output_dir / f"G-{arm}.safetensors"
        finished = torch.tensor(int(arm in done and result.exists()), device=accelerator.device)
        if accelerator.gather(finished[None]).max():  # the main process knows
            tuned[arm] = copy.deepcopy(generator)
            load_state(tuned[arm], load_tensors(result), source=str(result))
            continue
        began = time.perf_counter()
        tuned[arm] = finetune(arm, generator, discriminator, malp, dataset, bench, config, accelerator)
        if bench is not None:
            save_tensors(result, tuned[arm].state_dict(), {"attributes": " ".join(dataset.attribute_names), "arm": arm})
            bench.measure(arm, tuned[arm].manipulate, steps=config.max_train_steps, seconds=round(time.perf_counter() - began, 1))
        accelerator.wait_for_everyone()

    # Report
    if bench is not None:
        bench.draw({"before": generator.manipulate, **{arm: network.manipulate for arm, network in tuned.items()}})
        record = write_report(config.output_dir)
        print(f"{record['verdict']}\nreport: {config.output_dir / 'report.md'}, pictures: {config.output_dir / 'samples.png'}")
    accelerator.end_training()


def finetune(
    arm: Arm,
    before: StarGANGenerator,
    discriminator: StarGANDiscriminator,
    malp: MaLP,
    dataset: Dataset,
    bench: Bench | None,
    config: Config,
    accelerator: Accelerator,
) -> StarGANGenerator:
    """Eq. 12 for one arm, from copies of the given networks. Returns the moving average of the tuned generator."""
    # Networks
    generator, discriminator = copy.deepcopy(before).requires_grad_(True).train(), copy.deepcopy(discriminator)
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)).requires_grad_(False)
    weights = StarGANWeights(rec=config.reconstruction_weight or (10.0 if config.generator_checkpoint else 30.0))
    critic = StarGANCritic(discriminator, weights)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999))
    networks = {"G": generator, "D": discriminator, "G_average": average}
    optimizers = {"G": g_optimizer, "D": d_optimizer}
    disc = disc_optimizer = None
    if arm != "control":
        cotrain = arm == "cotrain"
        dropout = config.template_dropout if cotrain else 0.0
        disc = MaLPDiscriminator(copy.deepcopy(malp), trainable=cotrain, template_dropout=dropout, loss_weights=COTRAIN_WEIGHTS).to(accelerator.device)
        networks["malp"] = disc
        if cotrain:
            disc_optimizer = optimizers["malp"] = torch.optim.Adam(disc.parameter_groups(lr=config.cotrain_learning_rate))
    malp_weight = {"control": 0.0, "frozen": config.frozen_weight, "cotrain": config.cotrain_weight}[arm]

    # Resume, then prepare. A frozen MaLP isn't prepared: it has nothing to synchronise.
    folder = config.output_dir / "arms" / arm
    kept = {"networks": networks, "optimizers": optimizers, "expected": {"arm": arm, "seed": config.seed, "max_train_steps": config.max_train_steps}}
    first = resume(config, folder, **kept)
    generator_ddp, critic_ddp, g_optimizer, d_optimizer = accelerator.prepare(generator, critic, g_optimizer, d_optimizer)
    disc_ddp = None
    if disc_optimizer is not None:
        disc_ddp, disc_optimizer = accelerator.prepare(disc, disc_optimizer)
    training = [network for network in (generator_ddp, critic_ddp, disc_ddp) if network is not None]

    # Loop
    curves = Curves(config.output_dir / "curves" / f"{arm}.jsonl", accelerator, start=first)
    bar = progress(config, accelerator, start=first, label=f"fine-tune {arm}")
    micro = first * config.gradient_accumulation_steps
    for images, labels in step_batches(dataset, config, accelerator, start=first):
        noise = StepRandom(
            config.seed, micro, batch_size=len(images), rank=accelerator.process_index, world_size=accelerator.num_processes, device=accelerator.device
        )
        noise.seed_dropout()  # of MaLP's second branch
        images = dequantize(random_flip(images, noise.uniform()), noise.uniform(*images.shape[1:]))
        target = shuffled_targets(labels, noise.permutation(), accelerator)
        alpha = noise.uniform()
        values = {}
        with accelerator.accumulate(*training):  # one block: a block per network would count every step several times
            # G edits: the encrypted picture where MaLP looks on
            shown = images
            if disc is not None:
                index = torch.where(noise.uniform() < disc.template_dropout, NO_TEMPLATE, noise.integers(malp.encryption.set_size))
                encrypted, index = disc.encrypt(images, index)
                shown = encrypted.detach()
            with accelerator.autocast():
                fake = generator_ddp(shown, target)
                reconstructed = generator_ddp(fake, labels)

            # D learns
            with accelerator.autocast():
                d_losses = critic_ddp(images, fake.detach(), labels, alpha)
            accelerator.backward(d_losses.total)
            d_optimizer.step()
            d_optimizer.zero_grad()
            values |= {f"D/{name}": getattr(d_losses, name).detach() for name in ("adversarial", "classification", "penalty")}

            # G learns, from the unwrapped discriminators
            discriminator.requires_grad_(False)
            with accelerator.autocast():
                g_losses = generator_losses(discriminator, images, fake, reconstructed, target, weights)
            total = g_losses.total
            values |= {f"G/{name}": getattr(g_losses, name).detach() for name in ("adversarial", "classification", "reconstruction")}
            if disc is not None:
                fooling = disc.generator_loss(fake, index)
                total = total + malp_weight * fooling.total
                values |= {"G/malp": fooling.total.detach(), "MaLP/map": fooling.map}
            accelerator.backward(total)
            discriminator.requires_grad_(True)
            g_optimizer.step()
            g_optimizer.zero_grad()

            # MaLP learns, last: the first value of its loss on G, which scales the weight, is that of the pretrained MaLP
            if disc_ddp is not None:
                m_losses = disc_ddp(images, encrypted, fake.detach(), index)
                accelerator.backward(m_losses.total)
                disc_optimizer.step()
                disc_optimizer.zero_grad()
                values["MaLP/total"] = m_losses.total.detach()
        micro += 1
        if micro % config.gradient_accumulation_steps:
            continue
        step = micro // config.gradient_accumulation_steps
        average.update_parameters(generator)
        bar.update()
        if step % config.log_steps == 0:
            logged = curves.log(step, values)
            bar.set_postfix_str(f"D={logged['D/adversarial']:.2f} rec={logged['G/reconstruction']:.3f} map={logged.get('MaLP/map', 0):.4f}", refresh=False)
        if bench is not None and config.eval_steps and step % config.eval_steps == 0 and step < config.max_train_steps:
            bench.glance(arm, step, average.module.manipulate)
        checkpoint(config, accelerator, folder, step, **kept)
    bar.close()
    accelerator.free_memory()
    return average.module.eval()


def pretrained_malp(generator: StarGANGenerator, dataset: Dataset, config: Config, accelerator: Accelerator) -> MaLP:
    """Pretrain MaLP on the generator, or take it from an earlier try of this run."""
    folder = config.output_dir / "malp"
    if config.resume_from_checkpoint and (folder / "config.json").exists():
        return MaLP.from_pretrained(folder)
    malp = pretrain(build_malp(config), generator, dataset, dataclasses.replace(config, max_train_steps=config.malp_pretrain_steps), accelerator)
    if accelerator.is_main_process:
        malp.save_pretrained(folder)
    accelerator.wait_for_everyone()
    return malp


if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
