"""Time until the library and its command line answer, against `import torch` alone, in fresh processes.

    python benchmarks/start_up.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "import torch": [sys.executable, "-c", "import torch"],
    "from malp_disc import MaLPDiscriminator": [sys.executable, "-c", "from malp_disc import MaLPDiscriminator"],
    "malp-disc --help": [sys.executable, "-m", "malp_disc", "--help"],
}


@dataclass
class Config:
    rounds: int = 5
    """Starts of every case, in alternation after one that isn't counted; the median is reported."""


def main(config: Config) -> None:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for round_number in range(config.rounds + 1):
        for name, command in CASES.items():
            wall, cpu = time.perf_counter(), _children()
            subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
            if round_number:
                seconds[name].append((time.perf_counter() - wall, _children() - cpu))
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, median of {config.rounds}")
    for name, measured in seconds.items():
        print(f"{name:40} {median(wall for wall, _ in measured):6.2f} s, {median(cpu for _, cpu in measured):6.2f} s of CPU time")


def _children() -> float:
    """Seconds of CPU time of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
