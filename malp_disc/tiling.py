"""Protection and inspection of images of any size: the template is tiled, and MaLP is applied to windows of its training size.

MaLP is trained at one size. Its template has high frequencies only; resampled to a larger image, it has other frequencies, which E_E and E_C
don't recognize (similarity 0.00 instead of 0.99 at 144×144 for a MaLP of 64×64; see docs/commands.md). Therefore:

* `protect_levels` repeats the template at the training resolution, starting at the upper left corner.
* `inspect_levels` applies MaLP to windows of the training size. (The group norm of E_C takes its statistics over the whole input, so that in
  a large image one region would change the map of another.) Scores are computed on windows aligned with the template's tiles, as in
  training; on others, an unchanged image gets about twice the score. The map is blended from windows that overlap by a quarter.

At the training size, they are `MaLP.encrypt` and `MaLP.forward`. Memory is bounded by the image, its map and one row of windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from malp_disc.detection import manipulation_score
from malp_disc.levels import from_pixels, quantize
from malp_disc.malp import MaLP

SMALLEST = 16  # pixels of the shorter side
_BATCH = 16  # windows per forward pass


@dataclass(frozen=True)
class Window:
    """Scores of one window.

    Attributes:
        box: left, top, right, bottom in pixels.
        score: P(manipulated).
        similarity: CS of the recovered template and the image's template.
    """

    box: tuple[int, int, int, int]
    score: float
    similarity: float


@dataclass(frozen=True)
class Inspection:
    """Fakeness map and scores of one image.

    Attributes:
        map: the fakeness map, (H, W) uint16, 65535 for 1; None if it wasn't requested.
        score: P(manipulated), mean over windows, each weighted by the area that it adds to the previous ones.
        similarity: CS of the recovered template and the template of the set that fits the whole image best, averaged likewise.
        template: the number of that template.
        windows: scores of the windows, row by row.
        presence: of the template of a `malp_disc.keyed.KeyedMaLP`, in standard deviations; None for other MaLPs.
        protected: whether that counts as protected with the key; None for other MaLPs, which don't tell.
        resembles: number of the template whose original the image resembles; None if it resembles none.
        mirrored, stretched, tone: what had been done to the image as a whole, and was undone (`malp_disc.keyed.trace.Trace`); `tone` as by `malp_disc.keyed.tone.describe_tone`, None for no change.
    """

    map: np.ndarray | None
    score: float
    similarity: float
    template: int
    windows: tuple[Window, ...]
    presence: float | None = None
    protected: bool | None = None
    resembles: int | None = None
    mirrored: bool = False
    stretched: float = 1.0
    tone: dict[str, float] | None = None

    @property
    def worst(self) -> Window:
        """The window with the highest score."""
        return max(self.windows, key=lambda window: window.score)


def protect_levels(malp: MaLP, levels: np.ndarray, index: int) -> np.ndarray:
    """T(I), Eq. 6, with the template tiled over the image, rounded to 8 bits: (H, W, 3) uint8 -> (H, W, 3) uint8.

    Raises:
        ValueError: not an image (see `check_levels`), or an index outside the set.
    """
    check_levels(levels)
    if not 0 <= index < malp.encryption.set_size:
        raise ValueError(f"expected a template number of 0 … {malp.encryption.set_size - 1}, got {index}")
    size = malp.config.image_size
    with torch.no_grad():
        added = malp.encryption.strength * malp.encryption.at((size, size))[index, 0].cpu()
    added = added[:, torch.arange(levels.shape[1]) % size]  # (size, W)
    protected = np.empty_like(levels)
    for top in range(0, len(levels), size):
        strip = from_pixels(levels[top : top + size])[0]
        protected[top : top + size] = quantize(strip + added[: strip.shape[1]]).permute(1, 2, 0).numpy()
    return protected


@torch.no_grad()
def inspect_levels(
    malp: MaLP, levels: np.ndarray, *, with_map: bool = True, progress: Callable[[int], object] = lambda windows: None
) -> Inspection:
    """Fakeness map and scores of an image, computed in windows.

    Args:
        malp: the detector, in evaluation mode.
        levels: (H, W, 3) uint8.
        with_map: if False, only the scores are computed, in about a third of the time.
        progress: called with the number of windows computed since the last call.

    Raises:
        ValueError: not an image, or smaller than 16 pixels.
    """
    check_levels(levels)
    windows, template = _scores(malp, levels, progress)
    weights = [weight for _, weight in windows]
    means = [float(np.average([getattr(window, name) for window, _ in windows], weights=weights)) for name in ("score", "similarity")]
    found = _map(malp, levels, progress) if with_map else None
    return Inspection(found, *means, template, tuple(window for window, _ in windows))


def count_windows(malp: MaLP, height: int, width: int, *, with_map: bool = True) -> int:
    """The number of windows that `inspect_levels` computes."""
    size = malp.config.image_size
    tiles = len(tile(height, size)[0]) * len(tile(width, size)[0])
    return tiles + with_map * len(cut(height, size)[0]) * len(cut(width, size)[0])


def _scores(malp: MaLP, levels: np.ndarray, progress: Callable[[int], object]) -> tuple[list[tuple[Window, float]], int]:
    """The windows on the template's tiles with their weights, and the number of the template with the highest mean similarity."""
    size = malp.config.image_size
    templates = malp.encryption.at((size, size))
    (tops, fresh_y), (lefts, fresh_x) = (tile(length, size) for length in levels.shape[:2])
    height, width = (min(size, length) for length in levels.shape[:2])
    logits, similarities = [], []
    for top in tops:
        for columns in _batches(len(lefts)):
            out = malp(_windows(malp, levels, top, height, [lefts[i] for i in columns], width))
            logits.append(out.logit.cpu())
            for i, recovered in zip(columns, out.template):
                laid = templates[:, :, _phase(top, height, size)][:, :, :, _phase(lefts[i], width, size)]
                similarities.append(malp.similarities(recovered[None], laid)[0].cpu())
            progress(len(columns))
    table = torch.stack(similarities)  # (windows, n)
    weights = np.outer(fresh_y, fresh_x).ravel()
    template = int((table * torch.from_numpy(weights)[:, None]).mean(dim=0).argmax())
    own = table[:, template]
    scores = manipulation_score(torch.cat(logits), own, not malp.passive).tolist()
    boxes = [(left, top, left + width, top + height) for top in tops for left in lefts]
    return [(Window(*values), weight) for *values, weight in zip(boxes, scores, own.tolist(), weights.tolist())], template


