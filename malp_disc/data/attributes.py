"""A table of binary attributes, one row a picture: CSV, or the text format of CelebA."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .splits import SPLIT_NAMES, Split

_VALUES = {"1": 1.0, "+1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "-1": 0.0, "-1.0": 0.0, "false": 0.0}


@dataclass(frozen=True)
class AttributeTable:
    """Names and labels as read from a file."""

    files: tuple[str, ...]
    """File names, '/'-separated, in the order of the file."""
    attribute_names: tuple[str, ...]
    """The selected columns, in the order asked for."""
    labels: Tensor
    """(len(files), A) float32 in {0, 1}."""
    split: tuple[Split, ...] | None
    """The column ``split``, where there is one."""


def read_attributes(path: str | Path, selected: Sequence[str] = ()) -> AttributeTable:
    """Read a table of attributes; only the selected columns are looked at.

    Two formats, told apart by the first line:

    * CSV: a header ``file,Attr1,Attr2,...`` (the first column is the file name, whatever it is called) and rows. A column ``split`` holds
      ``train``, ``valid`` or ``test`` and is no attribute.
    * ``list_attr_celeba.txt``: a line with the number of pictures, a line of attribute names, and rows ``000001.jpg -1 1 ...``.

    Values are +1/-1, 1/0 or true/false, one pair per column.

    Args:
        path: the file.
        selected: the columns wanted; empty for all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table, a missing attribute, or a value that isn't binary; the message names the line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no attribute file at {path}; --attributes takes a CSV (file,Attr1,Attr2,...) or list_attr_celeba.txt")
    rows = _rows(path)
    header = next(rows, None)
    if header is None:
        raise ValueError(f"{path} is empty; expected a header file,Attr1,Attr2,... and one row a picture")
    names = header[1]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{path} has more than one column {doubled[0]!r}; rename or delete one")
    split_column = next((i for i, name in enumerate(names) if i and name.lower() == "split"), None)
    available = [name for i, name in enumerate(names) if i and i != split_column]
    if not available:
        raise ValueError(f"{path} has no attribute columns: its header is {','.join(names)[:80]!r}, expected file,Attr1,Attr2,...")
    selected = tuple(selected) or tuple(available)
    check_selected(selected, available, source=str(path))
    columns = [names.index(name) for name in selected]

    files: list[str] = []
    values: list[list[str]] = []
    splits: list[Split] = []
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path} line {line}: {len(row)} columns, but the header has {len(names)}")
        files.append(row[0].replace("\\", "/").removeprefix("./"))
        values.append([row[column].strip().lower() for column in columns])
        if any(value not in _VALUES for value in values[-1]):
            wrong = next(i for i, value in enumerate(values[-1]) if value not in _VALUES)
            raise ValueError(
                f"{path} line {line}: {selected[wrong]} is {row[columns[wrong]]!r}; expected 1 or -1, 1 or 0, true or false. "
                "--selected-attributes can leave a column out"
            )
        if split_column is not None:
            if row[split_column].strip().lower() not in SPLIT_NAMES:
                raise ValueError(f"{path} line {line}: split is {row[split_column]!r}; expected train, valid or test")
            splits.append(SPLIT_NAMES[row[split_column].strip().lower()])
    if not files:
        raise ValueError(f"{path} lists no pictures below its header")
    if len(set(files)) < len(files):
        raise ValueError(f"{path} lists {Counter(files).most_common(1)[0][0]} more than once; keep one row")
    for name, column in zip(selected, zip(*values)):
        kinds = {value.removesuffix(".0") for value in set(column)}
        if {"0", "-1"} <= kinds:
            raise ValueError(f"{path}: {name} holds both 0 and -1, so what 'no' means is unclear; use 1 and 0, or 1 and -1")
    labels = torch.tensor([[_VALUES[value] for value in row] for row in values])
    return AttributeTable(tuple(files), selected, labels, tuple(splits) if split_column is not None else None)


def check_selected(selected: Sequence[str], available: Sequence[str], *, source: str) -> None:
    """Raises:
    ValueError: a name that isn't available (with what it may have meant), or one given twice.
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


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells), the header first, empty lines left out."""
    with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
        try:
            first = file.readline()
            if first.strip().isdigit():
                yield from _celeba_rows(path, int(first), file)
                return
            file.seek(0)
            reader = csv.reader(file, skipinitialspace=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} can't be read as a table ({error}); expected UTF-8 text: file,Attr1,Attr2,...") from error


def _celeba_rows(path: Path, expected: int, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    counted = 0
    for number, line in enumerate(lines, start=2):
        cells = line.split()
        if number == 2:
            yield number, ["file", *cells]
        elif cells:
            counted += 1
            yield number, cells
    if counted != expected:
        raise ValueError(f"{path} announces {expected} pictures on its first line and lists {counted}; complete it, or correct that number")
