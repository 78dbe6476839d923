"""The documentation site builds without a warning: every docstring is found and every link and anchor leads somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.slow  # half a minute, and needs the extra `docs`
def test_the_site_builds_strictly_and_has_the_docstrings(tmp_path):
    pytest.importorskip("mkdocstrings", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "malp_disc.malp.MaLP.encrypt" in (tmp_path / "api" / "malp" / "index.html").read_text()
    assert 'href="../evidence/"' in (tmp_path / "project" / "index.html").read_text()  # the README's docs/evidence.md
