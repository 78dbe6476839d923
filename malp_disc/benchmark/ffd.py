"""FFD as a localizer (Dang et al., CVPR 2020; the paper's [11])."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from malp_disc.benchmark.baseline import Baseline, at_size, both, check_side, labels_like, resized, true_maps
from malp_disc.benchmark.ffd_network import TEMPLATES, FFDNetwork, MapForm
from malp_disc.benchmark.localizer import Localization
from malp_disc.benchmark.xception import map_side
from malp_disc.metrics.pixels import CHANGED

_PAIRS = 100  # of which templates are made, as in their paper


class FFD(Baseline):
    """Xception that multiplies its features by the map it estimates; trained by cross-entropy and the L1 distance of the map.

    Args:
        map_form: "reg", a regressed map; "tmp", a linear combination of ten templates.
        side: images are resized to it; the authors' 299 gives maps of 19×19.

    Note:
        Differences to the authors' code, which trains without a validation set for 100 epochs of 1000 steps: the number of steps is the recipe's, and the
        initialization is PyTorch's unless the weights of an ImageNet Xception are given. Their templates are image files beside their checkpoints; where none were
        set, training makes them from the true maps of its first 100 pairs: their mean and nine principal components, as the paper describes.
    """

    learning_rate = 1e-4
    threshold = CHANGED
    entries = ("net",)
    head = ("last_linear", "map.")

    def __init__(self, map_form: MapForm = "reg", *, side: int = 299) -> None:
        if map_form not in ("reg", "tmp"):
            raise ValueError(f"expected the map form reg or tmp of FFD, got {map_form!r}")
        check_side(side, 75, "FFD")
        super().__init__(FFDNetwork(map_form), {"map_form": map_form, "side": side})
        self.name = f"ffd_{map_form}"
        self.side = side
        self.templates: Tensor | None
        self.register_buffer("templates", torch.zeros(TEMPLATES, map_side(side), map_side(side)) if map_form == "tmp" else None)

    def localize(self, images: Tensor) -> Localization:
        """The map at the images' resolution, and P(fake) of the classifier."""
        out = self.network(resized(images, self.side), self.templates)
        return Localization(at_size(out.mask.clamp(0, 1), images), out.logits.float().softmax(1)[:, 1])

    def losses(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> dict[str, Tensor]:
        out = both(self.network, resized(real, self.side), resized(manipulated, self.side), self.templates)
        target = _small(true_maps(truth), out.mask.shape[2])
        return {"classification": F.cross_entropy(out.logits.float(), labels_like(real)), "map": F.l1_loss(out.mask.float(), target)}

    def load_checkpoint(self, path: str | Path) -> None:
        """Load ``NNNNNN.tar`` of the authors; for "tmp" also their templates, ``template0.png`` to ``template9.png``, from its folder or from MCT/ in it."""
        super().load_checkpoint(path)
        if self.templates is not None:
            self.templates.copy_(read_templates(Path(path).parent, self.templates.shape[1]))

    def make_optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=learning_rate, weight_decay=1e-3)

    def prepare(self, real: Tensor, manipulated: Tensor, truth: Tensor) -> None:
        """Make the templates of the form "tmp" unless they are set."""
        if self.templates is not None and not self.templates.any():
            self.templates.copy_(make_templates(truth[:_PAIRS], self.templates.shape[1]))

    def translate_initial(self, key: str) -> str:
        """From the names of the ImageNet port (``conv1`` for a depthwise convolution) to FFD's (``c``)."""
        parts = ["skip_bn" if part == "skipbn" else part for part in key.split(".")]
        if len(parts) > 2 and parts[-2] == "conv1":
            parts[-2] = "c"
        return ".".join(parts)


def make_templates(truth: Tensor, side: int) -> Tensor:
    """The mean and the first nine principal components of true maps (N, 1, H, W) -> (10, side, side), each component of unit norm and positive sum.

    Components beyond the number of maps are zero.
    """
    rows = _small(truth.float(), side).flatten(1).double()
    mean = rows.mean(0)
    components = torch.linalg.svd(rows - mean, full_matrices=False).Vh[: TEMPLATES - 1]
    components = components * torch.where(components.sum(1, keepdim=True) < 0, -1.0, 1.0)
    templates = torch.zeros(TEMPLATES, side * side, dtype=torch.float64, device=truth.device)
    templates[0], templates[1 : 1 + len(components)] = mean, components
    return templates.view(TEMPLATES, side, side).float()


def read_templates(folder: Path, side: int) -> Tensor:
    """The authors' template images in `folder` or its sub-folder MCT: (10, side, side) in [0, 1], the first channel of their top left corner.

    Raises:
        FileNotFoundError: one isn't there.
        ValueError: one is smaller than `side`.
    """
    templates = []
    for number in range(TEMPLATES):
        places = [place / f"template{number}.png" for place in (folder, folder / "MCT")]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise FileNotFoundError(f"no {places[0]}: FFD with templates needs the ten images template0.png … template9.png of its MCT folder beside the checkpoint")
        with Image.open(found) as opened:
            levels = np.array(opened.convert("RGB"))[:side, :side, 0]
        if levels.shape != (side, side):
            raise ValueError(f"{found} has {levels.shape[1]}x{levels.shape[0]} pixels, expected at least {side}x{side}")
        templates.append(torch.from_numpy(levels.astype(np.float32) / 255))
    return torch.stack(templates)


def _small(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)
