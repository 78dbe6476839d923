"""``malp-disc localize IN OUT --malp DIR``: predict which pixels of images a generator changed.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from malp_disc.commands.loading import InspectionFlags, load_issued, load_malp

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "localize.jsonl"
_OVERLAY_FULL = (0.15, 1.0)  # of a fakeness map, and of a probability


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Localize(InspectionFlags):
    """Localize what a generator changed in images: a 16-bit fakeness map, a heat map over the image, and scores."""

    images: Annotated[Path, Positional, arg(metavar="IN")]
    """An image, or a folder of images with its sub-folders."""
    output: Annotated[Path, Positional, arg(metavar="OUT")]
    """Output folder: NAME.map.png (16-bit grey, 65535 for a pixel changed from black to white), NAME.overlay.png, and localize.jsonl."""
    changed_above: float | None = None
    """Map value, in [0, 1), above which a pixel counts as changed. 1 is a change from black to white, and the default, 0.03, is 8 of 255 levels.
    For a MaLP of the preset survive, whose map is the probability of an edited region, the default is 0.25."""
    overlay_full: float | None = None
    """Map value, in (0, 1], that gets the brightest colour of the overlay. It is the same for all images, so they can be compared.
    By default 0.15, and 1 for a MaLP of the preset survive."""
    overwrite: bool = False
    """Replace existing outputs, and process finished images again."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write one JSON line per image to this file, or to standard output for -.
    Images that an earlier run finished are included."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one."""


def localize(options: Localize) -> None:
    """Map, print, and keep the manifest.

    Raises:
        ValueError, OSError: invalid flags or files; at the end, images that failed.
    """
    if options.changed_above is not None and not 0 <= options.changed_above < 1:
        raise ValueError(f"expected --changed-above in [0, 1), got {options.changed_above}")
    if options.overlay_full is not None and not 0 < options.overlay_full <= 1:
        raise ValueError(f"expected --overlay-full in (0, 1], got {options.overlay_full}")
    from malp_disc.commands.batch import JsonLines, Sources, check_output, process_images
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.commands.inspecting import count_unprotected, describe, inspect_with_progress
    from malp_disc.commands.overlay import overlay
    from malp_disc.inspection import changed_above
    from malp_disc.keyed import KeyedMaLP

    sources = Sources.find(options.images)
    sources.check_apart(options.output)
    if options.output.is_file():
        raise ValueError(f"OUT {options.output} is a file; give a folder for the maps")

    def targets(name: str) -> list[Path]:
        return [options.output / f"{name}.map.png", options.output / f"{name}.overlay.png"]

    sources.check_kept(chain.from_iterable(map(targets, sources.names)))
    lines = JsonLines(options.json)
    malp = load_malp(options.malp, key=options.key, device=options.device)
    issued = load_issued(malp, options.malp, key=options.key, issued=options.issued)
    check_output(options.output / MANIFEST)
    above = changed_above(malp) if options.changed_above is None else options.changed_above
    full = _OVERLAY_FULL[isinstance(malp, KeyedMaLP)] if options.overlay_full is None else options.overlay_full

    def work(name: str) -> dict[str, Any]:
        image = ImageFile.read(sources.root / name)
        found = inspect_with_progress(malp, image.levels, name, issued=issued)
        map_file, overlay_file = targets(name)
        _save_map(found.map, map_file)
        ImageFile(overlay(image.levels, found.map, full=full)).save(overlay_file)
        return {
            "map": map_file.relative_to(options.output).as_posix(),
            "overlay": overlay_file.relative_to(options.output).as_posix(),
            **describe(malp, image.levels, found, issued),
            "changed_share": round(float((found.map > above * 65535).mean()), 5),
            "map_mean": round(float(found.map.mean() / 65535), 5),
        }

    def again(name: str, record: dict[str, Any]) -> dict[str, Any]:
        """The record of a finished image; anew with keyed templates if it had none of them and there are others now, or if a former version made it, which knew no mirrored images and no changes of tone."""
        outdated = issued is not None and ("mirrored" not in record or (not record["protected"] and record["issued"] != issued.fingerprint))
        return record | work(name) if outdated else record

    outcome = process_images(
        sources,
        work,
        complete=again,
        targets=targets,
        manifest=options.output / MANIFEST,
        settings={"detector": malp.detector_fingerprint, "changed_above": above, "overlay_full": full},
        overwrite=options.overwrite,
        summary=_summary_line,
        stream=lines.stream,
        label="localize",
        device=malp.device,
    )
    print(f"{outcome.counted('localized')}; maps and overlays in {options.output}", file=lines.stream)
    if unprotected := count_unprotected(outcome.records):
        print(f"{unprotected}; their maps mean nothing", file=lines.stream)
    lines.write(outcome.records)
    outcome.finish()


def _save_map(fakeness: np.ndarray, path: Path) -> None:
    """(H, W) uint16 as a 16-bit grey PNG."""
    from PIL import Image

    from malp_disc.serialization.files import atomic_path

    with atomic_path(path) as temporary:
        Image.fromarray(fakeness).save(temporary)


def _summary_line(record: dict[str, Any]) -> str:
    from malp_disc.commands.inspecting import UNPROTECTED, of_original
    from malp_disc.data.listing import printable

    similarity = "" if record["similarity"] is None else f", similarity {record['similarity']:.3f}"
    scores = f"P(manipulated) {record['score']:.3f}{similarity}"
    if record.get("protected") is False:
        return f"{printable(record['file'])}: {UNPROTECTED}, {scores}{of_original(record)}"
    return f"{printable(record['file'])}: {scores}, {record['changed_share']:.1%} of the pixels changed{of_original(record)}"
