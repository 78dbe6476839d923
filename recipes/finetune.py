"""Fine-tune any pretrained generator against MaLP, and report whether that made its images better.

    accelerate launch recipes/finetune.py --generator my_module:make_generator --losses my_module:make_losses --data images --data-root photos
    accelerate launch recipes/finetune.py --generator cartoongan --generator-checkpoint Hayao_net_G_float.pth --keep-weight 10 \\
        --data images --data-root photos --reference-root frames --image-size 128 --arms control frozen cotrain --output-dir runs/cartoon

A generator is named by the zoo (generators/README.md) or as MODULE:FUNCTION, a module of the working folder (or path/to/file.py:FUNCTION, or an installed module)
and a function without arguments that returns an nn.Module with ``manipulate(images, target)``. `malp-disc doctor MODULE:FUNCTION` looks it over first. Its own losses come the same way, as an nn.Module with
``generator_loss(fake, batch, edit)`` and, where something of its own learns along, ``forward(fake, batch)``; generators/README.md shows both in ten lines. Without them
``--keep-weight`` holds it near what it was. `--reference-root` names images of the domain it leads to: the losses see them as
``batch.reference``, and the report compares with them.

`--arms` compares, `--dry-run` says what will be done and what it needs, ``--resume-from-checkpoint latest`` goes on after a stop or a kill as if it hadn't been.
The report is ``<output-dir>/report.md``, the tuned generators are ``<output-dir>/G-<arm>.safetensors``. StarGAN has a recipe of its own, finetune_stargan.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from malp_disc.commands.finetune import Config, main
from malp_disc.training.launch import run_recipe

if __name__ == "__main__":
    run_recipe(main, Config, __doc__)
