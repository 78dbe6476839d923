"""MkDocs hooks: pages outside docs/ join the site, and links that leave docs/ are adapted, so that the same files read well on GitHub and on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {  # file of the repository -> page of the site
    "README.md": "project.md",
    "generators/README.md": "generators.md",
    "weights/README.md": "weights.md",
    "weights/celeba64/README.md": "weights-celeba64.md",
    "weights/survive/README.md": "weights-survive.md",
    "malp_disc/metrics/weights/README.md": "weights-metrics.md",
}
_ORIGINS = {page: origin for origin, page in PAGES.items()}
_LINK = re.compile(r"(?<!!)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)|(!\[[^]]*\])\(([^)\s]+)\)")


def on_files(files, config):
    """Add the pages of `PAGES`."""
    for origin, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / origin)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point every relative link at the site's page; a link to code or to a folder becomes plain text."""
    here = page.file.src_uri
    origin = _ORIGINS.get(here, f"docs/{here}")

    def adapted(match):
        text, target, anchor, image, source = match.groups()
        target = source if image else target
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        on_site = PAGES.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if on_site is None or (REPOSITORY / file).is_dir():
            return text or ""
        link = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
        return f"{image}({link})" if image else f"[{text}]({link}{anchor or ''})"

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)  # every second part is code
    return "".join(part if index % 2 else _LINK.sub(adapted, part) for index, part in enumerate(blocks))
