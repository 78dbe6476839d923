"""STGAN's training losses (Liu et al., CVPR 2019, Eq. 9-14): AttGAN's, with the same weights, for a generator that is given the change of the labels."""

from __future__ import annotations

from generators.attgan_losses import AttGANObjective


class STGANObjective(AttGANObjective):
    """STGAN's losses: λ1 = 1 and λ2 = 10 of the classifications, λ3 = 100 of the reconstruction.

    The reconstruction is G(x, 0) (Eq. 9), AttGAN's G with the image's own labels as the desired ones: their change is zero.
    """
