"""Tracing an image of which nothing is known: which template it has, if any, and whether it was cropped, mirrored, stretched, or changed in tone since it was protected.

What a repost does to the whole image is undone before the image is examined, so that it hides no edit and counts as none. Crops and mirror images are found by the template alone. A stretched image and a change of tone are looked for with the templates of the
originals that the image is similar to (`malp_disc.keyed.looks`), since each way of undoing multiplies the number of trials.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from malp_disc.keyed.alignment import Alignment, grid_size
from malp_disc.keyed.evidence import evidence
from malp_disc.keyed.identification import LIKELY_ABOVE, Identification, identify, raised_threshold
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.looks import RESEMBLES, SIDE, SIMILAR
from malp_disc.keyed.spectrum import resampled
from malp_disc.keyed.tone import TRIED, Tone, find_tone

BETTER_TONE, SIMILAR_AFTER = 1.5, 0.095
"""Ratio of presences and similarity of the template above which a tone is undone. Below that ratio, a retouched region of the image could be taken for a change of its tone, and so small a change of tone disturbs little. A generator changes colours, too, and what it
leaves of a template agrees better in another tone: of 60 training faces that a StarGAN edited, the similarity reached 0.09; of untouched ones that were brighter, it was 0.17 or more, and after JPEG 50 0.097 or more."""
_SAME_ASPECT = 0.004  # half a pixel of a grid of 128
_MOST_STRETCHED = 8.0  # more is not looked for: whatever a list says, an image stays of about its size


@dataclass(frozen=True)
class Trace:
    """Attributes:
    found: the template, and where the image lies on its original; its `protected` says whether to believe it.
    image: (1, 3, H, W), with `mirrored`, `stretched` and `tone` undone, to be examined with the number and the alignment of `found`.
    resembles: number of the template whose original the image resembles most; None if it resembles none.
    mirrored: left and right were exchanged.
    stretched: ratio of width to height, in relation to that of the original: 1 for none.
    tone: what undoes the change of tone.
    """

    found: Identification
    image: Tensor
    resembles: int | None = None
    mirrored: bool = False
    stretched: float = 1.0
    tone: Tone = Tone()

    def as_given(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (1, 1, H, W) of `image` as those of the image that was given, of these sides."""
        maps = maps.flip(3) if self.mirrored else maps
        return maps if tuple(maps.shape[2:]) == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def trace(image: Tensor, secret: bytes, issued: Issued, size: int, *, present_above: float, among: Sequence[int] | None = None, crops: bool = True) -> Trace:
    """What became of one image (1, 3, H, W) in [-1, 1].

    Args:
        present_above: presence above which an image counts as protected, if a single template is tried.
        among: look for these templates only, but require as much of them as if all were tried; for measurements, which know the answer.
        crops: look for crops of all the originals, too.
    """
    ways = list(_ways(image, issued))
    resembles = next((way.likely[0] for way in ways if way.likely), None)
    search = _Search(
        ways=[way.within(among) for way in ways],
        secret=secret,
        size=size,
        above=present_above,
        crops=crops,
        numbers=issued.numbers if among is None else among,
        trials=len(issued.numbers),
        likely=sum(len(way.likely) for way in ways),
    )
    found = search.resembling() or search.whole() or search.toned() or search.cropped()
    return replace(found, resembles=resembles)


@dataclass(frozen=True)
class _Way:
    """How an image may have been mirrored or stretched, and templates of originals that have the aspect that it had before: of those that it resembles, and of all that it is similar to."""

    given: Tensor
    likely: tuple[int, ...]
    similar: tuple[int, ...]
    mirrored: bool = False
    stretched: float = 1.0

    @property
    def image(self) -> Tensor:
        """The image with both undone; made anew each time, since it may be large."""
        height, width = self.given.shape[2:]
        own = self.given.flip(3) if self.mirrored else self.given
        return own if self.stretched == 1 else resampled(own, (max(1, round(height * self.stretched**0.5)), max(1, round(width / self.stretched**0.5))))

    def within(self, among: Sequence[int] | None) -> _Way:
        """With no other templates than these."""
        if among is None:
            return self
        return replace(self, likely=tuple(number for number in self.likely if number in among), similar=tuple(number for number in self.similar if number in among))


