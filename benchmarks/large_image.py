"""Peak memory and time of localizing a large image: in windows, as `malp-disc localize` does, and in one pass over the whole image.

    python benchmarks/large_image.py                      # 24 megapixels in windows, 6 in one pass

Each measurement is a process of its own, whose peak includes Python and PyTorch. One pass takes gigabytes, so by default it gets a smaller image; its memory
grows with the number of pixels. The two don't give the same map: E_C's group norms take their statistics from a window of the training size (`malp_disc.tiling`).
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
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro

from malp_disc import MaLP
from malp_disc.shipped import FACES_MALP
from malp_disc.tiling import inspect_levels

MIB = 1 << 20


@dataclass
class Config:
    malp: Path = FACES_MALP
    windows_size: tuple[int, int] = (6000, 4000)
    pass_size: tuple[int, int] = (3000, 2000)
    threads: int = 1
    measure: Literal["windows", "pass"] | None = None
    """Set by the program for its own sub-processes."""


def main(config: Config) -> None:
    if config.measure is not None:
        print(json.dumps(measure(config)))
        return
    print(f"torch {torch.__version__}, {config.threads} thread(s) of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {config.malp.name}")
    for kind, size in (("windows", config.windows_size), ("pass", config.pass_size)):
        command = [sys.executable, __file__, "--measure", kind, "--malp", str(config.malp), "--threads", str(config.threads)]
        sizes = [f"--{name}-size" for name in ("windows", "pass")]
        command += [sizes[0], *map(str, config.windows_size), sizes[1], *map(str, config.pass_size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        pixels = size[0] * size[1]
        print(
            f"{kind:8} {size[0]}x{size[1]}: peak {found['peak']:6.0f} MiB, of which {found['before']:.0f} before, {found['peak'] - found['before']:.0f} for the image "
            f"({(found['peak'] - found['before']) * MIB / pixels:.0f} bytes per pixel), {found['seconds']:.0f} s of CPU time"
        )


def measure(config: Config) -> dict[str, float]:
    """Peak resident memory in MiB, before and after localizing, and seconds of CPU time."""
    torch.set_num_threads(config.threads)
    malp = MaLP.from_pretrained(config.malp).eval()
    width, height = config.windows_size if config.measure == "windows" else config.pass_size
    before = peak()
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    began = time.process_time()
    if config.measure == "windows":
        inspect_levels(malp, levels)
    else:
        with torch.inference_mode():
            malp(torch.from_numpy(levels).permute(2, 0, 1)[None] / 127.5 - 1)
    return {"before": before, "peak": peak(), "seconds": time.process_time() - began}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
