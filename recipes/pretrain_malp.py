"""Pretrain MaLP on a generator (paper, section 3, Eq. 11), from a checkout. The same as ``malp-disc pretrain``.

    python recipes/pretrain_malp.py --output-dir runs/malp                                            # drawn faces, the shipped StarGAN
    accelerate launch recipes/pretrain_malp.py --generator-checkpoint 200000-G.ckpt --data celeba --data-root /data/celeba \\
        --image-size 128 --malp-width 64 --max-train-steps 20000 --output-dir runs/malp-celeba

The result is a folder for `MaLP.from_pretrained`: ``<output-dir>/malp``. Beside it ``metrics.json`` says how well the maps match on images that weren't
trained on, and ``fakeness.png`` shows them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.pretrain import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
