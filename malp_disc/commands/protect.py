"""``malp-disc protect IN OUT --malp DIR``: add MaLP's template to images before they are published.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from tyro.conf import Positional, arg

from malp_disc.commands.loading import MaLPFlags, key_path, load_malp

if TYPE_CHECKING:
    import numpy as np

    from malp_disc.calibration import Calibration
    from malp_disc.commands.batch import Outcome, Sources
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.malp import MaLP

MANIFEST = "protect.jsonl"
_SUFFIX = {"png": ".png", "webp": ".webp", "tiff": ".tiff", "jpeg": ".jpg"}
_LOSSY = (".jpg", ".jpeg")
_QUALITY = 95
_BY_CHANCE = 0.02  # probability below which false alarms in the check aren't put down to chance; above the usual false-alarm rate, that of a single image
_EXTREME = 0.99  # share of levels at 0 or 255 from which half of the template is lost to clipping; with 0.98 (a photograph on white), both kinds of MaLP found theirs
_NAMED = 3  # images in a warning
_CHECKED_TILES = 4  # the check after saving covers this many templates along each side, in the middle of the image


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Protect(MaLPFlags):
    """Protect images: add a template, so that MaLP can later detect and localize manipulations."""

    images: Annotated[Path, Positional, arg(metavar="IN")]
    """An image, or a folder of images with its sub-folders."""
    output: Annotated[Path, Positional, arg(metavar="OUT")]
    """Protected image, or folder for them, which keeps sub-folders and names and also gets protect.jsonl, one line per image."""
    format: Literal["keep", "png", "webp", "tiff", "jpeg"] = "keep"
    """File format. keep: PNG, WebP, and TIFF stay as they are, always lossless, and any other format becomes PNG.
    jpeg loses a part of the template; the command measures how much."""
    quality: int | None = None
    """JPEG quality, from 1 to 100. By default 95. No other format has one."""
    template: int | None = None
    """Index of the template, from 0. By default, it is drawn for each image from a hash of its name, the same in every run.
    A MaLP of the preset survive gives every image a new one, which issued.jsonl beside its key records."""
    check: bool = False
    """Read every saved image again and print what MaLP finds in it, also those that an earlier run saved without checking. This is always done for JPEG."""
    overwrite: bool = False
    """Replace existing outputs, and process finished images again."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write one JSON line per image to this file, or to standard output for -.
    Images that an earlier run finished are included."""
    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:1, and so on. auto takes a GPU if there is one. Only the check needs one."""


def protect(options: Protect) -> None:
    """Protect, print, and keep the manifest.

    Raises:
        ValueError, OSError: invalid flags or files; at the end, images that failed.
    """
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ValueError(f"expected --quality of 1 to 100, got {options.quality}")
    from malp_disc.commands.batch import JsonLines, Sources, check_output, process_images
    from malp_disc.commands.image_file import ImageFile
    from malp_disc.inspection import as_input, check_protectable, protect_levels, set_size
    from malp_disc.keyed import KeyedMaLP
    from malp_disc.keyed.issued import IssuedTemplates
    from malp_disc.serialization.files import check_writable

    sources = Sources.find(options.images)
    sources.check_apart(options.output)
    places = _places(sources, options)
    sources.check_kept(places.values())
    quality = _quality(places, options)
    lines = JsonLines(options.json)
    malp = load_malp(options.malp, key=options.key, device=options.device)
    if malp.passive:
        raise ValueError(f"{options.malp} is a passive detector (strength 0): it has no template to add")
    issued = IssuedTemplates(key_path(options.malp, options.key), malp.key_fingerprint) if isinstance(malp, KeyedMaLP) else None
    if issued is not None:
        if options.template is not None:
            raise ValueError(f"got --template {options.template}, but a MaLP of the preset survive gives every image a template of its own; leave it out")
        check_writable(issued.path, advice="copy the key to a folder where you may write, and give it as --key")
    if options.template is not None and not 0 <= options.template < set_size(malp):
        raise ValueError(f"expected --template of 0 to {set_size(malp) - 1}, got {options.template}")
    check_output(next(iter(places.values())) if sources.single else options.output / MANIFEST)

    def work(name: str) -> dict[str, Any]:
        image = ImageFile.read(sources.root / name)
        check_protectable(malp, image.levels)
        if issued is None:
            given = {"template": _draw(name, set_size(malp)) if options.template is None else options.template}
        else:
            given = {entry: value for entry, value in issued.issue(name, as_input(malp, image.levels)).items() if entry in ("template", "look")}
        index = given["template"]
        original, image.levels = image.levels, protect_levels(malp, image.levels, index)
        place = places[name]
        image.save(place, quality=quality)
        record = {"output": str(place if sources.single else place.relative_to(options.output).as_posix()), **given}
        record |= {"width": original.shape[1], "height": original.shape[0], "psnr": _psnr(original, image.levels)}
        if record["psnr"] is not None and (why := _cannot_carry(original, keyed=issued is not None)):
            record["doubtful"] = why
        if options.check or place.suffix.lower() in _LOSSY:
            record |= _survival(malp, image, ImageFile.read(place), index)
        return record

    def checked(name: str, record: dict[str, Any]) -> dict[str, Any]:
        if not options.check or "score_saved" in record:
            return record
        saved = ImageFile.read(places[name])
        return record | _survival(malp, saved, saved, record["template"])  # lossless, or it would have been checked when it was saved

    settings = {"key": malp.key_fingerprint, "strength": malp.strength, "format": options.format, "template": options.template}
    settings |= {"grid": malp.config.image_size, "scheme": malp.config.scheme} if isinstance(malp, KeyedMaLP) else {}  # of one key, templates of another grid are others
    settings |= {"quality": quality} if options.format == "jpeg" else {}
    outcome = process_images(
        sources,
        work,
        complete=checked,
        targets=lambda name: [places[name]],
        manifest=None if sources.single else options.output / MANIFEST,
        settings=settings,
        overwrite=options.overwrite,
        summary=_summary_line,
        stream=lines.stream,
        label="protect",
        device=malp.device,
    )
    _summarize(outcome, malp.key_fingerprint, lines.stream)
    if issued is None and (unlike := _unlike_training(outcome.records, malp.detection)):
        print(f"warning: {unlike}", file=sys.stderr)
    if issued is None and options.check and malp.detection is None:
        print("no threshold, so the fit can't be checked; malp-disc detect --calibrate sets one", file=sys.stderr)
    lines.write(outcome.records)
    outcome.finish()


