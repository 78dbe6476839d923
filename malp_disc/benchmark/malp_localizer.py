"""MaLP as a localizer of the benchmark: a trained one, or the authors'."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from malp_disc.benchmark.localizer import Family, Localization
from malp_disc.benchmark.template_choice import template_of
from malp_disc.malp import MaLP
from malp_disc.metrics.pixels import CHANGED

MaLPForm = Literal["malp", "malp_both", "malp_dm"]


class MaLPLocalizer(nn.Module):
    """E_C's map, and a score.

    Args:
        malp: of any architecture; one without a template (strength 0) is a passive method.
        form: "malp", E_C's map and the score of Eq. 10, from classifier and template (D.M. + L.M. in Table 6). "malp_both", the mean of both branches' maps, which
            the paper switches off in inference. "malp_dm", a detector without a map: 1 − CS(S, S_R), the recovered template alone (D.M. in Table 6).

    Raises:
        ValueError: "malp_both" without a second branch, or "malp_dm" without a template.
    """

    threshold = CHANGED

    def __init__(self, malp: MaLP, form: MaLPForm = "malp") -> None:
        super().__init__()
        if form not in ("malp", "malp_both", "malp_dm"):
            raise ValueError(f"expected the form malp, malp_both or malp_dm, got {form!r}")
        if form == "malp_both" and malp.branch is None:
            raise ValueError("malp_both takes the mean of two branches' maps, but this MaLP has no second branch; give malp")
        if form == "malp_dm" and malp.passive:
            raise ValueError("malp_dm scores the recovered template, but this MaLP is a passive one (strength 0); give malp")
        self.malp, self.name = malp, form
        self.family: Family = "passive" if malp.passive else "proactive"

    def protect(self, images: Tensor) -> Tensor:
        """T(I), Eq. 6, with the template that `template_of` gives each image; a passive MaLP returns the images."""
        if self.malp.passive:
            return images
        return self.malp.encrypt(images, template_of(images, self.malp.encryption.set_size))[0]

    def localize(self, images: Tensor) -> Localization:
        """The map and the score of images (B, 3, H, W) in [-1, 1], by the form; "malp_dm" has no map."""
        out = self.malp(images, branch=self.name == "malp_both")
        if self.name == "malp_dm":
            return Localization(None, 1 - out.similarity)
        return Localization(out.map if out.branch_map is None else (out.map + out.branch_map.clamp(0, 1)) / 2, out.score)


def load_malp(path: str | Path, form: MaLPForm = "malp") -> MaLPLocalizer:
    """A saved MaLP by its folder or Hub id, or a checkpoint of the authors by its file.

    Raises:
        FileNotFoundError, ValueError: as `MaLP.from_pretrained`, `MaLP.from_official` and `MaLPLocalizer`.
    """
    malp = MaLP.from_official(path) if Path(path).is_file() else MaLP.from_pretrained(path, branch=form == "malp_both")
    return MaLPLocalizer(malp.eval(), form)
