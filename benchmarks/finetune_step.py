"""Time per step of the fine-tuning loop, without and with MaLP, relative to a minimal training loop.

    python benchmarks/finetune_step.py                    # shipped StarGAN, 64×64, batch 8

The minimal loop has the same networks, losses and optimizer, but no processes, checks, moving average, checkpoints or curves.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from generators import create_generator
from generators.stargan import stargan_discriminator
from generators.stargan_losses import StarGANCritic, StarGANObjective, StarGANWeights, generator_losses
from malp_disc import MaLP
from malp_disc.data.faces import ProceduralFaces
from malp_disc.malp import with_pretrained_branch
from malp_disc.runtime.allocator import keep_freed_memory
from malp_disc.serialization.files import write_json
from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_GENERATOR, FACES_MALP
from malp_disc.training.finetune import ArmSetup, FineTuning
from malp_disc.training.options import FinetuneOptions

Loop = Literal["bare loop", "control", "frozen", "cotrain", "joint", "vision_aided"]


@dataclass
class Config:
    steps: int = 12
    """Steps of one measurement. It is repeated with three times as many, and the difference is timed, to exclude start-up."""
    rounds: int = 5
    """Measurements per loop, in alternation, so that other work on the machine slows all alike; ratios are medians over them."""
    batch: int = 8
    threads: int = 1
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    loops: tuple[Loop, ...] = get_args(Loop)
    """Which loops to time, control among them, since the others are given as multiples of it."""
    json: Path | None = None
    """File for the results."""


class Drawn(Dataset):
    """Images and labels that are rendered already."""

    def __init__(self, items: list[tuple[Tensor, Tensor]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def main(config: Config) -> None:
    if "control" not in config.loops:
        sys.exit(f"expected control among --loops, which the others are compared with, got {', '.join(config.loops) or 'none'}")
    keep_freed_memory()  # as every training does
    torch.set_num_threads(config.threads)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=config.mixed_precision)
    dataset = ProceduralFaces(64, image_size=64)
    items = [dataset[i] for i in range(64)]  # rendered once, so that rendering isn't timed
    weights = StarGANWeights(rec=30.0)

    def bare(steps: int) -> None:
        generator, discriminator = (
            create_generator("stargan", FACES_GENERATOR).to(accelerator.device),
            stargan_discriminator(FACES_DISCRIMINATOR).to(accelerator.device),
        )
        critic = StarGANCritic(discriminator, weights)
        g_optimizer, d_optimizer = (
            torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.999)) for network in (generator, discriminator)
        )
        for step in range(steps):
            rows = [items[(step * config.batch + i) % 64] for i in range(config.batch)]
            images, labels = (torch.stack(part).to(accelerator.device) for part in zip(*rows))
            target = labels[torch.randperm(config.batch)]
            with accelerator.autocast():
                fake = generator(images, target)
                critic_loss = critic(images, fake.detach(), labels, torch.rand(config.batch, device=accelerator.device)).total
            critic_loss.backward()
            d_optimizer.step()
            d_optimizer.zero_grad()
            discriminator.requires_grad_(False)
            with accelerator.autocast():
                generator_loss = generator_losses(discriminator, images, fake, generator(fake, labels), target, weights).total
            generator_loss.backward()
            discriminator.requires_grad_(True)
            g_optimizer.step()
            g_optimizer.zero_grad()

    def ours(setup: ArmSetup) -> Callable[[int], None]:
        def run(steps: int) -> None:
            own = StarGANObjective(stargan_discriminator(FACES_DISCRIMINATOR), weights)
            with tempfile.TemporaryDirectory() as folder:
                options = FinetuneOptions(
                    output_dir=Path(folder), max_train_steps=steps, train_batch_size=config.batch, checkpointing_steps=10**6, dataloader_num_workers=0
                )  # workers' CPU time wouldn't be counted
                FineTuning("benchmark", setup, create_generator("stargan", FACES_GENERATOR), own, Drawn(items), options, accelerator).run()

        return run

    malp = MaLP.from_pretrained(FACES_MALP).to(accelerator.device).eval()
    runs = {
        "bare loop": bare,
        "control": ours(ArmSetup()),
        "frozen": ours(ArmSetup(malp, weight=0.2)),
        "cotrain": ours(ArmSetup(malp, trainable=True, weight=1.0, template_dropout=1.0)),
        "joint": ours(
            ArmSetup(
                with_pretrained_branch(malp), trainable=True, weight=1.0, map_weight=0.0, classifier_weight=1.0, realness_weight=1.0, template_dropout=1.0, losses="pretraining",
            )
        ),
        "vision_aided": ours(ArmSetup(with_pretrained_branch(malp), trainable=True, weight=1.0, map_weight=0.0, realness_weight=1.0, template_dropout=1.0)),
    }
    runs = {name: runs[name] for name in config.loops}
    on_gpu = accelerator.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time  # on a CPU without what other processes take
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks = dict.fromkeys(runs, 0)
    for number in range(config.rounds + 1):  # the first warms up
        for name, run in runs.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            moments = [clock()]
            for steps in (config.steps, 3 * config.steps):
                run(steps)
                if on_gpu:
                    torch.cuda.synchronize()
                moments.append(clock())
            peaks[name] = torch.cuda.max_memory_allocated() if on_gpu else 0
            if number:
                times[name].append((moments[2] - 2 * moments[1] + moments[0]) / (2 * config.steps))
    print(
        f"torch {torch.__version__}, {accelerator.device.type}, {config.threads} thread(s), 64x64, batch {config.batch}, median of {config.rounds} x {config.steps} steps, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    rows = []
    for name, own in times.items():
        ratios = {base: median(seconds / other for seconds, other in zip(own, times[base])) for base in ("bare loop", "control") if base in times}
        rows.append({"loop": name, "seconds_per_step": median(own), "times_the_bare_loop": ratios.get("bare loop"), "times_control": ratios["control"], "peak_bytes": peaks[name] or None})
        memory = f", at most {peaks[name] / 2**20:.0f} MiB" if on_gpu else ""
        print(f"{name:13} {1000 * median(own):8.1f} ms per step, {', '.join(f'{ratio:.3f} × {base}' for base, ratio in ratios.items())}{memory}")
    if config.json is not None:
        device = torch.cuda.get_device_name() if on_gpu else "cpu"
        write_json(config.json, {"device": device, "torch": torch.__version__, "mixed_precision": config.mixed_precision, "batch": config.batch, "results": rows})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
