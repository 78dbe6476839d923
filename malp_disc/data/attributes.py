"""Reads tables of binary attributes, one row per image: CSV, or the text format of CelebA."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .listing import IMAGE_SUFFIXES
from .locating import plain_name
from .splits import SPLIT_NAMES, Split

_VALUES = {"1": 1.0, "+1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "-1": 0.0, "-1.0": 0.0, "false": 0.0}


@dataclass(frozen=True)
class AttributeTable:
    """File names and labels read from a table."""

    files: tuple[str, ...]
    """File names, normalized by `plain_name`, in the order of the table."""
    attribute_names: tuple[str, ...]
    """The selected columns, in the order of the selection."""
    labels: Tensor
    """(len(files), A) float32 in {0, 1}."""
    split: tuple[Split, ...] | None
    """The column ``split``; None if there is none."""


def read_attributes(path: str | Path, selected: Sequence[str] = ()) -> AttributeTable:
    """Read a table of attributes; columns that aren't selected are ignored.

    The first line decides between two formats:

    * CSV, with commas, semicolons or tabs: a header ``file,Attr1,Attr2,...`` and rows. The first column is the file name, whatever its
      header. A column ``split`` holds ``train``, ``valid`` or ``test`` and isn't an attribute.
    * ``list_attr_celeba.txt``: a line with the number of images, a line of attribute names, and rows ``000001.jpg -1 1 ...``.

    Values are 1/-1, 1/0 or true/false, the same pair throughout a column.

    Args:
        path: the file.
        selected: names of the columns to read; empty for all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a missing attribute, or a value that isn't binary; the message names the line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no attribute file at {path}; --attributes takes a CSV (file,Attr1,Attr2,...) or list_attr_celeba.txt")
    rows = _rows(path)
    header = next(rows, None)
    if header is None:
        raise ValueError(f"{path} is empty; expected a header file,Attr1,Attr2,... and one row per image")
    names, split_column = _columns(path, header[1])
    available = [name for i, name in enumerate(names) if i and i != split_column]
    selected = tuple(selected) or tuple(available)
    check_selected(selected, available, source=str(path))
    columns = [names.index(name) for name in selected]

    files: list[str] = []
    values: list[list[str]] = []
    splits: list[Split] = []
    for line, row in rows:
        while len(row) > len(names) and not row[-1]:
            row.pop()
        if len(row) != len(names):
            raise ValueError(f"{path} line {line}: {len(row)} columns, but the header has {len(names)}")
        if not row[0]:
            raise ValueError(f"{path} line {line}: no file name in the first column")
        files.append(plain_name(row[0]))
        values.append([row[column].strip().lower() for column in columns])
        if any(value not in _VALUES for value in values[-1]):
            wrong = next(i for i, value in enumerate(values[-1]) if value not in _VALUES)
            raise ValueError(
                f"{path} line {line}: {selected[wrong]} is {row[columns[wrong]]!r}; expected 1 or -1, 1 or 0, true or false. "
                "or leave the column out with --selected-attributes"
            )
        if split_column is not None:
            if row[split_column].strip().lower() not in SPLIT_NAMES:
                raise ValueError(f"{path} line {line}: split is {row[split_column]!r}; expected train, valid or test")
            splits.append(SPLIT_NAMES[row[split_column].strip().lower()])
    if not files:
        raise ValueError(f"{path} lists no images below its header")
    _check_once(path, files)
    for name, column in zip(selected, zip(*values)):
        kinds = {value.removesuffix(".0") for value in set(column)}
        if {"0", "-1"} <= kinds:
            raise ValueError(f"{path}: {name} holds both 0 and -1, so its negative value is ambiguous; use 1 and 0, or 1 and -1")
    labels = torch.tensor([[_VALUES[value] for value in row] for row in values])
    return AttributeTable(tuple(files), selected, labels, tuple(splits) if split_column is not None else None)


def check_selected(selected: Sequence[str], available: Sequence[str], *, source: str) -> None:
    """Check a selection of attribute names.

    Raises:
        ValueError: a name that isn't available (the message suggests similar ones), or a repeated name.
    """
    for name in selected:
        if name not in available:
            lower = {other.lower(): other for other in available}
            close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            listed = ", ".join(available) if len(available) <= 10 else ", ".join(available[:10]) + ", ..."
            raise ValueError(f"no attribute {name!r} in {source}; {hint}It has {len(available)}: {listed}")
        if list(selected).count(name) > 1:
            raise ValueError(f"attribute {name!r} is selected more than once")


def read_table_text(path: Path) -> str:
    """The text of a table in UTF-8 or UTF-16 (Excel's "Unicode text"), with or without a byte-order mark.

    Raises:
        ValueError: another encoding.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} can't be read as a table ({error}); expected UTF-8 text: file,Attr1,Attr2,...") from error


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each line that isn't empty, the header first."""
    lines = list(io.StringIO(read_table_text(path), newline=""))
    start = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines):
        return
    if lines[start].strip().isdigit():
        yield from _celeba_rows(path, int(lines[start]), lines[start + 1 :], start + 2)
        return
    delimiter = max(",;\t", key=lines[start].count)
    reader = csv.reader(lines[start:], skipinitialspace=True, delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield start + reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise ValueError(f"{path} can't be read as a table ({error}); expected UTF-8 text: file,Attr1,Attr2,...") from error


def _celeba_rows(path: Path, expected: int, lines: Sequence[str], first: int) -> Iterator[tuple[int, list[str]]]:
    """Rows of CelebA's format below the line with the count; `first` is the line number of ``lines[0]``."""
    counted, header = 0, True
    for number, line in enumerate(lines, start=first):
        cells = line.split()
        if not cells:
            continue
        if header:
            yield number, ["file", *cells]
            header = False
            continue
        counted += 1
        yield number, cells
    if counted != expected:
        raise ValueError(f"{path} states {expected} images in its first line but lists {counted}; complete the list or correct the number")


def _columns(path: Path, header: Sequence[str]) -> tuple[list[str], int | None]:
    """Column names, the file name's first, and the index of the column ``split`` or None.

    Raises:
        ValueError: no header, no attributes, or two columns of one name.
    """
    names = list(header)
    while len(names) > 1 and not names[-1]:  # trailing empty columns of a spreadsheet
        names.pop()
    if os.path.splitext(names[0])[1].lower() in IMAGE_SUFFIXES or any(name.lower() in _VALUES for name in names[1:]):
        raise ValueError(f"{path} has no header: it starts with the row {','.join(names)[:80]!r}; add a first line file,Attr1,Attr2,...")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{path} has more than one column {doubled[0]!r}; rename or delete one")
    split_column = next((i for i, name in enumerate(names) if i and name.lower() == "split"), None)
    if all(i in (0, split_column) for i in range(len(names))):
        raise ValueError(f"{path} has no attribute columns: its header is {','.join(names)[:80]!r}, expected file,Attr1,Attr2,...")
    return names, split_column


def _check_once(path: Path, files: Sequence[str]) -> None:
    name, count = Counter(files).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path} lists {name} more than once; keep one row")
