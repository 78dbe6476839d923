"""MaLP's pretrained second branch as a discriminator of a StarGAN that is trained from scratch."""

from __future__ import annotations

from malp_disc.backbones import default_depths
from malp_disc.config import MaLPConfig
from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.losses import COTRAIN_WEIGHTS
from malp_disc.malp import MaLP, with_pretrained_branch
from malp_disc.runtime.random_state import random_state_kept
from malp_disc.training.stargan_options import StarGANOptions


def second_branch(config: StarGANOptions, image_size: int, attributes: int = 0) -> MaLPDiscriminator | None:
    """MaLP's second branch alone, with untrained heads that follow from the seed, or None without a weight.

    Raises:
        ValueError, FileNotFoundError: as `malp_disc.malp.with_pretrained_branch`.
    """
    if not config.realness_weight:
        return None
    labels = attributes if config.conditional_realness else 0
    depths = config.backbone_depths or default_depths(image_size, config.backbone_side)
    with random_state_kept(seed=config.seed):
        narrow = MaLP(MaLPConfig(image_size=image_size, width=8, branch=None))  # its CNN isn't asked
        malp = with_pretrained_branch(narrow, config.backbone, weights=config.backbone_weights, side=config.backbone_side, depths=depths, labels=labels)
    return MaLPDiscriminator(malp, trainable=True, train_cnn=False, template_dropout=1.0, loss_weights=COTRAIN_WEIGHTS["light"])
