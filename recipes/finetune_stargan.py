"""Fine-tune a pretrained StarGAN against MaLP, and report whether that made its images better (paper, section 4.4, Table 5).

The main job, on the embedded faces and the shipped StarGAN, a few minutes on a CPU:

    accelerate launch recipes/finetune_stargan.py

Your own StarGAN (authors' checkpoints) on CelebA; MaLP is pretrained on it first; then the same on four GPUs:

    accelerate launch recipes/finetune_stargan.py --generator-checkpoint 200000-G.ckpt --discriminator-checkpoint 200000-D.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --malp-width 64 --malp-pretrain-steps 20000 --max-train-steps 10000 \\
        --attribute-classifier runs/classifier.safetensors --arms control frozen cotrain --seeds 0 1 2 --output-dir runs/celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/finetune_stargan.py …

`--arms` chooses among eight arms (malp_disc/experiment/arms.py says what each is); `--dry-run` says what will be done and
what it needs. StarGAN's own losses stay on in every arm: without them a generator collapses, or wins by not editing. The loop itself is malp_disc/training/finetune.py;
another generator is fine-tuned by recipes/finetune.py. The report with its verdict is ``<output-dir>/report.md``, the tuned generators are
``<output-dir>/G-<arm>.safetensors``. A run that was stopped or killed goes on with ``--resume-from-checkpoint latest`` as if it hadn't been.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.finetune import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
