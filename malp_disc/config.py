"""Architecture and template set of a MaLP, saved in its ``config.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from malp_disc.official.networks import OFFICIAL_SIZE, OFFICIAL_WIDTH


@dataclass(frozen=True, kw_only=True)
class MaLPConfig:
    """Architecture and template set of a MaLP.

    Attributes:
        image_size: side of the training images. The CNN accepts any size; templates are resampled to it.
        set_size: n, number of templates (paper: 1 in its main tables).
        strength: m of Eq. 6 (paper: 0.3); 0 gives a passive detector.
        architecture: "paper", or "official": the networks of the authors' code, for 128×128 images and of width 64 (`MaLP.from_official`).
        width: channels of the shallow CNN (64 in the authors' code; smaller is faster).
        branch: the second branch: "vit", the paper's transformer E_T, which is used in training only; the name of a timm model (or "squeezenet1_0"), a frozen
            pretrained backbone with trained heads (`malp_disc.feature_branch`); or None.
        branch_side: images whose shorter side is smaller are enlarged to it for a backbone.
        branch_depths: number of the backbone's feature maps that the heads look at, the finest first, 1 or more; all that it has if there are fewer.
        branch_labels: number of attributes that a pretrained second branch is told of each image, 0 for none (`malp_disc.feature_branch`).
        backbone_fingerprint: of the backbone's weights, set by `MaLP`, so that a saved MaLP isn't used with others.
        template_size: side of the templates; the smaller of `image_size` and the paper's 128 if None.
        vit_generation: version of an official transformer, one of `malp_disc.official.vit.VIT_GENERATIONS`; unused otherwise.
    """

    image_size: int = 128
    set_size: int = 1
    strength: float = 0.3
    architecture: str = "paper"
    width: int = 64
    branch: str | None = "vit"
    branch_side: int = 64
    branch_depths: int = 4
    branch_labels: int = 0
    backbone_fingerprint: str | None = None
    template_size: int | None = None
    vit_generation: str = "prenorm"

    @property
    def pretrained_branch(self) -> bool:
        """Whether the second branch is a pretrained backbone with heads."""
        return self.branch not in ("vit", None)

    def without_branch(self) -> MaLPConfig:
        """The same without a second branch, and without the settings that only a pretrained one has."""
        return dataclasses.replace(self, branch=None, branch_labels=0, backbone_fingerprint=None)

    def __post_init__(self) -> None:
        if self.architecture not in ("paper", "official"):
            raise ValueError(f"unknown architecture {self.architecture!r}; this version has 'paper' and 'official'")
        asked = (self.image_size, self.width, self.template_size or OFFICIAL_SIZE)
        if self.architecture == "official" and asked != (OFFICIAL_SIZE, OFFICIAL_WIDTH, OFFICIAL_SIZE):
            raise ValueError(f"the authors' networks have image size 128, width 64 and template size 128, got {asked}; architecture='paper' takes others")
        if self.image_size < 16:
            raise ValueError(f"expected an image size of at least 16, got {self.image_size}")
        if self.template_size is not None and self.template_size < 1:
            raise ValueError(f"expected a template size of at least 1, or None for that of the images, at most the paper's 128, got {self.template_size}")
        if self.branch == "vit" and self.image_size % 8:
            raise ValueError(f"the transformer branch cuts images into 8x8 patches: expected an image size divisible by 8, got {self.image_size}; or branch=None")
        if self.branch_side < 32:
            raise ValueError(f"expected a branch side of at least 32 pixels, got {self.branch_side}")
        if self.branch_depths < 1:
            raise ValueError(f"expected at least one branch depth, got {self.branch_depths}")
        if self.branch_labels < 0 or (self.branch_labels and not self.pretrained_branch):
            raise ValueError(f"expected branch labels of 0, or more with a pretrained second branch, got {self.branch_labels} with branch {self.branch!r}")
        if self.architecture == "official" and self.branch not in ("vit", None):
            raise ValueError(f"the authors' architecture has the transformer as its second branch: expected branch 'vit' or None, got {self.branch!r}")
        if self.width < 4 or self.width % max(1, self.width // 8):
            raise ValueError(f"expected a width of at least 4, best a multiple of 8 (channels are normed in groups of 8), got {self.width}")
