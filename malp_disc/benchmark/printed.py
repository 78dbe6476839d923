"""The numbers that the paper prints in Tables 2, 3, 4, 6 and 7, from ``printed.json``, for comparison beside measured ones.

Scores are in [0, 1], average precision too, where the paper has per cent; PSNR is in dB. Columns of Tables 3 and 7 are a generator and an attribute by
CelebA's name ("AttGAN Black_Hair"; the paper's Smile, Age and Gender are Smiling, Young and Male), those of Tables 4 and 6 a generator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLES = ("2", "3", "4", "6", "7")


@dataclass(frozen=True)
class PaperGenerator:
    """A generator of Table 4: its label there, the size of its images, and our name for the network."""

    name: str
    label: str
    size: str
    zoo: str


@dataclass(frozen=True)
class PrintedRow:
    """A row of a table: our name for the method, the paper's, its values by column, and "sc." or "no sc." in Table 4."""

    method: str
    label: str
    values: Mapping[str, float]
    scale: str | None = None


def paper_generators() -> dict[str, PaperGenerator]:
    """The 22 generators of Table 4 by name, in its order."""
    return {name: PaperGenerator(name, **about) for name, about in _content()["generators"].items()}


def paper_name(zoo: str) -> str | None:
    """The name in the paper of a generator of the zoo: "CounGAN" for "council_gan"; None for one that isn't in the paper.

    Networks that stand for the paper's have its name too (`esrgan` and `cyclegan_compressed`), and so have the three outside of Table 4.
    """
    more = {"stgan": "STGAN", "attgan": "AttGAN", "stylegan": "StyleGAN", "esrgan": "ESRGAN", "cyclegan_compressed": "CycleGAN"}
    return more.get(zoo) or next((name for name, about in paper_generators().items() if about.zoo == zoo), None)


def title_of(table: str) -> str:
    """What the table shows."""
    return _content()["tables"][table]["title"]


def printed_rows(table: str) -> list[PrintedRow]:
    """The rows of Table "2", "3", "4", "6" or "7" as printed, in its order.

    Raises:
        ValueError: another table.
    """
    if table not in TABLES:
        raise ValueError(f"expected a table out of {' '.join(TABLES)}, got {table!r}")
    return [PrintedRow(**row) for row in _content()["tables"][table]["rows"]]


def printed_value(table: str, method: str, column: str, scale: str | None = None) -> float | None:
    """The printed number of a method in a column, None if there is none. `scale` is for Table 4, whose passive methods are printed once, for both."""
    rows = [row for row in printed_rows(table) if row.method == method]
    own = [row for row in rows if row.scale == scale] or (rows if len(rows) == 1 else [])
    return own[0].values.get(column) if own else None


@cache
def _content() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("printed.json").read_text(encoding="utf-8"))
