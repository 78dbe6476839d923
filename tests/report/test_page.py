"""The page as text: everything is in it, nothing is fetched, nothing from a run's files is taken for markup."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from malp_disc.plotting.style import STYLES, colour_of, page_colour
from malp_disc.report import build_record, render_markdown, render_page, write_report
from malp_disc.report import page as page_module
from malp_disc.report.numbers import number
from malp_disc.report.sections import making, sections
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.schema import read_curves
from malp_disc.run_folder.strips import Strip, read_strips
from malp_disc.serialization.typed_json import to_json
from tests.charts import without_figures
from tests.report.conftest import EVERY_ARM

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Checker(HTMLParser):
    """Text, attributes, and whether every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.attributes, self.open, self.tags, self.elements = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.elements.append((self.open[-1] if self.open else None, tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def run(full_report):
    folder, record = full_report
    return folder, record, (folder / "report.html").read_text()


def test_the_page_is_whole_and_well_formed(run):
    checker = Checker(run[2])
    assert checker.open == []
    ids = [value for name, value in checker.attributes if name == "id"]
    assert len(ids) == len(set(ids)), "an id twice"


def test_nothing_is_fetched(run):
    page = run[2]
    assert not re.search(r"https?://|//\w+\.\w", re.sub(r"base64,[A-Za-z0-9+/=]*", "", page))
    checker = Checker(page)
    assert not {"link", "iframe", "img", "object", "embed", "base"} & set(checker.tags)
    assert not [value for name, value in checker.attributes if name in ("src", "srcset", "action", "formaction")]
    assert all(value.startswith("#") for name, value in checker.attributes if name == "href")
    targets = re.findall(r"url\(([^)]{1,15})", page)
    assert targets and all(target.startswith(("data:image/png;", "#")) for target in targets)
    assert "@import" not in page and "fetch(" not in page and "XMLHttpRequest" not in page


def test_the_verdict_every_caution_and_every_cell_of_every_table_are_on_both_pages(make_full_run):
    def change(line):
        if line["arm"] == "frozen":
            line["spectrum"]["nyquist"] = 22.0

    folder = make_full_run(change=change)
    with without_figures():
        record = write_report(folder, resamples=20)
    read = "".join(Checker((folder / "report.html").read_text()).text).replace("\xa0", " ")
    markdown = (folder / "report.md").read_text()
    facts = [record.verdict, record.verdict_rule, *record.notes]
    assert record.notes
    for section in (*sections(record), making(record)):
        facts += [section.text, *section.items]
        for caption, table in section.tables:
            facts += [caption, *table.header, *(part for row in table.rows for cell in row for part in cell.split("\n"))]
    assert len(facts) > 300
    for fact in facts:
        assert fact in read, fact
        assert fact in markdown or fact.replace("|", "\\|") in markdown, fact


def test_the_page_holds_the_whole_record_and_the_commands(run):
    _, record, page = run
    read = "".join(Checker(page).text)
    assert json.dumps(to_json(record), ensure_ascii=False) in read
    assert "recipes/finetune.py --seeds 0 1 2 --note <b>&amp;" in read
    assert "malp-disc report RUN" in read
    assert "G-cotrain.safetensors" in read and "abababababababab" in read


def test_what_a_run_holds_is_text_and_never_markup(make_full_run):
    def change(line):
        line["frechet"]["extractor"] = "<script>alert(1)</script>"
        line["weights"]["file"] = '"><img src=x onerror=alert(1)>'
        line["edit_accuracy_per_attribute"] = {"<b>Smiling": 0.9}

    folder = make_full_run(change=change)
    with without_figures():
        write_report(folder, resamples=20)
    page = (folder / "report.html").read_text()
    checker = Checker(page)
    assert checker.tags.count("script") == 1 and "img" not in checker.tags and checker.tags.count("b") == 2  # the labels of the slider
    assert html.escape("<script>alert(1)</script>") in page


def test_every_strip_is_in_the_page_once_and_shown(run):
    folder, _, page = run
    strips = read_strips(folder)
    for strip in strips:
        name = f"{strip.kind}-{strip.arm or ''}"
        assert len(re.findall(rf"^\.{name} \{{", page, flags=re.MULTILINE)) == 1, name
    assert page.count("url(data:image/png;base64,") == len(strips) == 3 + 7 * 6
    assert page.count('aria-label="input ') == 3


def test_charts_take_the_pages_colours_and_no_id_is_used_twice(run):
    page = run[2]
    charts = re.findall(r"<svg (?!class=).*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 4 + 2  # distances, deltas, where, spectrum; two curves
    for chart in charts:
        assert "var(--ink)" in chart and "#222222" not in chart.lower() and "xmlns" not in chart and "<metadata" not in chart
        assert "<text" in chart, "text stays text"


def test_a_run_with_next_to_nothing_measured_still_has_a_page(make_run):
    folder = make_run()
    (folder / "measurements.jsonl").write_text('{"seed": 0, "arm": "before"}\n')
    for name in ("reference_points.json", "config.json"):
        (folder / name).unlink()
    write_report(folder, resamples=20)
    page = (folder / "report.html").read_text()
    assert Checker(page).open == []
    assert "No verdict: no generator was fine-tuned" in page and "Not measured." in page
    assert 'id="compare"' not in page


def test_images_without_a_request_have_no_line_for_it(make_run):
    """Generators without attributes, horses to zebras: "requested:" stood there with nothing behind it."""
    record = build_record(make_run(), resamples=4)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for captions, hidden in ((["", ""], True), ([None, None], True), (["", "+ Smiling"], False)):
        page = render_page(record, strips=[Strip("edited", arm, 0, images, captions) for arm in ("before", "control")])
        assert ("<p hidden>requested:" in page) == hidden and ("<p>requested:" in page) != hidden


def test_the_same_folder_gives_the_same_bytes(run):
    folder, record, page = run
    again = render_page(record, strips=read_strips(folder), curves=read_curves(folder, distance="FD-faces while training"))
    assert again == page
    assert render_markdown(record) == render_markdown(build_record(folder, resamples=20))


def test_no_folder_of_this_machine_gets_into_the_page(make_run, tmp_path):
    folder = make_run()
    with without_figures():
        write_report(folder, resamples=20)
    page = (folder / "report.html").read_text()
    assert str(tmp_path) not in page and "/somewhere" not in page


def test_a_screen_reader_gets_a_name_for_every_chart_and_image(run):
    _, record, page = run
    elements = Checker(page).elements
    charts = [attributes for _, tag, attributes in elements if tag == "svg" and attributes.get("aria-hidden") != "true"]
    assert len(charts) == 6 and all(chart["role"] == "img" for chart in charts)
    labels = [chart["aria-label"] for chart in charts]
    assert len(set(labels)) == 6
    for arm, measured in record.arms.items():
        assert f"{arm} {number(measured.frechet.value)}" in labels[0], "the numbers of the chart"
    images = [(parent, attributes) for parent, tag, attributes in elements if "strip" in attributes.get("class", "").split()]
    assert len(images) > 30
    for parent, attributes in images:
        if parent == "button":  # which has a name itself
            assert attributes["aria-hidden"] == "true"
        else:
            assert attributes["role"] == "img" and attributes["aria-label"]
    shown = {attributes["aria-label"] for _, attributes in images if "over" in attributes.get("class", "").split()}
    assert shown == {"cotrain, edited image, input 1, + Smiling"}
    assert [attributes["aria-label"] for _, tag, attributes in elements if "data-row" in attributes][1] == "input 2, - <b>"


def test_every_table_is_a_named_region_and_every_row_has_a_header(run):
    elements = Checker(run[2]).elements
    scrolled = [attributes for _, _, attributes in elements if attributes.get("tabindex") == "0"]
    assert {attributes["role"] for attributes in scrolled} == {"region"}
    names = [attributes["aria-label"] for attributes in scrolled]
    assert len(names) == len(set(names)) > 10 and all(names)
    assert {"Quality", "Quality: Against every control"} <= set(names)
    rows = [i for i, (parent, tag, _) in enumerate(elements) if tag == "tr" and parent == "tbody"]
    assert len(rows) > 50
    for i in rows:
        assert elements[i + 1][1] == "th" and elements[i + 1][2]["scope"] == "row" and elements[i + 2][1] in ("td", "small")


def test_a_legend_shows_the_lines_of_the_charts_and_no_two_arms_have_the_same(run):
    assert len({STYLES.get(arm, "solid") for arm in ARMS}) == len(ARMS)
    page = run[2]
    lines = re.findall(r'<path d="M0 2H44" style="stroke:([^;]+);stroke-dasharray:([^"]+)"/></svg>(\w+)</li>', page)
    assert {name: dashes for _, dashes, name in lines} == {
        name: " ".join(f"{2 * length:g}" for length in STYLES[name][1]) if name in STYLES else "none" for name in EVERY_ARM
    }
    charts = "".join(re.findall(r"<svg (?!class=).*?</svg>", page, flags=re.DOTALL))
    assert all(f"stroke: {colour.lower()}" in charts for colour, _, _ in lines)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_line_stands_out_from_its_paper(theme):
    """A contrast of at least 3 (WCAG 1.4.11), with the variables of the page's style sheet."""
    style = (Path(page_module.__file__).parent / "templates" / "page.css").read_text()
    blocks = [dict(re.findall(r"(--[\w-]+): (#\w{6})", block)) for block in re.findall(r":root[^{]*\{([^}]*--paper[^}]*)\}", style)]
    assert len(blocks) == 3 and blocks[1] == blocks[2], "light, the system's dark and the button's dark"
    variables = blocks[theme == "dark"]
    for name in (*ARMS, "malp", "other", "third", "fourth"):
        colour = page_colour(colour_of(name, ["malp", "other", "third", "fourth"]))
        found = variables[colour[4:-1]] if colour.startswith("var(") else colour
        assert contrast(found, variables["--card"]) >= 3, (name, found)
        if theme == "light":  # as in the PNG files
            assert found.lower() == colour_of(name, ["malp", "other", "third", "fourth"]).lower()


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_images_are_printed_and_dark_colours_are_not(run):
    style = run[2].partition("</style>")[0]
    assert re.search(r"\.strip[^{}]*\{[^}]*print-color-adjust: exact", style)
    dark = len(re.findall("--paper: #15171a", style))
    assert len(re.findall(r"@media screen[^{]*\{ :root[^{]*\{[^}]*--paper: #15171a", style)) == dark == 2
