"""Stand-in for the MaLP paper's "AuGAN [60]", which could not be identified: CycleGAN's network, at 340×340.

Asnani et al. (CVPR 2023) list a generator "AuGAN [60]" at 340² in Table 4 of their benchmark without further details. Their reference
[60] is CycleGAN (Zhu et al., ICCV 2017), which the table lists separately, at 256². Candidates, none of which matches name, reference and size:

    AU-GAN (Kwak et al., BMVC 2021)                    fits the name; TensorFlow, 256×512
    AutoGAN (Zhang et al., WIFS 2019)                  their reference [59]; a CycleGAN generator at 256
    Augmented CycleGAN (Almahairi et al., ICML 2018)   its code is for edges2shoes at 64
    AugGAN (Huang et al., ECCV 2018)                   its authors released no code

The first three have a generator similar to CycleGAN's. This is not a re-implementation of any of them: it is CycleGAN's network of 9 residual
blocks (`generators.cyclegan`), which accepts sides of 340 = 4 · 85 pixels, with any CycleGAN checkpoint. Numbers measured with it don't
reproduce that column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.cyclegan import ResnetGenerator, cyclegan

SIZE = 340
"""Side of the images in the paper's table; `manipulate` takes others too, as CycleGAN does."""


def augan(checkpoint: str | Path | None = None, **config: Any) -> ResnetGenerator:
    """`generators.cyclegan.cyclegan` with the same arguments, checkpoints, target (ignored) and errors."""
    return cyclegan(checkpoint, **config)
