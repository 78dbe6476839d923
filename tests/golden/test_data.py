"""Our networks against the authors' outputs: every golden of ``tests/golden/data``, a test each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.golden.__main__ import list_cases, run_case

GOLDENS = Path(__file__).resolve().parent / "data"
SLOW: set[str] = {"repaint_unet_celeba256", "sean_celebahq", "spade_coco"}
"""Networks of hundreds of millions of parameters: gigabytes and minutes. spade_coco has the label for unlabelled pixels that spade_ade20k has as well, and
the instance boundaries that spade_cityscapes has."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in list_cases(GOLDENS)])
def test_ours_is_theirs(name):
    assert run_case(GOLDENS, name) == ""


def test_the_goldens_here_are_the_shared_ones():
    shared = Path(os.environ.get("MALP_DISC_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")) / "golden"
    if not shared.is_dir():
        pytest.skip("golden is not in the shared folder (MALP_DISC_SHARED, or ../shared)")
    for name in list_cases(GOLDENS):
        for suffix in (".json", ".npz"):
            assert (GOLDENS / (name + suffix)).read_bytes() == (shared / (name + suffix)).read_bytes(), name
