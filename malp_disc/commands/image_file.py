"""Reading and writing image files with their alpha channel, EXIF data and colour profile."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from malp_disc.data.decoding import count_frames, read_header, turn_upright
from malp_disc.data.listing import printable
from malp_disc.serialization.files import atomic_path

logger = logging.getLogger(__name__)

LOSSLESS = {".png": "png", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
"""Suffixes whose files can hold an image unchanged, with its alpha channel and profile."""
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
_ORIENTATION, _EXIF_FOLDER, _GPS_FOLDER, _INTEROPERABILITY_FOLDER = 274, 34665, 34853, 40965
_RESOLUTION, _RESOLUTION_UNIT = (282, 283), 296
_DESCRIPTIVE = (269, 270, 271, 272, *_RESOLUTION, _RESOLUTION_UNIT, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
"""Tags that a TIFF can take over from another file: title, camera, resolution, software, date, artist, rating, copyright. The others say how its pixels are stored."""
_ENCODER = {
    "png": {"compress_level": 6},
    "webp": {"lossless": True, "exact": True},  # exact: colours under transparent pixels stay too
    "tiff": {"compression": "tiff_deflate"},
}


@dataclass
class ImageFile:
    """An image with its alpha channel and metadata.

    Attributes:
        levels: (H, W, 3) uint8, upright: an EXIF orientation has been applied.
        alpha: (H, W) uint8, or None.
        grey: whether the file is greyscale; the three channels of `levels` are equal then.
        exif: EXIF tags without the orientation, the folders among them as dictionaries; None if they are damaged.
        profile: ICC profile, or None.
    """

    levels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    exif: Image.Exif | None = field(default_factory=Image.Exif)
    profile: bytes | None = None

    @classmethod
    def read(cls, path: str | Path) -> ImageFile:
        """Decode a file.

        Raises:
            ValueError: not an image, a damaged one, or one that can't be kept without loss: more than 8 bits per channel, several frames, CMYK or Lab.
            OSError: the file can't be read.
        """
        with read_header(path, as_stored=True) as image:
            _check_loses_nothing(image, path)
            try:
                if image.format != "TIFF":  # whose EXIF data must be read before, since Pillow lets go of the file then; those of a PNG may follow the pixels
                    image.load()
                metadata = {"exif": _exif(image), "profile": image.info.get("icc_profile") or None}
                upright = turn_upright(image)
                grey = upright.mode in ("1", "L", "LA")
                transparent = upright.has_transparency_data
                pixels = np.asarray(upright.convert(("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB")))
            except Exception as error:  # Pillow's decoders raise nearly anything over a damaged file
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise ValueError(f"{printable(path)} can't be decoded ({error}); replace or delete it") from error
        if grey:
            colour = pixels[..., 0] if transparent else pixels
            return cls(np.repeat(colour[..., None], 3, axis=2), pixels[..., 1] if transparent else None, True, **metadata)
        return cls(np.ascontiguousarray(pixels[..., :3]), pixels[..., 3] if transparent else None, False, **metadata)

    def save(self, path: Path, *, quality: int | None = None) -> None:
        """Write the image in the format of the suffix, atomically.

        Args:
            quality: of a JPEG (``.jpg``, ``.jpeg``); every other format keeps the pixels as they are.

        Raises:
            ValueError: the format can't hold this image.
            OSError: the disk is full or not writable.
        """
        kind = LOSSLESS.get(path.suffix.lower(), "jpeg")
        if kind == "jpeg" and self.alpha is not None:
            raise ValueError("JPEG has no alpha channel; give --format png")
        colour = self.levels[..., :1] if self.grey else self.levels
        pixels = colour if self.alpha is None else np.concatenate([colour, self.alpha[..., None]], axis=2)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        options = {"quality": quality, "optimize": True} if kind == "jpeg" else _ENCODER[kind]
        exif, lost = _writable(self.exif)
        if lost:
            logger.warning("%s has lost %s", printable(path), lost)
        encoded = io.BytesIO()
        try:
            image.save(encoded, format=kind, **{**options, **_metadata(kind, exif, self.profile)})
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: of libtiff
            raise ValueError(f"{kind} can't hold this image of {image.width}x{image.height} pixels ({error}); give --format png") from error
        with atomic_path(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())


def _check_loses_nothing(image: Image.Image, path: str | Path) -> None:
    def refuse(what: str, instead: str) -> None:
        raise ValueError(f"{printable(path)} {what}; {instead}")

    if image.mode not in _PLAIN_MODES:
        refuse(f"is stored as {image.mode}, expected RGB or grey", "convert it to RGB first")
    if count_frames(image) > 1:
        refuse(f"has {count_frames(image)} frames or pages, expected a single image", "save each of them as a file of its own")
    raw = [tile[3] for tile in getattr(image, "tile", ())]
    deep = image.format in ("PNG", "TIFF") and any("16" in str(mode[0] if isinstance(mode, tuple) else mode) for mode in raw)  # beside it, offsets in the file
    if deep or (image.format == "PPM" and any(isinstance(mode, tuple) and max((v for v in mode if isinstance(v, int)), default=0) > 255 for mode in raw)):
        refuse("has 16 bits per channel, expected 8", "save it with 8 bits")


def _exif(image: Image.Image) -> Image.Exif | None:
    """EXIF tags without the orientation, read completely, as the file is closed later; None if they are damaged."""
    try:
        whole, kept = image.getexif(), Image.Exif()
        kept.endian = whole.endian  # of some cameras, the maker's note is read in it
        folders = {folder: dict(whole.get_ifd(folder)) for folder in (_EXIF_FOLDER, _GPS_FOLDER) if folder in whole}
        if _INTEROPERABILITY_FOLDER in folders.get(_EXIF_FOLDER, ()):
            folders[_EXIF_FOLDER][_INTEROPERABILITY_FOLDER] = dict(whole.get_ifd(_INTEROPERABILITY_FOLDER))
        kept.update({tag: whole[tag] for tag in (_DESCRIPTIVE if image.format == "TIFF" else list(whole)) if tag in whole and tag != _ORIENTATION} | folders)
    except Exception:
        return None
    return kept


def _writable(exif: Image.Exif | None) -> tuple[Image.Exif, str]:
    """Those tags that can be written, since a damaged one may have a value of another type than its definition; and in words, what is lost."""
    kept, lost = Image.Exif(), []
    if exif is None:
        return kept, "its EXIF data, which are damaged"
    kept.endian = exif.endian
    for tag, value in exif.items():
        if isinstance(value, dict):
            kept[tag] = {inner: part for inner, part in value.items() if _can_write({tag: {inner: part}})}
            names = ExifTags.GPSTAGS if tag == _GPS_FOLDER else ExifTags.TAGS
            lost += [names.get(inner, inner) for inner in value if inner not in kept[tag]]
        elif _can_write({tag: value}):
            kept[tag] = value
        else:
            lost.append(ExifTags.TAGS.get(tag, tag))
    return kept, f"the EXIF tag{'s' * (len(lost) > 1)} {', '.join(map(str, lost))}, whose values are damaged" if lost else ""


def _can_write(tags: dict[int, Any]) -> bool:
    exif = Image.Exif()
    exif.update(tags)
    try:
        exif.tobytes()
    except Exception:  # Pillow's encoders of values raise TypeError, AttributeError and struct.error among others
        return False
    return True


def _metadata(kind: str, exif: Image.Exif, profile: bytes | None) -> dict[str, Any]:
    """Arguments of Pillow's ``save`` for EXIF data and profile. A TIFF is compressed only if libtiff, which does it, can write its tags."""
    options: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
    if kind != "tiff":
        return {**options, "exif": exif.tobytes()} if len(exif) else options
    info = options["tiffinfo"] = ImageFileDirectory_v2()
    for tag, value in exif.items():
        if tag in (*_DESCRIPTIVE, _EXIF_FOLDER, _GPS_FOLDER):
            info[tag] = value
            if not _libtiff_can_write(tag, value):
                options["compression"] = "raw"
    return options


def _libtiff_can_write(tag: int, value: Any) -> bool:
    """Whether it is a text or a resolution. libtiff has no folders, and a number where it expects text is a segmentation fault."""
    if tag in _RESOLUTION:
        return isinstance(value, IFDRational) and value > 0
    return value in (1, 2, 3) if tag == _RESOLUTION_UNIT else isinstance(value, str)
