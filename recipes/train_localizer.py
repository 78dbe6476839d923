"""Train a method that MaLP is compared with, or a localizer of your own. The same as ``malp-disc baseline``, from a checkout.

Drawn faces and the included StarGAN, then FFD with a StarGAN on CelebA:

    python recipes/train_localizer.py --method resnet50_map --output-dir runs/resnet50
    accelerate launch recipes/train_localizer.py --method ffd_reg --initial-weights xception.pth --generator-checkpoint 200000-G.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --max-train-steps 20000 --output-dir runs/ffd

The data, the generator and the pairs are those of recipes/pretrain_malp.py with the same flags. The result is the folder ``<output-dir>/localizer``, which the
benchmark takes. ``metrics.json`` has the localization and detection scores on held-out images.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.baseline import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
