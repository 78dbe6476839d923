"""The page in a real browser: its script runs, its controls work, it fits a phone, and it is dark in the dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")

# A frame around the page, of the width of a phone, in which the test plays the reader.
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" src="PAGE" style="width:390px;height:844px;border:0"></iframe><pre id="seen"></pre><script>

document.getElementById("page").onload = ({target}) => {
  const page = target.contentDocument, view = target.contentWindow, seen = {};
  const style = (selector) => view.getComputedStyle(page.querySelector(selector));
  const set = (id, value, kind) => { const input = page.getElementById(id); input.value = value; input.dispatchEvent(new view.Event(kind)); };
  const fires = (selector) => page.querySelector(selector).dispatchEvent(new view.MouseEvent("click"));
  seen.ready = page.documentElement.dataset.ready;
  seen.widths = [page.documentElement.clientWidth, page.documentElement.scrollWidth];
  seen.outside = [...page.querySelectorAll("section, h1, p, svg, .stage, select")].filter((e) => e.getClientRects().length && e.getBoundingClientRect().right > 391)
    .map((e) => e.tagName + " " + e.className);
  seen.names = [...page.querySelectorAll("[data-name]")].map((e) => e.textContent);
  seen.cut = [style(".stage .over").clipPath];
  set("cut", 20, "input"); seen.cut.push(style(".stage .over").clipPath);
  fires("#flip"); seen.cut.push(style(".stage .over").clipPath);
  fires("#flip"); seen.cut.push(style(".stage .over").clipPath);
  const right = '.stage [data-side="right"]';
  seen.images = [style(right).backgroundImage.length > 50, style(right).backgroundImage];
  const said = () => page.querySelector(right).getAttribute("aria-label");
  seen.said = [said()];
  set("right", "no_template", "change"); seen.images.push(style(right).backgroundImage); seen.said.push(said());
  seen.asked = [page.getElementById("asked").textContent];
  seen.position = [style(right).backgroundPosition];
  fires('.thumbs button[data-row="1"]'); seen.asked.push(page.getElementById("asked").textContent); seen.position.push(style(right).backgroundPosition); seen.said.push(said());
  seen.shown = () => [...page.querySelectorAll("#extremes [data-arm]")].filter((e) => !e.hidden).map((e) => e.dataset.arm);
  seen.extremes = [seen.shown()];
  set("which", "before", "change"); seen.extremes.push(seen.shown());
  seen.paper = [style("body").backgroundColor];
  fires("#theme"); seen.paper.push(style("body").backgroundColor);
  fires("#theme"); seen.paper.push(style("body").backgroundColor);
  document.getElementById("seen").textContent = JSON.stringify(seen);
};
</script>"""


def browse(target: Path, folder: Path, *options: str) -> str:
    """Open a file without any network; what is printed."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
               "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=3000", *options, target.as_uri()]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture
def page(full_report) -> Path:
    return full_report[0] / "report.html"


def test_a_reader_on_a_phone_can_use_everything(page, tmp_path):
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("PAGE", page.as_uri()))
    printed = browse(frame, tmp_path, "--window-size=500,900", "--dump-dom")
    seen = json.loads(
        re.search(r'<pre id="seen">(.*?)</pre>', printed, re.DOTALL)
        .group(1)
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
    )
    assert seen["ready"] == "yes"
    assert seen["widths"][1] <= seen["widths"][0] <= 390, "the page scrolls sideways"
    assert seen["outside"] == []
    assert seen["names"][:2] == ["before", "cotrain"]
    assert [re.search(r"[\d.]+%\)$", cut).group() for cut in seen["cut"]] == ["50%)", "20%)", "100%)", "0%)"]
    drawn, cotrain, no_template = seen["images"]
    assert drawn and cotrain != no_template and no_template.startswith('url("data:image/png')
    assert seen["asked"] == ["+ Smiling", "- <b>"]
    assert seen["said"] == ["cotrain, edited image, input 1, + Smiling", "no_template, edited image, input 1, + Smiling", "no_template, edited image, input 2, - <b>"]
    assert seen["position"][0] != seen["position"][1]
    assert seen["extremes"] == [["cotrain"], ["before"]]
    light, dark, again = (np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in seen["paper"])
    assert light == again and abs(light - dark) > 150


@pytest.mark.parametrize(("scheme", "bright"), [("1", True), ("0", False)])
def test_the_page_follows_the_systems_light_and_dark(page, tmp_path, scheme, bright):
    """Ink on paper, either way: most of the image is paper, and some is as far from it as ink."""
    browse(
        page,
        tmp_path,
        "--window-size=1200,1600",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={tmp_path / 'shot.png'}",
    )
    grey = np.asarray(Image.open(tmp_path / "shot.png").convert("L")).astype(float)
    assert grey.shape == (1600, 1200)
    assert (np.median(grey) > 200) == bright and (np.median(grey) < 60) == (not bright)
    assert np.mean(np.abs(grey - np.median(grey)) > 150) > 0.01