def _map(malp: MaLP, levels: np.ndarray, progress: Callable[[int], object]) -> np.ndarray:
    """The blended map, (H, W) uint16."""
    size = malp.config.image_size
    (tops, fade_y), (lefts, fade_x) = (cut(length, size) for length in levels.shape[:2])
    height, width = fade_y.shape[1], fade_x.shape[1]
    found = np.empty(levels.shape[:2], np.uint16)
    band = np.zeros((height, levels.shape[1]), np.float32)  # the rows that further windows overlap
    for row, top in enumerate(tops):
        for columns in _batches(len(lefts)):
            maps = malp(_windows(malp, levels, top, height, [lefts[i] for i in columns], width)).map[:, 0].cpu().numpy()
            for i, window_map in zip(columns, maps):
                band[:, lefts[i] : lefts[i] + width] += window_map * fade_y[row][:, None] * fade_x[i]
            progress(len(columns))
        done = (tops[row + 1] if row + 1 < len(tops) else len(levels)) - top
        found[top : top + done] = np.rint(band[:done].clip(0, 1) * 65535)
        band = np.concatenate([band[done:], np.zeros_like(band[:done])])
    return found


def tile(length: int, size: int) -> tuple[list[int], np.ndarray]:
    """Windows along one axis, aligned with the template's tiles; the last ends at the image's border.

    Returns:
        Starts of the windows, and the share of each that the previous ones don't cover, (windows,).
    """
    if length <= size:
        return [0], np.ones(1)
    starts = list(range(0, length - size + 1, size))
    fresh = [1.0] * len(starts)
    if rest := length % size:
        starts.append(length - size)
        fresh.append(rest / size)
    return starts, np.array(fresh)


def cut(length: int, size: int) -> tuple[list[int], np.ndarray]:
    """Evenly spaced windows along one axis that overlap by at least a quarter of their length.

    Returns:
        Starts of the windows, and blending weights (windows, min(size, length)): linear ramps that sum to 1 at every pixel.
    """
    if length <= size:
        return [0], np.ones((1, length), np.float32)
    shared = size // 4
    count = -(-(length - shared) // (size - shared))
    starts = np.linspace(0, length - size, count).round().astype(int)
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).clip(max=shared).astype(np.float64)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += ramp
    return starts.tolist(), np.stack([ramp / total[start : start + size] for start in starts]).astype(np.float32)


def check_levels(levels: np.ndarray) -> None:
    """Raise ValueError unless `levels` is an image (H, W, 3) uint8 of at least 16×16."""
    if levels.ndim != 3 or levels.shape[2] != 3 or levels.dtype != np.uint8:
        raise ValueError(f"expected an image of shape (H, W, 3) in uint8, got {levels.shape} in {levels.dtype}")
    if min(levels.shape[:2]) < SMALLEST:
        raise ValueError(f"expected an image of at least {SMALLEST}x{SMALLEST} pixels, got {levels.shape[1]}x{levels.shape[0]}")


def _batches(count: int) -> list[range]:
    return [range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]


def _windows(malp: MaLP, levels: np.ndarray, top: int, height: int, lefts: list[int], width: int) -> Tensor:
    """The windows of one row, (windows, 3, height, width) in [-1, 1] on MaLP's device."""
    windows = [from_pixels(levels[top : top + height, left : left + width]) for left in lefts]
    return torch.cat(windows).to(malp.encryption.templates.device)


def _phase(start: int, length: int, size: int) -> Tensor:
    """Rows (or columns) of the template that a tiled template has at pixels `start` … `start` + `length` - 1."""
    return torch.arange(start, start + length) % size
