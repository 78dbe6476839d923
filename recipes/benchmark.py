"""Measure localizers on the edits of many generators (paper, section 4). The same as ``malp-disc benchmark``, from a checkout.

Drawn faces, the included StarGAN and the included MaLP; then a suite, on one GPU and on four:

    python recipes/benchmark.py --images 50
    accelerate launch recipes/benchmark.py --suite benchmark.toml --output-dir runs/benchmark
    accelerate launch --multi_gpu --num_processes 4 recipes/benchmark.py --suite benchmark.toml --output-dir runs/benchmark

docs/benchmark.md explains the suite, the tables, and how your own localizer joins. The page is ``<output-dir>/benchmark.html``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.benchmark import INTERRUPTED, Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__, interrupted=INTERRUPTED)
