"""Time to localize: MaLP's CNN at two widths beside a ResNet-50 that regresses the map and FakeLocator's DeepLabv3-ResNet101, one CPU thread.

    python benchmarks/localize.py                         # 128 and 512 pixels, batches of 1 and 16

Each round times every localizer once, one after the other, so that other work on the machine slows all alike; a ratio is the median over the rounds of two
times within a round. A time is that of `localize`, from images in [-1, 1] to map and score at full resolution.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torchvision
import tyro
from torch import nn

from malp_disc import MaLP, MaLPConfig
from malp_disc.benchmark.fakelocator import FakeLocator
from malp_disc.benchmark.malp_localizer import MaLPLocalizer
from malp_disc.benchmark.resnet_map import ResNetMap
from malp_disc.serialization.files import write_json

RESNET, DEEPLAB = "ResNet-50 map", "DeepLabv3-R101"
ALTERNATIVES = {RESNET: ResNetMap, DEEPLAB: FakeLocator}


@dataclass
class Config:
    sides: tuple[int, ...] = (128, 512)
    batches: tuple[int, ...] = (1, 16)
    rounds: int = 5
    """Times of each localizer, after one that isn't counted."""
    widths: tuple[int, ...] = (16, 64)
    """Channels of MaLP's CNN: the default of the recipes, and that of the authors' code."""
    threads: int = 1
    device: str = "cpu"
    json: Path | None = None
    """File for the results."""


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    localizers = {f"MaLP, width {width}": malp_localizer(width) for width in config.widths} | {name: create() for name, create in ALTERNATIVES.items()}
    localizers = {name: localizer.to(config.device).eval().requires_grad_(False) for name, localizer in localizers.items()}
    where = torch.cuda.get_device_name() if config.device.startswith("cuda") else f"{config.threads} thread(s) of {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {where}, load {os.getloadavg()[0]:.1f}, median of {config.rounds} rounds")
    rows = []
    for side in config.sides:
        for batch in config.batches:
            images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(config.device) * 2 - 1
            times = interleaved(localizers, images, config.rounds)
            for name, own in times.items():
                ratios = {alternative: median(other / ours for other, ours in zip(times[alternative], own)) for alternative in ALTERNATIVES}
                seconds = median(own) / batch
                print(f"{side} px, batch {batch:2}: {name:16} {1e3 * seconds:9.2f} ms per image, " + ", ".join(f"{ratio:6.2f} × {other}" for other, ratio in ratios.items()))
                rows.append({"side": side, "batch": batch, "localizer": name, "seconds_per_image": seconds, "times_as_fast_as": ratios})
    if config.json is not None:
        write_json(config.json, {"device": where, "torch": torch.__version__, "rounds": config.rounds, "results": rows})


def malp_localizer(width: int) -> MaLPLocalizer:
    """An untrained MaLP."""
    return MaLPLocalizer(MaLP(MaLPConfig(width=width, branch=None)))


@torch.inference_mode()
def interleaved(localizers: dict[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of each localizer in each round; on a CPU those of the process, which leave out what other processes take."""
    clock = time.perf_counter if images.is_cuda else time.process_time
    times: dict[str, list[float]] = {name: [] for name in localizers}
    for number in range(rounds + 1):
        for name, localizer in localizers.items():
            began = clock()
            localizer.localize(images)
            if images.is_cuda:
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - began)
    return times


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
