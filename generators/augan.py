"""The MaLP paper's "AuGAN [60]", which can't be identified; CycleGAN's network at 340×340 stands for it.

Asnani et al. (CVPR 2023) list a generator "AuGAN [60]" at 340² in Table 4 of their benchmark and say nothing else of it. Their reference
[60] is CycleGAN (Zhu et al., ICCV 2017), which the table has apart, at 256². Networks that could be meant, none of which fits name,
reference and size together:

    AU-GAN (Kwak et al., BMVC 2021)                    fits the name; TensorFlow, 256×512
    AutoGAN (Zhang et al., WIFS 2019)                  their reference [59]; a CycleGAN generator at 256
    Augmented CycleGAN (Almahairi et al., ICML 2018)   its code is for edges2shoes at 64
    AugGAN (Huang et al., ECCV 2018)                   its authors released no code

The first three have a generator of CycleGAN's kind. So this is a stand-in and no re-implementation of any: CycleGAN's network of 9
residual blocks (`generators.cyclegan`), which takes 340 = 4 · 85 pixels a side, and any CycleGAN file. A number measured with it is no
reproduction of that column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generators.cyclegan import ResnetGenerator, cyclegan

SIZE = 340
"""Side of the images in the paper's table; `manipulate` takes others too, as CycleGAN does."""


def augan(checkpoint: str | Path | None = None, **config: Any) -> ResnetGenerator:
    """What stands for AuGAN: `generators.cyclegan.cyclegan`, with the same arguments, files, target (none) and errors."""
    return cyclegan(checkpoint, **config)
