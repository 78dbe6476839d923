"""Pretrain MaLP for a generator (paper, section 3, Eq. 11). The same as ``malp-disc pretrain``, from a checkout.

Drawn faces and the included StarGAN, then a StarGAN on CelebA:

    python recipes/pretrain_malp.py --output-dir runs/malp
    accelerate launch recipes/pretrain_malp.py --generator-checkpoint 200000-G.ckpt --data celeba --data-root /data/celeba \\
        --image-size 128 --malp-width 64 --max-train-steps 20000 --output-dir runs/malp-celeba

The result is the folder ``<output-dir>/malp``, for `MaLP.from_pretrained` and for the other commands' --malp. ``metrics.json`` has the localization and detection
scores on held-out images, and ``fakeness.png`` shows their maps.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.pretrain import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
