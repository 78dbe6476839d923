"""The images that a report shows: PNG strips in ``gallery/``, with one line each in ``gallery.jsonl``.

A strip holds images of one size, one below the other. Images have three channels. Maps have one, 255 for a fakeness of 1, and are
coloured when they are displayed.

    real, encrypted, map_encrypted      the inputs, without an arm
    perfect                             what a perfect generator would make of them, where the data set knows it
    edited                              an arm's edits of the inputs
    manipulated, truth, map             its edits of the encrypted inputs, M_GT, and MaLP's prediction of it
    worst, best                         the manipulated images with the highest and the lowest P(manipulated)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from malp_disc.evaluation.eval_set import EvalSet, Manipulate, edit
from malp_disc.evaluation.localize import malp_gallery
from malp_disc.evaluation.measure import Evidence
from malp_disc.malp import MaLP
from malp_disc.run_folder.strips import ROWS

_PIXELS = ROWS * 96 * 96


def rows_of(inputs: EvalSet) -> int:
    """The number of inputs that a gallery shows; fewer for larger images."""
    height, width = inputs.images.shape[2:]
    return min(len(inputs.images), ROWS, max(4, _PIXELS // (height * width)))


@torch.no_grad()
def draw_arm(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP | None, *, evidence: Evidence | None = None, device: torch.device | str = "cpu"
) -> dict[str, tuple[Tensor, list]]:
    """An arm's strips by kind, as (images, captions): images (N, 3, H, W) in [-1, 1], maps (N, 1, H, W) in [0, 1].

    Args:
        evidence: of the arm's measurement; without it, there are no worst and best images.
    """
    count = rows_of(inputs)
    shown = inputs.first(count)
    captions, real = captions_of(shown), shown.images
    if evidence is not None:
        edited = evidence.edited[:count]
    else:
        edited = edit(manipulate, real, shown.targets, current=shown.labels, device=device)
    strips = {"real": real, "edited": edited}
    if inputs.perfect is not None:
        strips["perfect"] = inputs.perfect[:count]
    if malp is not None:
        columns = malp_gallery(manipulate, inputs, malp, count=count, device=device)
        strips |= {"encrypted": columns["encrypted"], "map_encrypted": columns["predicted_encrypted"]}
        strips |= {"manipulated": columns["manipulated"], "truth": columns["truth"], "map": columns["predicted_manipulated"]}
    drawn = {kind: (images.clamp(0 if images.shape[1] == 1 else -1, 1), captions) for kind, images in strips.items()}
    if evidence is not None and evidence.manipulated is not None and evidence.predictions is not None:
        drawn |= _extremes(evidence, inputs, (count + 1) // 2)
    return drawn


def _extremes(evidence: Evidence, inputs: EvalSet, count: int) -> dict[str, tuple[Tensor, list]]:
    """The images with the highest and with the lowest score. Equal scores are ordered by the mean of the map."""
    brightness = evidence.predictions.map.mean(dim=(1, 2, 3))
    order = np.lexsort((brightness.numpy(), evidence.predictions.score.numpy()))
    captions = captions_of(inputs)
    chosen = {"worst": order[::-1][:count].copy(), "best": order[:count]}
    return {
        kind: (evidence.manipulated.manipulated[rows], [f"{captions[row]}: {evidence.predictions.score[row]:.3f}".removeprefix(": ") for row in rows])
        for kind, rows in chosen.items()
    }


def captions_of(inputs: EvalSet) -> list[str]:
    """The requested edit of each image, as "+ Smiling" or "- Eyeglasses"; empty where there are no attributes."""
    if not inputs.attribute_names:
        return [""] * len(inputs.images)
    edited = inputs.edited.tolist()
    return [("+ " if inputs.targets[row, column] > 0.5 else "- ") + inputs.attribute_names[column] for row, column in enumerate(edited)]
