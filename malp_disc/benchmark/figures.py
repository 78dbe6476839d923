"""Figures of a benchmark: robustness to degradations (paper, Figure 5), and sample images with every localizer's map."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from malp_disc.benchmark.cells import Cells
from malp_disc.benchmark.inputs import digest
from malp_disc.benchmark.intervals import Estimate
from malp_disc.benchmark.localizer import Localizer, predict
from malp_disc.degradations import DEGRADATIONS
from malp_disc.fakeness import fakeness_map
from malp_disc.levels import as_images, quantize, quantize_maps
from malp_disc.plotting.image_grids import PINK_VMAX, draw_grid, pink
from malp_disc.plotting.line_panels import Line, Panel, lines_figure
from malp_disc.serialization.state_dicts import load_tensors, save_tensors

logger = logging.getLogger("malp_disc")
SAMPLES = 2  # images per generator
_MAP = "map of "
_ROWS = {"cosine similarity": ("cs", "cs_constant"), "Pearson's correlation": ("pearson", None), "detection AUC": ("auc", None)}


def robustness_figure(cells: Cells, path: Path) -> bool:
    """Draw Figure 5 for the first generator whose edits were degraded; False if there is none."""
    generator = next((line.generator for line in cells.measured if line.degradation is not None), None)
    if generator is None:
        return False
    rows = []
    for label, (score, baseline) in _ROWS.items():
        row: list[Panel | None] = []
        for kind, degradation in DEGRADATIONS.items():
            curves = {}
            for name in cells.localizers:
                found = [cells.estimate(score, name, generator, degradation=kind, level=level) for level in degradation.names]
                if any(found):
                    curves[name] = Line([_value(estimate) for estimate in found], [_ends(estimate) for estimate in found])
                if baseline and any(found) and "constant map" not in curves:
                    constant = [cells.estimate(baseline, name, generator, degradation=kind, level=level) for level in degradation.names]
                    curves["constant map"] = Line([_value(estimate) for estimate in constant], baseline=True)
            row.append(Panel(degradation.names, curves, degradation.label, label) if curves else None)
        if any(row):
            rows.append(row)
    lines_figure(rows, path)
    return True


@torch.no_grad()
def save_sample(
    folder: Path, generator: str, side: int, real: Tensor, edits: Mapping[str, tuple[Localizer, Tensor]], device: torch.device | str
) -> None:
    """Keep the first images of a generator with every localizer's map for `samples_figure`.

    Args:
        side: that images and maps are resampled to, for display.
        real: (N, 3, H, W) uint8.
        edits: localizer and edits (N, 3, H, W) uint8 of what it published, by name in the tables. The first ones are shown.
    """
    original = as_images(real[:SAMPLES])
    kept: dict[str, Tensor] = {}
    for name, (localizer, edited) in edits.items():
        changed = as_images(edited[:SAMPLES])
        if not kept:
            kept = {"real": original, "edited": changed, "M_GT": fakeness_map(original, changed)}
        try:
            map_ = predict(localizer, changed.to(device)).map
        except (ValueError, RuntimeError) as error:  # it can't take images of this size, for example, and others it can
            logger.warning(f"{name} on {generator}: {error}; its map is missing in the figure")
            continue
        if map_ is not None:
            kept[f"{_MAP}{name}"] = map_.cpu()
    shown = {name: F.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(-1, 1) for name, images in kept.items()}
    levels = {name: quantize(images) if name in ("real", "edited") else quantize_maps(images) for name, images in shown.items()}
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    save_tensors(sample_path(folder, generator), levels)


def samples_figure(cells: Cells, folder: Path, path: Path) -> bool:
    """Draw real and edited images, M_GT and every localizer's map, two rows per generator; False if no images were kept."""
    kept = {
        name: load_tensors(sample_path(folder, name))
        for name in cells.generators
        if cells.gap(name) is None and sample_path(folder, name).exists()
    }
    if not kept:
        return False
    maps = ["M_GT", *(f"{_MAP}{name}" for name in cells.localizers if any(f"{_MAP}{name}" in sample for sample in kept.values()))]
    columns = {name: torch.cat([sample[name] for sample in kept.values()]).permute(0, 2, 3, 1).numpy() for name in ("real", "edited")}
    for name in maps:
        values = torch.cat([sample.get(name, torch.zeros_like(sample["M_GT"])) for sample in kept.values()])[:, 0].numpy()
        columns[name.removeprefix(_MAP) if name != "M_GT" else "M_GT, true map"] = pink(values / 255, PINK_VMAX)
    captions = [name if row == 0 else "" for name, sample in kept.items() for row in range(len(sample["real"]))]
    side = columns["real"].shape[1]
    draw_grid(columns, path, zoom=max(1, round(112 / side)), captions=captions, vmax=PINK_VMAX, maps=len(maps))
    return True


def sample_path(folder: Path, generator: str) -> Path:
    """The file of a generator's sample; its name may hold any characters."""
    return Path(folder) / "samples" / f"{digest(generator)}.safetensors"


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _ends(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None or estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def captions_of(figures: Sequence[str]) -> dict[str, str]:
    """What the figures show, by file name."""
    said = {
        "samples.png": "Images of every generator, original and edited (as the first localizer published them), the true map of this edit, and the map of each localizer for "
        "its own edit. One scale for all maps.",
        "robustness.png": "Figure 5 of the paper: every image that a localizer gets is degraded. Bands are 95 % intervals.",
    }
    return {name: said[name] for name in figures}
