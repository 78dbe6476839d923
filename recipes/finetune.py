"""Fine-tune any pretrained generator against MaLP, and report whether its images improved. The same as ``malp-disc finetune``, from a checkout.

Your own generator and losses, after a check:

    malp-disc doctor my_module:make_generator --losses my_module:make_losses --attributes 0
    accelerate launch recipes/finetune.py --generator my_module:make_generator --losses my_module:make_losses --data images --data-root photos \\
        --arms control vision_aided --output-dir runs/mine

A generator of the zoo without losses of its own, with images of its target domain:

    accelerate launch recipes/finetune.py --generator cartoongan --generator-checkpoint Hayao_net_G_float.pth --keep-weight 10 \\
        --data images --data-root photos --reference-root frames --image-size 128 --arms control vision_aided --output-dir runs/cartoon

A generator is a name of the zoo (generators/README.md), or MODULE:FUNCTION, a function without arguments that returns an nn.Module with
``manipulate(images, target)``. MODULE is a module of the working folder, an installed one, or path/to/file.py. The generator's own losses are given in the same
way, as an nn.Module with ``generator_loss(fake, batch, edit)`` and, if it has parameters to train, ``forward(fake, batch)``; generators/README.md shows
both in ten lines. Without them, --keep-weight keeps the generator close to the original one. --reference-root is a folder with images of the target domain:
the losses get them as ``batch.reference``, and the report compares the generator's images with them.

--arms chooses what is compared. --dry-run prints what the run would do and what it needs. ``--resume-from-checkpoint latest`` continues an interrupted run with
the same result as an uninterrupted one. The report is ``<output-dir>/report.html``; the tuned generators are ``<output-dir>/G-<arm>.safetensors``.
For a StarGAN, recipes/finetune_stargan.py has the commands.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.finetune import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
