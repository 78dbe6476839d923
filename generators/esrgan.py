"""ESRGAN: enhanced super-resolution generative adversarial networks (Wang et al., ECCV workshops 2018).

Official code: https://github.com/xinntao/ESRGAN (Apache-2.0). Written from the paper and the published key list. The state-dict keys are
those of ``RRDB_ESRGAN_x4.pth`` (Google Drive, linked from the repository); checkpoints in the other two naming schemes (``…_old_arch.pth``, and BasicSR's
with ``body``) load too.

Note:
    The paper initializes with weights scaled by 0.1; here a fresh network has PyTorch's default initialization.
"""

from __future__ import annotations

from pathlib import Path

from generators.loading import agree
from generators.rrdbnet import FORMS, OLD, RRDBNet, renamed, widths
from generators.super_resolution import SuperResolution
from malp_disc.serialization.state_dicts import load_state, load_tensors


class ESRGANGenerator(SuperResolution, RRDBNet):
    """G(shrink(x)): downsamples image x by 4 and super-resolves it.

    The forward pass is the authors' network, in [0, 1]; `manipulate` and `upscale` use [-1, 1].

    Args:
        nf, gc, nb: channels of the trunk, growth channels, number of blocks (published: 64, 32, 23).

    Shape:
        `manipulate`: images (B, 3, H, W) in [-1, 1] with H and W divisible by 4, at least 16 -> (B, 3, H, W) in [-1, 1].

    Note:
        `target` is accepted and ignored, so that all generators share one interface.
    """

    def __init__(self, *, nf: int = 64, nb: int = 23, gc: int = 32) -> None:
        super().__init__(scale=4, features=nf, growth=gc, blocks=nb, naming=OLD)
        self.config = {"nf": nf, "nb": nb, "gc": gc}


def esrgan(checkpoint: str | Path | None = None, **config: int) -> ESRGANGenerator:
    """An ESRGAN generator; with a checkpoint, the widths are inferred from the tensors, and arguments given explicitly must agree.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that would have to be unpickled, a checkpoint of another network, or one that contradicts `config`.
    """
    if checkpoint is None:
        return ESRGANGenerator(**config)
    tensors = renamed(load_tensors(checkpoint, forms=FORMS, entries=("params_ema", "params", "state_dict")), OLD)
    found = widths(tensors, OLD)
    found = {ours: found[theirs] for ours, theirs in (("nf", "features"), ("nb", "blocks"), ("gc", "growth")) if found.get(theirs)}
    network = ESRGANGenerator(**agree(found, config, checkpoint))
    load_state(network, tensors, source=str(checkpoint))
    return network