def _places(sources: Sources, options: Protect) -> dict[str, Path]:
    """The output path of every image, all distinct, also where upper and lower case are one: the same in every run over the same names.

    Two with the same path (a.jpg and a.png as PNG) keep their old suffix in the name, a.jpg.png; where that is taken as well, it is numbered, a.jpg.2.png.
    """
    from malp_disc.commands.image_file import LOSSLESS

    if sources.single and not options.output.is_dir():
        suffix = options.output.suffix.lower()
        if suffix not in LOSSLESS and suffix not in _LOSSY:
            raise ValueError(f"can't tell from {options.output} what to write; give a name that ends in .png, .webp, .tiff or .jpg, or a folder that exists")
        if options.format not in ("keep", LOSSLESS.get(suffix, "jpeg")):
            raise ValueError(f"--format {options.format} contradicts the name {options.output}; give a name that ends in {_SUFFIX[options.format]}, or leave --format out")
        return {sources.names[0]: options.output}

    if not sources.single and options.output.is_file():
        raise ValueError(f"OUT {options.output} is a file, and IN is a folder; give a folder")

    def renamed(name: str, whole: bool) -> str:
        stem, dot, suffix = name.rpartition(".")
        if options.format == "keep" and f".{suffix.lower()}" in LOSSLESS:
            return name
        wanted = _SUFFIX["png" if options.format == "keep" else options.format]
        kept = suffix.lower() == wanted[1:] or (wanted, suffix.lower()) in ((".jpg", "jpeg"), (".tiff", "tif"))
        return name if kept else (name if whole else stem) + wanted

    short = {name: renamed(name, whole=False) for name in sources.names}
    collisions = Counter(place.lower() for place in short.values())
    wanted = {name: place if collisions[place.lower()] == 1 else renamed(name, whole=True) for name, place in short.items()}
    places: dict[str, Path] = {}
    taken: set[str] = set()
    for name in sorted(sources.names, key=lambda name: (wanted[name] != name, wanted[name] != short[name], name)):  # who keeps the name has it first
        stem, dot, suffix = wanted[name].rpartition(".")
        free = next(place for place in chain([wanted[name]], (f"{stem}.{number}.{suffix}" for number in count(2))) if place.lower() not in taken)
        taken.add(free.lower())
        places[name] = options.output / free
    return places


def _quality(places: dict[str, Path], options: Protect) -> int:
    """The JPEG quality. Raises ValueError if one was given and no JPEG is written."""
    if options.quality is not None and not any(place.suffix.lower() in _LOSSY for place in places.values()):
        raise ValueError(f"--quality {options.quality} is that of JPEG, and no JPEG is written; give --format jpeg as well, or a name that ends in .jpg, or leave --quality out")
    return _QUALITY if options.quality is None else options.quality


