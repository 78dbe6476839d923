"""The page as text: everything is in it, nothing is fetched, nothing from a run's files is taken for markup."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import pytest

from malp_disc.report import build_record, render_markdown, render_page, write_report
from malp_disc.report.sections import making, sections
from malp_disc.run_folder.schema import read_curves
from malp_disc.run_folder.strips import read_strips
from malp_disc.serialization.typed_json import to_json
from tests.charts import without_figures

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Checker(HTMLParser):
    """Text, attributes, and whether every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.attributes, self.open, self.tags = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
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
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
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
