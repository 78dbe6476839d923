"""Image files to 8-bit RGB: the one way in, for training and for `malp-disc fid`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .listing import is_image_array, npy_header, printable


class BrokenImageError(ValueError):
    """A file that can't be decoded to 8-bit RGB: truncated, empty, no image at all, or with more than 8 bits per channel."""


def decode_image(path: str | Path, *, as_stored: bool = False) -> Image.Image:
    """The whole image in RGB, of an animation or a multi-page file the first frame.

    Palettes, grey, CMYK and one-bit images are converted as Pillow converts them. A ``.npy`` file is uint8, see `is_image_array`.

    Args:
        as_stored: take the pixels as pytorch-fid and clean-fid do, by ``convert("RGB")`` alone. Else the image is turned upright (EXIF),
            and what is transparent turns white.

    Raises:
        BrokenImageError: the file can't be decoded; names it.
        OSError: the file is gone or may not be read.
    """
    with _naming(path, as_stored):
        with _opened(path) as image:
            _check_depth(image)
            if as_stored:
                return image.convert("RGB")
            upright = ImageOps.exif_transpose(image)
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            white = Image.new("RGBA", upright.size, "white")
            return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")


def read_header(path: str | Path, content: BinaryIO | None = None, *, as_stored: bool = False) -> Image.Image:
    """The image, its pixels not decoded yet: for its size, and for `count_frames`.

    content: the file's bytes, where they have been read already. as_stored: as for `decode_image`.

    Raises:
        BrokenImageError: the file is no image; names it.
        OSError: the file is gone or may not be read.
    """
    with _naming(path, as_stored):
        image = _opened(path, content)
        _check_depth(image)
        return image


def count_frames(image: Image.Image) -> int:
    """Frames of an animation or pages of a file; a phone's second image behind a JPEG (MPO) is none."""
    try:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # damaged behind the header: decoding says so
        return 1


def _check_depth(image: Image.Image) -> None:
    """Raises:
    ValueError: more than 8 bits per channel, which Pillow would clip to white without a word.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"mode {image.mode}, more than 8 bits per channel; save it with 8 bits")


@contextlib.contextmanager
def _naming(path: str | Path, as_stored: bool) -> Iterator[None]:
    """Whatever Pillow's decoders raise over a damaged file, which is nearly anything, becomes one error with the file's name.

    Raises:
        BrokenImageError: in place of what was raised.
        OSError: missing, forbidden, disk failure: not the image's fault, so passed on.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BrokenImageError(
            f"{printable(path)} can't be decoded ({_reason(error, path)}); replace or delete it{'' if as_stored else ', or drop all such pictures with --on-broken skip'}"
        ) from error


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
        return f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels, which Pillow takes for an attack; make it smaller"
    return "no image in a format that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else str(error)
