"""Decodes image files to 8-bit RGB, for training and for `malp-disc fid`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from .listing import is_image_array, npy_header, printable

_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""


class BrokenImageError(ValueError):
    """A file that can't be decoded to 8-bit RGB: truncated, empty, not an image, or with more than 8 bits per channel."""


class _TooDeepError(ValueError):
    """The file is whole, and its levels need more than 8 bits."""


def decode_image(path: str | Path, *, as_stored: bool = False, advice: bool = True) -> Image.Image:
    """Decode an image to RGB; of an animation or a multi-page file, the first frame.

    Palette, grey, CMYK and one-bit images are converted by Pillow. A ``.npy`` file must be uint8, see `is_image_array`.

    Args:
        as_stored: only ``convert("RGB")``, as in pytorch-fid and clean-fid. Otherwise, the EXIF orientation is applied and transparent
            pixels are composited over white.
        advice: whether the error says what to do.

    Raises:
        BrokenImageError: the file can't be decoded.
        OSError: the file is missing or can't be read.
    """
    with _naming(path, as_stored, advice=advice):
        with _opened(path) as image:
            _check_depth(image)
            if as_stored:
                return image.convert("RGB")
            image = turn_upright(image)
            if not image.has_transparency_data:
                return image.convert("RGB")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def read_header(path: str | Path, content: BinaryIO | None = None, *, as_stored: bool = False) -> Image.Image:
    """Open an image without decoding its pixels, for its size and `count_frames`.

    Args:
        content: the file's bytes, if they have been read already.
        as_stored: as for `decode_image`.

    Raises:
        BrokenImageError: the file isn't an image.
        OSError: the file is missing or can't be read.
    """
    with _naming(path, as_stored):
        image = _opened(path, content)
        _check_depth(image)
        return image


def turn_upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF orientation says; with damaged EXIF data, as it is stored.

    Pillow's ``exif_transpose`` also writes the EXIF data anew, and fails if another tag has a value of a wrong type.
    """
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def count_frames(image: Image.Image) -> int:
    """Number of frames of an animation or pages of a document. The extra images in a phone's JPEG (MPO) don't count."""
    try:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # damaged after the header: decoding will raise
        return 1


def _check_depth(image: Image.Image) -> None:
    """Refuse images of more than 8 bits per channel, which Pillow would silently clip to white.

    Raises:
        _TooDeepError: such an image.
    """
    if image.mode.startswith(("I", "F")):
        raise _TooDeepError(f"has more than 8 bits per channel (mode {image.mode}), expected 8; save it with 8 bits")


@contextlib.contextmanager
def _naming(path: str | Path, as_stored: bool, *, advice: bool = True) -> Iterator[None]:
    """Convert errors of Pillow's decoders, which can be of nearly any type, to one that names the file.

    Raises:
        BrokenImageError: in place of a decoder's error.
        OSError: passed on: the file is missing, permission is denied, or the disk failed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, _TooDeepError):
            raise BrokenImageError(f"{printable(path)} {error}{', or drop all such images with --on-broken skip' if advice and not as_stored else ''}") from error
        cure = f"; replace or delete it{'' if as_stored else ', or drop all such images with --on-broken skip'}" if advice else ""
        raise BrokenImageError(f"{printable(path)} can't be decoded ({_reason(error, path)}){cure}") from error


def _opened(path: str | Path, content: BinaryIO | None = None) -> Image.Image:
    if os.path.splitext(path)[1].lower() == ".npy":
        return _array(path)
    return Image.open(path if content is None else content)


def _array(path: str | Path) -> Image.Image:
    shape, dtype = npy_header(path)
    if not is_image_array(shape, dtype):
        raise ValueError(f"{dtype} of shape {shape}, expected uint8 of shape (H, W, 3) or (H, W)")
    levels = np.load(path, allow_pickle=False)
    return Image.fromarray(levels[:, :, 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)


def _reason(error: Exception, path: str | Path) -> str:
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == 0:
            return "empty file"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels, which Pillow refuses as a possible decompression bomb; reduce its size"
    return "not an image in a format that Pillow supports" if isinstance(error, Image.UnidentifiedImageError) else str(error)
