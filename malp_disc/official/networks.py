"""The networks of the authors' code, and a reader for their published checkpoints.

Official code: https://github.com/vishal3477/pro_loc (MIT). Written from a description of the code; the state-dict keys are the authors', so
the entries of ``<count>_model.pickle`` load unchanged. `MaLP` with architecture "official" consists of these networks. Their docstrings
name the differences to the paper's (`malp_disc.localization`, `malp_disc.detection`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.detection import template_similarity
from malp_disc.official.vit import OfficialViT, vit_generation
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.precision import full_precision
from malp_disc.serialization.state_dicts import load_entries, load_state

OFFICIAL_SIZE = 128  # of images, maps and templates
OFFICIAL_WIDTH = 64
OFFICIAL_STRENGTH = 0.1  # default of the authors' --template_strength; the paper's value is 0.3


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution and ReLU, the authors' first layer."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class OfficialEncoder(Float32Module):
    """E_C and E_E of the authors' code: five shared layers, then four each for the fakeness map and the recovered template.

    Shape:
        images (B, 3, H, W) in [-1, 1] -> map (B, 1, H, W), template (B, 1, H, W), both >= 0 and unbounded: each ends in batch norm and ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        width = OFFICIAL_WIDTH
        self.layers_0 = nn.Sequential(convolution(3, width))
        self.layers_1 = nn.Sequential(*[block(width, width) for _ in range(4)])
        self.layers_2 = nn.Sequential(*[block(width, width) for _ in range(3)])
        self.layers_3 = nn.Sequential(*[block(width, width) for _ in range(3)])
        self.layers_5 = block(width, 1)
        self.layers_6 = block(width, 1)

    @full_precision
    def forward(self, images: Tensor, *, recovery: bool = True) -> tuple[Tensor, Tensor | None]:
        """Map and template; with ``recovery=False`` the map alone, and None."""
        features = self.layers_1(self.layers_0(images.float()))
        return self.layers_5(self.layers_2(features)), self.layers_6(self.layers_3(features)) if recovery else None


class OfficialClassifier(Float32Module):
    """C of the authors' code: convolutions at full resolution down to one map, then two pooled convolutions and three linear layers.

    Args:
        channels: input channels; 1 for MaLP's maps, 3 for the images of the CVPR 2022 method.
        depth: number of 3×3 layers, including the first and the last.

    Shape:
        maps (B, channels, H, W) -> logit (B,), positive for "manipulated". Maps of other sizes are resampled to 128×128, the only size that
        the authors' code accepts.

    Note:
        The authors' output is a pair of sigmoids, trained by the cross-entropy of a softmax *of the sigmoids*. So their P(manipulated)
        is sigmoid(y₁ − y₀), between 0.27 and 0.73, and the logit here is y₁ − y₀, between -1 and 1.
    """

    def __init__(self, *, channels: int = 1, depth: int = 6) -> None:
        super().__init__()
        width = OFFICIAL_WIDTH
        self.channels = channels
        self.layers = nn.Sequential(convolution(channels, width), *[block(width, width) for _ in range(depth - 2)], block(width, 1))
        self.layers2 = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.layers3 = nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.layers4 = nn.Sequential(
            nn.Linear(64 * (OFFICIAL_SIZE // 4) ** 2, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, 2),
            nn.Sigmoid(),
        )

    @full_precision
    def forward(self, maps: Tensor) -> Tensor:
        if maps.ndim == 4 and maps.shape[2:] != (OFFICIAL_SIZE, OFFICIAL_SIZE):
            maps = F.interpolate(maps, (OFFICIAL_SIZE, OFFICIAL_SIZE), mode="bilinear", align_corners=False, antialias=True)
        y = self.sigmoids(maps)
        return y[:, 1] - y[:, 0]

    @full_precision
    def sigmoids(self, maps: Tensor) -> Tensor:
        """The output y of the authors' code: (B, channels, 128, 128) -> (B, 2) in (0, 1), column 0 for "real" and column 1 for "fake".

        Raises:
            ValueError: any other shape.
        """
        if maps.ndim != 4 or maps.shape[1:] != (self.channels, OFFICIAL_SIZE, OFFICIAL_SIZE):
            raise ValueError(f"the authors' classifier takes (B, {self.channels}, {OFFICIAL_SIZE}, {OFFICIAL_SIZE}) only, got {tuple(maps.shape)}")
        return self.layers4(self.layers3(self.layers2(self.layers(maps.float()))).flatten(1))


def official_similarity(recovered: Tensor, templates: Tensor) -> Tensor:
    """The authors' cosine of templates, with the recovered one min-max normalized: (B, 1, H, W) × (n, 1, H, W) -> (B, n).

    A constant recovered template (0/0 in the authors' code) has similarity 0 with every template. The strength m, by which they multiply
    the templates, doesn't change the cosine.
    """
    rows = recovered.float().flatten(1)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    spread = torch.where(high > low, high - low, 1.0)
    return template_similarity((rows - low) / spread, templates)


# --- published checkpoints ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfficialCheckpoint:
    """The networks and templates in ``<count>_model.pickle``. Transformer and classifier are None if the file has none."""

    source: str
    templates: Tensor  # (set_size, 128, 128)
    encoder: Mapping[str, Tensor]
    transformer: Mapping[str, Tensor] | None
    classifier: Mapping[str, Tensor] | None

    @property
    def vit_generation(self) -> str | None:
        return vit_generation(self.transformer, source=self.source) if self.transformer is not None else None

    def load_into(self, templates: nn.Parameter, encoder: OfficialEncoder, transformer: OfficialViT | None, classifier: OfficialClassifier) -> None:
        """Copy the weights into the given networks.

        Raises:
            ValueError: keys or shapes differ; the message names the first.
        """
        for network, state in ((encoder, self.encoder), (transformer, self.transformer), (classifier, self.classifier)):
            if network is not None and state is not None:
                load_state(network, state, source=self.source, optional=("num_batches_tracked",))
        if self.classifier is None:
            warnings.warn(f"{self.source} holds no classifier: logit will be 0 for every image, and score depend on the template only", stacklevel=3)
            for parameter in classifier.layers4[4].parameters():
                nn.init.zeros_(parameter)
        with torch.no_grad():
            templates.copy_(self.templates)


def read_official(path: str | Path) -> OfficialCheckpoint:
    """Read a checkpoint of the authors' train_loc_det.py or train_loc.py as plain tensors, without unpickling objects.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, contains objects other than tensors, or isn't such a checkpoint.
    """
    encoder, signal, transformer, classifier = (f"state_dict_{name}" for name in ("encoder", "signal", "transformer", "class"))
    found = load_entries(path, (encoder, signal), (transformer, classifier), what="a MaLP checkpoint of the authors")
    templates = official_templates(found[signal], (OFFICIAL_SIZE, OFFICIAL_SIZE), source=f"{signal} of {path}")
    return OfficialCheckpoint(str(path), templates, found[encoder], found.get(transformer), found.get(classifier))


def official_templates(entry: Mapping[str, Tensor], shape: tuple[int, ...], *, source: str) -> Tensor:
    """The template set A of a checkpoint's entry, (set_size, *shape); ValueError if the entry has other content."""
    templates = entry.get("A")
    if set(entry) != {"A"} or templates.ndim != 1 + len(shape) or templates.shape[1:] != shape or not len(templates):
        found = {key: tuple(value.shape) for key, value in list(entry.items())[:3]}
        raise ValueError(f"{source} is not a template set: expected one entry A of shape (set_size, {', '.join(map(str, shape))}), found {found}")
    return templates