def _ways(image: Tensor, issued: Issued) -> Iterator[_Way]:
    """As it is, and stretched back to the aspects of originals; then both of its mirror image."""
    height, width = image.shape[2:]
    small = F.interpolate(image.mean(1, keepdim=True), (SIDE, SIDE), mode="area")
    for mirrored in (False, True):
        own = small.flip(3) if mirrored else small
        similar = issued.similar(own, SIMILAR)
        likely = tuple(number for number, value in similar.items() if value >= RESEMBLES)
        yield _Way(image, likely, tuple(similar), mirrored)
        ratios = {number: width / height / (shape[1] / shape[0]) for number in similar if (shape := issued.shapes.get(number)) is not None}
        for ratio in dict.fromkeys(value for value in ratios.values() if abs(value - 1) > _SAME_ASPECT and 1 / _MOST_STRETCHED <= value <= _MOST_STRETCHED):
            yield _Way(image, *(tuple(number for number in numbers if ratios.get(number) == ratio) for numbers in (likely, similar)), mirrored, ratio)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Steps of the search for a template, from the cheapest to the most expensive.

    Attributes:
        ways: the first one is the image as it is.
        above: presence above which an image counts as protected, if a single template is tried.
        crops: whether to look for crops of all the originals.
        numbers: of the templates that are tried.
        trials: number of the templates that count as tried.
        likely: number of the templates of originals that the image resembles in any way.
    """

    ways: list[_Way]
    secret: bytes
    size: int
    above: float
    crops: bool
    numbers: Sequence[int]
    trials: int
    likely: int

    def resembling(self) -> Trace | None:
        """With a template of an original that the image resembles, of which less is enough."""
        best: tuple[Identification, _Way] | None = None
        for way in self.ways:
            if best is not None and best[0].protected and way.mirrored:
                break
            if way.likely:
                found = self._identified(way, way.likely, above=LIKELY_ABOVE, trials=self.likely, crops=self.crops)
                if best is None or found.presence > best[0].presence:
                    best = found, way
        return None if best is None or not best[0].protected else self._with_tone(*best)

    def whole(self) -> Trace | None:
        """As a whole with any template, as it is or else mirrored, and stretched with those of similar originals."""
        if self._as_it_is.protected:
            return self._with_tone(self._as_it_is, self.ways[0])
        for way in self.ways[1:]:
            numbers = self.numbers if way.stretched == 1 else way.similar
            if numbers and (found := self._identified(way, numbers, above=self.above, trials=2 * len(self.ways) * self.trials, crops=False)).protected:
                return self._with_tone(found, way)
        return None

    def toned(self) -> Trace | None:
        """As a whole with the template of a similar original, after a change of tone."""
        missing = Identification(0, Alignment(), presence=0.0, threshold=0.0)
        found = [self._with_tone(missing, way, way.similar) for way in self.ways if way.similar]
        best = max(found, key=lambda one: one.found.presence, default=None)
        return best if best is not None and best.found.protected else None

    def cropped(self) -> Trace:
        """As a crop of any original; not protected if it is none."""
        found = self._identified(self.ways[0], self.numbers, above=self.above, trials=self.trials, crops=True) if self.crops else self._as_it_is
        return self._with_tone(found, self.ways[0]) if found.protected else Trace(found, self.ways[0].image)

    @functools.cached_property
    def _as_it_is(self) -> Identification:
        return self._identified(self.ways[0], self.numbers, above=self.above, trials=self.trials, crops=False)

    def _identified(self, way: _Way, numbers: Sequence[int], *, above: float, trials: int, crops: bool) -> Identification:
        return identify(way.image, self.secret, numbers, self.size, present_above=above, trials=trials, crops=crops)

    def _with_tone(self, found: Identification, way: _Way, numbers: tuple[int, ...] = ()) -> Trace:
        """The trace of an image whose template was found, or is to be found among `numbers` with its tone undone."""
        image, offset = way.image, found.alignment.offset
        seen = resampled(image, grid_size(*image.shape[2:], self.size, found.alignment.share))
        number, tone = find_tone(seen, self.secret, numbers or (found.number,), self.size, offset)
        if tone != Tone():
            undone = evidence(tone.undone(seen), self.secret, (number,), self.size, offset)
            presence = undone.presence.item()
            threshold = raised_threshold(LIKELY_ABOVE, self.likely * TRIED) if number in way.likely else raised_threshold(self.above, self.trials * TRIED)
            if undone.similarity > SIMILAR_AFTER and presence > max(threshold, BETTER_TONE * found.presence):
                found = replace(found, number=number, presence=presence, threshold=threshold)
                return Trace(found, tone.undone(image), None, way.mirrored, way.stretched, tone)
        return Trace(found, image, None, way.mirrored, way.stretched)
