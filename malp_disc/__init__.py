"""malp-disc: MaLP (CVPR 2023) finds what a generator changed, and teaches the generator to change it better."""

from malp_disc.discriminator import MaLPDiscriminator
from malp_disc.fakeness import fakeness_map
from malp_disc.losses import LossWeights
from malp_disc.malp import MaLP, MaLPConfig, MaLPOutput

__version__ = "0.1.0"
__all__ = ["LossWeights", "MaLP", "MaLPConfig", "MaLPDiscriminator", "MaLPOutput", "fakeness_map"]
