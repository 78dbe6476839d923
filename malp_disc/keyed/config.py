"""Settings of a `KeyedMaLP`, saved in its ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass

SCHEME = 4
"""Number of the way in which templates follow from key and image. The first one, of no saved `scheme`, had six turns of the phase and weak keys; in the second, all images of a key
shared one carrier, and ten of them were enough to forge templates; the third didn't see colours and brightness."""


@dataclass(frozen=True, kw_only=True)
class KeyedConfig:
    """Attributes:
    image_size: side of the reference grid, whose area every image is resampled to for analysis. Best the side of the training images: a larger one finds smaller
        changes, a smaller one survives stronger downsampling.
    width: channels of the detector's network.
    change_width: channels of the network that tells how much edited pixels were changed (`ChangeNet`); 0 for none, with the coarse map of the detector's network.
    psnr: of protected images, in dB; above it where a plain background leaves little room for the template.
    edited_above: a pixel with a higher probability counts as edited. On training images, 0.25 made the F1 of the worst kind of edit best (docs/results/survival.md).
    present_above: `KeyedOutput.presence` above which an image counts as protected, if a single template is tried; the more are tried, the higher (`malp_disc.keyed.identification`).
    scheme: how templates follow from key and image; `SCHEME`, the only one that this version knows.
    """

    image_size: int = 128
    width: int = 16
    change_width: int = 0
    psnr: float = 38.5
    edited_above: float = 0.25
    present_above: float = 5.0
    scheme: int = SCHEME

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise ValueError(f"expected a reference grid of at least 32 pixels, got {self.image_size}; templates need room")
        if self.width < 4:
            raise ValueError(f"expected a width of at least 4, got {self.width}")
        if self.change_width and self.change_width < 4:
            raise ValueError(f"expected a change_width of at least 4, or 0 for none, got {self.change_width}")
        if not 20 <= self.psnr <= 60:
            raise ValueError(f"expected a PSNR of 20 to 60 dB, got {self.psnr}")
        if not 0 < self.edited_above < 1:
            raise ValueError(f"expected edited_above in (0, 1), got {self.edited_above}")
        if not 3 <= self.present_above <= 20:
            raise ValueError(f"expected present_above of 3 to 20 standard deviations, got {self.present_above}")
        if self.scheme != SCHEME:
            trained = f'; its detector also works with scheme {SCHEME}, so for images yet to be protected, set "scheme": {SCHEME} in its config.json and take a new key' if self.scheme in (2, 3) else ""
            raise ValueError(
                f"templates of scheme {self.scheme} aren't known to this version, which makes and finds those of scheme {SCHEME}; "
                f"use the version that protected the images, or pretrain again and protect them again{trained}"
            )
