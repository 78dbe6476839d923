"""The images that a report shows, as strips of PNG in ``gallery/`` and a line each in ``gallery.jsonl``.

A strip holds images of one size, one below the other. Images have three channels; maps have one, 255 for a fakeness of 1, and are
coloured where they're shown.

    real, encrypted, map_encrypted      the inputs, without an arm
    edited                              what an arm makes of the inputs
    manipulated, truth, map             what it makes of the encrypted inputs, what it changed (M_GT), and what MaLP says it changed
    worst, best                         manipulated images that MaLP is surest of, and least sure
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
    """How many of the inputs are shown."""
    height, width = inputs.images.shape[2:]
    return min(len(inputs.images), ROWS, max(4, _PIXELS // (height * width)))


@torch.no_grad()
def draw_arm(
    manipulate: Manipulate, inputs: EvalSet, malp: MaLP | None, *, evidence: Evidence | None = None, device: torch.device | str = "cpu"
) -> dict[str, tuple[Tensor, list]]:
    """An arm's strips by kind, as (images, captions): images (N, 3, H, W) in [-1, 1], maps (N, 1, H, W) in [0, 1].

    Args:
        evidence: of the arm's measurement; without it there are no worst and best images.
    """
    count = rows_of(inputs)
    captions = captions_of(inputs.first(count))
    real = inputs.images[:count]
    strips = {
        "real": real,
        "edited": evidence.edited[:count] if evidence is not None else edit(manipulate, real, inputs.targets[:count], device=device),
    }
    if malp is not None:
        shown = malp_gallery(manipulate, inputs, malp, count=count, device=device)
        strips |= {"encrypted": shown["encrypted"], "map_encrypted": shown["predicted_encrypted"]}
        strips |= {"manipulated": shown["manipulated"], "truth": shown["truth"], "map": shown["predicted_manipulated"]}
    drawn = {kind: (images.clamp(0 if images.shape[1] == 1 else -1, 1), captions) for kind, images in strips.items()}
    if evidence is not None and evidence.seen is not None and evidence.looked is not None:
        drawn |= _extremes(evidence, inputs, (count + 1) // 2)
    return drawn


def _extremes(evidence: Evidence, inputs: EvalSet, count: int) -> dict[str, tuple[Tensor, list]]:
    """Surest and least sure first; the maps' brightness decides between scores that float32 can't tell apart."""
    brightness = evidence.looked.map.mean(dim=(1, 2, 3))
    order = np.lexsort((brightness.numpy(), evidence.looked.score.numpy()))
    captions = captions_of(inputs)
    chosen = {"worst": order[::-1][:count].copy(), "best": order[:count]}
    return {
        kind: (evidence.seen.manipulated[rows], [f"{captions[row]}: {evidence.looked.score[row]:.3f}".removeprefix(": ") for row in rows])
        for kind, rows in chosen.items()
    }


def captions_of(inputs: EvalSet) -> list[str]:
    """What was asked of each image: "+ Smiling", "- Eyeglasses"; nothing where there are no attributes."""
    if not inputs.attribute_names:
        return [""] * len(inputs.images)
    edited = inputs.edited.tolist()
    return [("+ " if inputs.targets[row, column] > 0.5 else "- ") + inputs.attribute_names[column] for row, column in enumerate(edited)]