def _draw(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") % count


def _psnr(original: np.ndarray, protected: np.ndarray) -> float | None:
    """In dB over the range of 255; None where nothing changed (all white or black can't take a template up or down)."""
    import numpy as np

    error = np.mean([np.square(a.astype(np.float32) - b.astype(np.float32)).mean() for a, b in zip(original, protected)])
    return round(float(10 * np.log10(255**2 / error)), 3) if error else None


def _cannot_carry(original: np.ndarray, *, keyed: bool) -> str | None:
    """Why an image hardly carries a template, although its pixels changed; None if it can.

    Args:
        keyed: the template follows from the image's content, with a MaLP of the preset survive.
    """
    if ((original == 0) | (original == 255)).mean() >= _EXTREME:
        return "black and white alone, so that half of the template is clipped"
    return "a single colour, from which no template follows" if keyed and (original == original[:1, :1]).all() else None


def _survival(malp: MaLP, image: ImageFile, saved: ImageFile, template: int) -> dict[str, float]:
    """MaLP's scores before and after saving, from the middle of a large image (on the template's grid)."""
    from malp_disc.inspection import count_windows, inspect_levels
    from malp_disc.keyed.issued import Issued

    size = malp.config.image_size
    height, width = image.levels.shape[:2]
    part = (slice(None), slice(None))  # all of an image that is inspected as a whole
    if count_windows(malp, height, width, with_map=False) > _CHECKED_TILES**2:
        part = tuple(slice(start, start + _CHECKED_TILES * size) for start in (max(0, (length - _CHECKED_TILES * size) // 2) // size * size for length in (height, width)))
    before, after = (inspect_levels(malp, file.levels[part], with_map=False, issued=Issued((template,))) for file in (image, saved))
    return {
        "similarity": round(before.similarity, 4),
        "similarity_saved": round(after.similarity, 4),
        "score": round(before.score, 4),
        "score_saved": round(after.score, 4),
    }


def _unlike_training(records: list[dict[str, Any]], detection: Calibration | None) -> str | None:
    """What to say if `malp-disc detect` would call more of the checked images manipulated than chance explains, before anybody has edited them; otherwise None."""
    scores = [record["score"] for record in records if "score" in record]
    if not scores or detection is None or detection.statistic != "image":
        return None
    from scipy.stats import binom

    found, rate = sum(score > detection.threshold for score in scores), detection.false_alarm_rate
    if not found or binom.sf(found - 1, len(scores), rate) > _BY_CHANCE:
        return None
    return (
        f"malp-disc detect would call {found} of the {len(scores)} checked images manipulated, though nobody has edited them, at the threshold {detection.threshold:.3g} for "
        f"{rate:.2g} false alarms: they are unlike the images that it was set on. Set it on images like these (malp-disc detect --calibrate), or pretrain on them"
    )


def _summary_line(record: dict[str, Any]) -> str:
    from malp_disc.data.listing import printable

    fidelity = "unchanged" if record["psnr"] is None else f"{record['psnr']:.1f} dB"
    saved = f", similarity {record['similarity_saved']:.3f}, P(manipulated) {record['score_saved']:.3f} as saved" if "score_saved" in record else ""
    return f"{printable(record['output'])}: {fidelity}, template {record['template']}{saved}"


def _summarize(outcome: Outcome, key: str, stream: TextIO) -> None:
    records = outcome.records

    def mean(entry: str, among: list[dict[str, Any]]) -> float:
        return sum(record[entry] for record in among) / len(among)

    from malp_disc.data.listing import printable

    changed = [record for record in records if record["psnr"] is not None]
    fidelity = f", PSNR {mean('psnr', changed):.1f} dB in the mean" if changed else ""
    print(f"{outcome.counted('protected')}{fidelity}, with the key {key}", file=stream)
    unchanged = len(records) - len(changed)
    if unchanged:
        print(f"warning: {unchanged} image{'s' * (unchanged != 1)} took no template (the steps are too small, or the image is all black or white)", file=sys.stderr)
    for why in sorted({record["doubtful"] for record in records if "doubtful" in record}):
        those = [printable(record["output"]) for record in records if record.get("doubtful") == why]
        named = f"{', '.join(those[:_NAMED])}{', …' if len(those) > _NAMED else ''}"
        print(f"warning: {named}: {why}. MaLP may not find it there; what it finds is printed with --check", file=sys.stderr)
    lossy = [record for record in records if Path(record["output"]).suffix.lower() in _LOSSY and "score_saved" in record]
    if lossy:
        print(
            f"warning: JPEG takes part of the template: similarity {mean('similarity', lossy):.3f} before saving and {mean('similarity_saved', lossy):.3f} after, "
            f"P(manipulated) of these untouched images {mean('score', lossy):.3f} and {mean('score_saved', lossy):.3f}; PNG, WebP and TIFF keep it whole",
            file=sys.stderr,
        )
