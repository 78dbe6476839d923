"""The documentation site builds without a warning: every docstring is found and every link and anchor leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_page_is_in_the_navigation_and_every_model_card_on_the_site():
    """A page outside the navigation is found by nobody, and a link to a file that isn't on the site becomes plain text."""
    navigation, hooks = (REPOSITORY / "mkdocs.yml").read_text(), (REPOSITORY / "docs" / "site_hooks.py").read_text()
    docs = REPOSITORY / "docs"
    pages = [path.relative_to(docs).as_posix() for folder in ("", "api", "results") for path in (docs / folder).glob("*.md")]
    cards = [path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("weights/**/README.md")]
    assert [page for page in pages if not re.search(rf"(- |: ){re.escape(page)}$", navigation, flags=re.M)] == []
    assert [card for card in cards if f'"{card}": ' not in hooks] == []


@pytest.mark.slow  # half a minute, and needs the extra `docs`
def test_the_site_builds_strictly_and_has_the_docstrings(tmp_path):
    pytest.importorskip("mkdocstrings", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "malp_disc.malp.MaLP.encrypt" in (tmp_path / "api" / "malp" / "index.html").read_text()
    assert 'href="../evidence/"' in (tmp_path / "project" / "index.html").read_text()  # the README's docs/evidence.md
