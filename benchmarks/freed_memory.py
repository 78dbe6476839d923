"""Time of features of images with freed memory kept (`malp_disc.runtime.allocator`), as every command does, against glibc's default, in fresh processes.

    python benchmarks/freed_memory.py --weights fid_inception_to_mixed_7a.safetensors      # 64 images of 256 pixels
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro

from malp_disc.metrics.extractor import extract_features
from malp_disc.metrics.features import create_extractor
from malp_disc.runtime.allocator import keep_freed_memory

Network = Literal["inception-768", "squeezenet"]


@dataclass
class Config:
    weights: Path | None = None
    """FID's Inception; downloaded if not given."""
    images: int = 64
    side: int = 256
    batch: int = 16
    threads: int = 2
    rounds: int = 3
    """Processes of each kind, in alternation; the median is reported."""
    only: tuple[Network, bool] | None = None
    """Used by the script for its own processes: a network, and whether to keep freed memory."""


def main(config: Config) -> None:
    if config.only is not None:
        print(json.dumps(measured(*config.only, config)))
        return
    print(f"torch {torch.__version__}, {config.threads} threads of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, n = {config.images}, median of {config.rounds}")
    for network in ("inception-768", "squeezenet"):
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(config.rounds):
            for kept, rows in found.items():
                rows.append(in_fresh_process(network, kept, config))
        default, ours = ({name: median(row[name] for row in rows) for name in rows[0]} for rows in found.values())
        for name, row in (("default", default), ("kept", ours)):
            print(f"{network:13} {name:8} {row['wall']:6.2f} s, CPU {row['user']:6.2f} s + {row['system']:5.2f} s in the kernel, {row['mebibytes']:.0f} MiB")
        print(f"{network:13} {median(a['wall'] / b['wall'] for a, b in zip(*found.values())):.2f} times as fast, within a round")


def in_fresh_process(network: Network, kept: bool, config: Config) -> dict[str, float]:
    """`measured` by a process of its own."""
    flags = [f"--{name}={getattr(config, name)}" for name in ("images", "side", "batch", "threads", "weights") if getattr(config, name) is not None]
    command = [sys.executable, __file__, *flags, "--only", network, str(kept)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(network: Network, kept: bool, config: Config) -> dict[str, float]:
    """Seconds, and the largest memory of the process, for the features of random images."""
    if kept:
        keep_freed_memory()
    torch.set_num_threads(config.threads)
    extractor = create_extractor(network, weights=config.weights if network == "inception-768" else None)
    images = torch.rand(config.images, 3, config.side, config.side) * 2 - 1
    extract_features(extractor, images[: config.batch].split(config.batch))
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    extract_features(extractor, images.split(config.batch))
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return {"wall": wall, "user": after.ru_utime - before.ru_utime, "system": after.ru_stime - before.ru_stime, "mebibytes": after.ru_maxrss / 1024}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
