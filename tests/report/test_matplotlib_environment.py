"""Figures come out the same whatever backend, configuration, style or cache folder the user's environment names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import pytest
import torch

from malp_disc.plotting.image_grids import fakeness_grid
from malp_disc.plotting.line_panels import Line, Panel, lines_figure
from malp_disc.report.training_curves import curves_figure

DRAW = """
import sys, torch
from malp_disc.plotting.image_grids import fakeness_grid
from malp_disc.report.training_curves import curves_figure
from malp_disc.plotting.line_panels import Line, Panel, lines_figure
from malp_disc.plotting.style import svg
images, maps, folder = torch.zeros(1, 3, 16, 16), torch.full((1, 1, 16, 16), .2), sys.argv[1]
fakeness_grid(images, images, images, maps, maps, maps, f"{folder}/grid.png")
curves_figure({"control": [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}]}, f"{folder}/curves.png")
lines_figure([[Panel((0, 1), {"a": Line((1, 2))}, "x", "y", title="t")]], f"{folder}/lines.png")
open(f"{folder}/chart.svg", "w", encoding="utf-8").write(svg(lambda axes: axes.plot([1, 2]), (3, 2), "a", "a line"))
"""
DARK = "axes.facecolor: black\nfont.family: cursive\nlines.linewidth: 9\nsavefig.dpi: 20\nfigure.dpi: 30\ntext.usetex: True\naxes.grid: True\nsvg.fonttype: path\n"


# A process that has imported torch and what matplotlib needs, the slow parts, and forks for every line it reads: the fork imports matplotlib afresh, under
# that line's environment.
SERVER = """
import json, os, sys
import torch, malp_disc
import PIL.PngImagePlugin, cycler, dateutil.rrule, kiwisolver, packaging.version, pyparsing
assert not {"matplotlib", "malp_disc.plotting"} & set(sys.modules)
for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(case["printed"], os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(os.open(case["log"], os.O_CREAT | os.O_WRONLY), 2)
        os.environ.update(case["environment"])
        os.chdir(case["cwd"])
        sys.argv = ["fork", *case["arguments"]]
        try:
            exec(case["code"], {"__name__": "__main__"})
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def in_a_fork():
    """Run code in a process that has imported torch and malp_disc and nothing that draws; what it prints."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "MATPLOTLIBRC", "MPLCONFIGDIR")}
    clean["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    server = subprocess.Popen([sys.executable, "-c", SERVER], env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def run(code: str, place: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> str:
        with tempfile.TemporaryDirectory(dir=place) as own:
            printed, log = Path(own, "printed"), Path(own, "log")
            case = {"code": code, "arguments": arguments, "environment": environment, "cwd": str(cwd or place)}
            case |= {"printed": str(printed), "log": str(log)}
            print(json.dumps(case), file=server.stdin, flush=True)
            assert server.stdout.readline() == "0\n", log.read_text()
            return printed.read_text()

    yield run
    server.stdin.close()
    server.wait(60)


@pytest.fixture(scope="module")
def draw(in_a_fork):
    """The figures that a fresh process draws, by name."""

    def run(folder: Path, cwd: Path | None = None, **environment: str) -> dict[str, bytes]:
        folder.mkdir()
        in_a_fork(DRAW, folder.parent, str(folder), cwd=cwd or folder, **environment)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return run


@pytest.fixture(scope="module")
def plain(draw, tmp_path_factory) -> dict[str, bytes]:
    return draw(tmp_path_factory.mktemp("plain") / "out")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "inline", "nonsense", "module://no.such.module", "tkagg", "pdf"])
def test_no_backend_is_in_the_way(draw, plain, tmp_path, backend):
    assert draw(tmp_path / "out", MPLBACKEND=backend) == plain


@pytest.mark.parametrize("content", [DARK.encode(), b"font.size: banana\nno colon\nbackend: nonsense\n", b"\xff\xfe\x00 broken"])
@pytest.mark.parametrize("where", ["environment", "folder"])
def test_no_configuration_file_changes_or_breaks_a_figure(draw, plain, tmp_path, content, where):
    (tmp_path / "matplotlibrc").write_bytes(content)
    environment = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")} if where == "environment" else {}
    assert draw(tmp_path / "out", cwd=tmp_path, **environment) == plain


def test_a_cache_folder_that_cannot_be_made_is_no_reason_to_fail(draw, plain, tmp_path):
    (tmp_path / "file").write_text("")
    assert draw(tmp_path / "out", MPLCONFIGDIR=str(tmp_path / "file" / "below")) == plain


def test_broken_style_files_of_the_user_are_not_read(draw, plain, tmp_path):
    (tmp_path / "config" / "stylelib").mkdir(parents=True)
    (tmp_path / "config" / "stylelib" / "mine.mplstyle").write_bytes(b"\xff\xfe broken")
    assert draw(tmp_path / "out", MPLCONFIGDIR=str(tmp_path / "config")) == plain


def test_the_callers_settings_neither_show_nor_change(tmp_path):
    images, maps = torch.zeros(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.2)

    def figures(name: str) -> list[bytes]:
        fakeness_grid(images, images, images, maps, maps, maps, tmp_path / name)
        content = [(tmp_path / name).read_bytes()]
        curves_figure({"control": [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}]}, tmp_path / name)
        content.append((tmp_path / name).read_bytes())
        lines_figure([[Panel((0, 1), {"a": Line((1, 2))}, "x", "y", title="t")]], tmp_path / name)
        return [*content, (tmp_path / name).read_bytes()]

    plain = figures("plain.png")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.family": "monospace", "lines.linewidth": 9, "figure.dpi": 30, "text.color": "white"}):
        settings = dict(matplotlib.rcParams)
        assert figures("dark.png") == plain
        assert dict(matplotlib.rcParams) == settings


def test_a_backend_that_exists_is_kept_for_whoever_shows_a_figure_later(in_a_fork, tmp_path):
    code = "import malp_disc.plotting.image_grids, matplotlib, os; print(matplotlib.rcParams['backend'], os.environ['MPLBACKEND'])"
    for backend in ("pdf", "module://somebody.elses"):
        assert in_a_fork(code, tmp_path, MPLBACKEND=backend).split() == [backend, backend]


def test_nothing_heavy_comes_with_a_public_name(in_a_fork, tmp_path):
    code = "import sys, malp_disc\nfor name in malp_disc.__all__: getattr(malp_disc, name)\nprint([n for n in ('matplotlib', 'torchmetrics', 'timm', 'torchvision', 'sklearn', 'scipy', 'accelerate') if n in sys.modules])"
    assert in_a_fork(code, tmp_path, MPLBACKEND="inline").strip() == "[]"


def test_a_training_starts_without_torchvision(in_a_fork, tmp_path):
    """It takes as long to import as torch; only some extractors, the blur and E_T need it."""
    code = "import sys, malp_disc.commands.finetune, malp_disc.commands.pretrain\nprint([n for n in ('torchvision', 'timm', 'sklearn', 'scipy') if n in sys.modules])"
    assert in_a_fork(code, tmp_path).strip() == "[]"
