"""The pictures that a report shows, as strips of PNG in ``gallery/`` and a line each in ``gallery.jsonl``.

A strip holds pictures of one size, one below the other. Pictures have three channels; maps have one, 255 for a fakeness of 1, and are
coloured where they're shown.

    real, encrypted, map_encrypted      the inputs, without an arm
    edited                              what an arm makes of the inputs
    manipulated, truth, map             what it makes of the encrypted inputs, what it changed (M_GT), and what MaLP says it changed
    worst, best                         manipulated pictures that MaLP is surest of, and least sure
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from malp_disc.checkpoint import atomic_path, write_text
from malp_disc.malp import MaLP
from malp_disc.report.folder import complete, read_lines
from malp_disc.report.inputs import Inputs, Manipulate, edit
from malp_disc.report.localizing import malp_gallery
from malp_disc.report.measure import Evidence

ROWS = 10
"""Pictures of a strip, at most; fewer of large ones, so that the page stays small enough to pass on."""
_PIXELS = ROWS * 96 * 96
_LINE = {"kind": str, "arm": str, "file": str, "seed": float, "count": float}


@dataclass(frozen=True)
class Strip:
    """Pictures (N, H, W, 3) or maps (N, H, W), uint8, with a caption or None for each."""

    kind: str
    arm: str | None
    seed: int
    pictures: np.ndarray
    captions: list[str | None]


def rows_of(inputs: Inputs) -> int:
    """How many of the inputs are shown."""
    height, width = inputs.images.shape[2:]
    return min(len(inputs.images), ROWS, max(4, _PIXELS // (height * width)))


@torch.no_grad()
def draw_arm(
    manipulate: Manipulate, inputs: Inputs, malp: MaLP | None, *, evidence: Evidence | None = None, device: torch.device | str = "cpu"
) -> dict[str, tuple[Tensor, list]]:
    """An arm's strips by kind, as (images, captions): pictures (N, 3, H, W) in [-1, 1], maps (N, 1, H, W) in [0, 1].

    Args:
        evidence: of the arm's measurement; without it there are no worst and best pictures.
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


def _extremes(evidence: Evidence, inputs: Inputs, count: int) -> dict[str, tuple[Tensor, list]]:
    """Surest and least sure first; the maps' brightness decides between scores that float32 can't tell apart."""
    brightness = evidence.looked.map.mean(dim=(1, 2, 3))
    order = np.lexsort((brightness.numpy(), evidence.looked.score.numpy()))
    captions = captions_of(inputs)
    chosen = {"worst": order[::-1][:count].copy(), "best": order[:count]}
    return {
        kind: (evidence.seen.manipulated[rows], [f"{captions[row]}: {evidence.looked.score[row]:.3f}".removeprefix(": ") for row in rows])
        for kind, rows in chosen.items()
    }


def captions_of(inputs: Inputs) -> list[str]:
    """What was asked of each picture: "+ Smiling", "- Eyeglasses"; nothing where there are no attributes."""
    if not inputs.attribute_names:
        return [""] * len(inputs.images)
    edited = inputs.edited.tolist()
    return [("+ " if inputs.targets[row, column] > 0.5 else "- ") + inputs.attribute_names[column] for row, column in enumerate(edited)]


def write_strips(folder: Path, arm: str, strips: Mapping[str, tuple[Tensor, Sequence[str | None]]], *, seed: int = 0) -> None:
    """Write an arm's strips and their lines, in place of those of an earlier try."""
    path = folder / "gallery.jsonl"
    lines = [line for _, line in read_lines(path)] if path.is_file() else []
    for kind, (images, captions) in strips.items():
        owner = None if kind in ("real", "encrypted", "map_encrypted") else arm
        file = f"gallery/{seed}/{kind if owner is None else f'{arm}-{kind}'}.png"
        lines = [line for line in lines if line["file"] != file]
        lines.append({"seed": seed, "arm": owner, "kind": kind, "file": file, "count": len(images), "captions": list(captions)})
        with atomic_path(folder / file) as temporary:
            Image.fromarray(_stacked(images)).save(temporary, format="PNG", optimize=True)
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_strips(folder: Path, *, seed: int | None = None) -> list[Strip]:
    """The strips of one seed, of the first one drawn if not given; a file that isn't there any more is left out.

    Raises:
        ValueError: a damaged line or picture; the message names it.
    """
    path = folder / "gallery.jsonl"
    lines = [(where, complete(line, _LINE, where)) for where, line in read_lines(path)] if path.is_file() else []
    seeds = [line["seed"] for _, line in lines]
    if not seeds:
        return []
    wanted = min(seeds) if seed is None else seed
    own = [(where, line) for where, line in lines if line["seed"] == wanted or line["arm"] == "before"]
    for where, line in own:
        if Path(str(line["file"])).parts[:1] != ("gallery",) or ".." in Path(str(line["file"])).parts:
            raise ValueError(f"{where}: expected a file in gallery/, got {line['file']!r}; delete the line")
    return [_read_strip(folder, line, where) for where, line in own if (folder / line["file"]).is_file()]


def _read_strip(folder: Path, line: Mapping[str, Any], where: str) -> Strip:
    try:
        with Image.open(folder / line["file"]) as picture:
            levels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    except OSError as error:
        raise ValueError(
            f"{where}: {line['file']} can't be read as a picture ({error}); measure {line['arm']} again, or delete the line"
        ) from error
    count = line["count"]
    if not count or len(levels) % count:
        raise ValueError(
            f"{where}: {line['file']} is {len(levels)} pixels high, which {count} pictures of one height don't fill; delete the line"
        )
    pictures = levels.reshape(int(count), len(levels) // int(count), *levels.shape[1:])
    return Strip(line["kind"], line["arm"], int(line["seed"]), pictures, list(line.get("captions") or [None] * len(pictures)))


def _stacked(images: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N * H, W, 3) of pictures in [-1, 1], (N * H, W) of maps in [0, 1], uint8."""
    maps = images.shape[1] == 1
    levels = images.detach().float().cpu() * 255 if maps else (images.detach().float().cpu() + 1) * 127.5
    array = levels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(-1, images.shape[3], images.shape[1]).numpy()
    return array[..., 0] if maps else array
