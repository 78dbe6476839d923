"""Fine-tune a pretrained StarGAN against MaLP, and report whether its images improved (paper, section 4.4, Table 5).

Drawn faces and the included StarGAN, a few minutes on a CPU:

    accelerate launch recipes/finetune_stargan.py

Your own StarGAN (the authors' checkpoints) on CelebA, against the branch on a pretrained backbone, on one GPU and on four:

    accelerate launch recipes/finetune_stargan.py --generator-checkpoint 200000-G.ckpt --discriminator-checkpoint 200000-D.ckpt \\
        --data celeba --data-root /data/celeba --image-size 128 --max-train-steps 10000 \\
        --attribute-classifier runs/classifier.safetensors --arms control vision_aided --seeds 0 1 2 --output-dir runs/celeba
    accelerate launch --multi_gpu --num_processes 4 recipes/finetune_stargan.py …

The paper's two strategies instead, with a MaLP that is pretrained for this generator first (on real faces neither beat the control: docs/results/real-faces.md):

    accelerate launch recipes/finetune_stargan.py … --arms control frozen cotrain --malp-width 64 --malp-pretrain-steps 20000 --output-dir runs/paper

StarGAN's own losses are part of every arm: without them, a generator collapses or stops editing. --arms chooses what is compared (malp_disc/experiment/arms.py
explains the arms). --dry-run prints what the run would do and what it needs. ``--resume-from-checkpoint latest`` continues an interrupted run with the same
result as an uninterrupted one. The report is ``<output-dir>/report.html``; the tuned generators are ``<output-dir>/G-<arm>.safetensors``. The training loop is
malp_disc/training/finetune.py; any other generator is fine-tuned in the same way with recipes/finetune.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.finetune import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
