"""The command line: help at once, plain errors with a status, and `malp-disc fid` from its flags to its JSON."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import malp_disc
from malp_disc import MaLPDiscriminator, cli
from malp_disc.metrics import inception
from malp_disc.metrics.inception import build_inception
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.training.launch import run_recipe
from recipes import finetune_stargan
from tests.tiny import sample_images, tiny_malp


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "malp_disc.cli", *map(str, arguments)], capture_output=True, text=True, cwd="/", timeout=120
    )


@pytest.fixture
def command(monkeypatch, tmp_path):
    """``command("fid", …)`` in this process, with a cache of its own; gives the message it ends with, None if it ends well."""
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> str | int | None:
        monkeypatch.setattr(sys, "argv", ["malp-disc", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stopped:
            return stopped.code
        return None

    return call


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed, tmp_path):
    """As under a daemon: Python's streams are None then, and a progress bar would fail at its first word."""
    code = "import sys; from malp_disc.errors import make_output_printable; make_output_printable(); from tqdm import tqdm; [print(i) for i in tqdm(range(3))]"
    assert subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{code}" {closed}'], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(malp_disc.__file__).parents[1])}).returncode == 0


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Folders a and b with ten images each, one of them in both; one, none, mixed, broken; and weights enough for 64 features."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)

    def save(folder: str, name: int, side: int = 16) -> None:
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(root / folder / f"{name}.png")

    for name in range(10):
        for folder in ("a", "b", "mixed", "broken"):
            save(folder, name)
    (root / "b" / "9.png").write_bytes((root / "a" / "9.png").read_bytes())
    save("one", 0)
    save("mixed", 10, side=18)
    (root / "broken" / "10.png").write_text("no image")
    (root / "none").mkdir()
    (root / "none" / "notes.txt").write_text("")
    np.savez(root / "stats.npz", mu=np.zeros(64), sigma=np.eye(64))
    torch.manual_seed(0)
    torch.save(build_inception(64).state_dict(), root / "w.pth")
    return root


def test_help_comes_without_torch():
    """Importing torch takes seconds; so the parser may need none of it."""
    code = "import sys; from malp_disc import cli; print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n", result.stderr


def test_every_command_explains_itself():
    for arguments in (["--help"], *([name.__name__.lower(), "--help"] for name in cli.COMMANDS)):
        result = run(*arguments)
        assert result.returncode == 0 and "malp-disc" in result.stdout
    assert run("--version").stdout.strip() == malp_disc.__version__


def test_the_status_tells_of_the_error_and_no_traceback_does(images):
    result = run("fid", images / "nowhere", images / "b", "--dims", 64)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: nothing at") and "Traceback" not in result.stderr
    assert run("fid", images / "a").returncode == 2


def test_ctrl_c_leaves_one_line(command, monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, cli.Fid, interrupted)
    assert command("fid", "a", "b") == 130
    assert capsys.readouterr().err.strip() == "interrupted"


@dataclass
class NoFlags:
    """Of a recipe without flags."""


@pytest.mark.parametrize("entry", ["command", "recipe"])
def test_a_warning_of_the_library_is_one_plain_line(command, monkeypatch, capsys, entry):
    def work(options):
        warnings.simplefilter("always")
        for _ in range(2):
            MaLPDiscriminator(tiny_malp()).encrypt(sample_images(1, 16, 16))
            warnings.warn_explicit("of another package", UserWarning, "/elsewhere/other.py", 7)

    before = warnings.showwarning
    with pytest.warns(UserWarning, match="of another package") as others:
        if entry == "command":
            monkeypatch.setitem(cli.COMMANDS, cli.Fid, work)
            assert command("fid", "a", "b") is None
        else:
            monkeypatch.setattr(sys, "argv", ["recipe"])
            run_recipe(work, NoFlags, "")
    assert [str(warning.message) for warning in others] == ["of another package"] * 2, "left alone"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: this MaLP was trained at 32x32; at 16x16 its templates are stretched")
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["foo"], ["Unrecognized options: foo", "pretrain, baseline, finetune"]),
        (["fid", "a", "b", "c"], ["Unrecognized options: c"]),
        (["detect", "x", "--malp", "m", "--thresh", "0.5"], ["Unrecognized options: --thresh", "Perhaps you meant", "--threshold"]),
    ],
)
def test_a_mistyped_command_or_flag_is_named(command, capsys, arguments, words):
    assert command(*arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none", "b"], ["no images in", "none", "at least 8"]),
        (["one", "b"], ["1 image in", "at least 8"]),
        (["a", "broken"], ["10.png", "not an image"]),
        (["a", "w.pth"], ["w.pth is a file, expected a folder"]),
        (["a", "lost.npz"], ["nothing at", "lost.npz"]),
        (["a", "b", "--fid-weights", "lost.pth"], ["no checkpoint at", "lost.pth"]),
        (["a", "b", "--dims", "192"], ["ends before Conv2d_3b_1x1", "192", "take 64 features"]),
        (["a", "stats.npz", "--kid"], ["stats.npz holds only mean and covariance"]),
        (["a", "b", "--batch-size", "0"], ["--batch-size"]),
        (["a", "b", "--device", "abacus"], ["--device abacus"]),
        (["a", "b", "--json", "none"], ["--json", "is a folder"]),
        (["a", "b", "--json", "w.pth/fid.json"], ["can't write --json"]),
    ],
)
def test_mistakes_end_in_a_plain_message(command, images, monkeypatch, arguments, words):
    monkeypatch.chdir(images)
    message = command("fid", "--dims", 64, "--fid-weights", "w.pth", *arguments)
    assert message.startswith("error: ") and all(word in message for word in words), message


def test_no_internet_says_what_to_put_where(command, images, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    message = command("fid", images / "a", images / "b")
    assert "pt_inception-2015-12-05-6726825d.pth" in message and "--fid-weights" in message and "MALP_DISC_CACHE" in message
    assert "--extractor" not in message, "a flag that this command doesn't have"


def test_the_json_says_all_that_a_number_needs(command, images, tmp_path, capsys):
    flags = ("--dims", 64, "--fid-weights", images / "w.pth", "--kid", "--precision-recall", "--json", tmp_path / "new" / "fid.json")
    assert command("fid", images / "a", images / "b", *flags) is None
    record = json.loads((tmp_path / "new" / "fid.json").read_text())
    fid = record["fid"]
    assert fid["value"] > 0 and (fid["label"], fid["mode"], fid["dims"], fid["n"], fid["n_reference"]) == (
        "clean-FID-64",
        "clean",
        64,
        10,
        10,
    )
    assert "sha256" in fid["extractor"] and "clean-fid" in fid["resize"] and "b (10 images)" in fid["reference"]
    assert record["kid"]["label"] == "clean-KID-64" and 0 <= record["precision_recall"]["recall"] <= 1
    assert record["versions"]["clean-fid"] and record["versions"]["pytorch-fid"]
    notes = " ".join(record["notes"])
    assert (
        "10 images don't tell the covariance of 64" in notes
        and "1 of 10 images in" in notes
        and "b as well" in notes
        and "is not FID" in notes
    )
    printed = capsys.readouterr()
    assert f"clean-FID-64 {fid['value']:.6g}" in printed.out and "note: 1 of 10 images" in printed.out
    assert "features of b" in printed.err, "progress"


def test_a_second_run_takes_the_reference_from_the_cache(command, images, tmp_path, monkeypatch):
    seen = []
    own = inception.CleanExtractor._features
    monkeypatch.setattr(inception.CleanExtractor, "_features", lambda self, levels: seen.append(len(levels)) or own(self, levels))
    flags = ("--dims", 64, "--fid-weights", images / "w.pth", "--json", tmp_path / "fid.json", "--batch-size", 5)
    values = []
    for _ in range(2):
        command("fid", images / "a", images / "b", *flags)
        values.append(json.loads((tmp_path / "fid.json").read_text())["fid"]["value"])
    assert seen == [5, 5, 5, 5, 5, 5] and values[0] == values[1]
    kept = next((tmp_path / "cache" / "features").iterdir())
    command("fid", images / "a", kept, *flags)
    assert json.loads((tmp_path / "fid.json").read_text())["fid"]["value"] == values[0]


def test_a_safetensors_file_of_the_same_keys_gives_the_same_features(command, images, tmp_path):
    save_tensors(tmp_path / "w.safetensors", torch.load(images / "w.pth", weights_only=True))
    values = []
    for weights in (images / "w.pth", tmp_path / "w.safetensors"):
        command(
            "fid",
            images / "a",
            images / "b",
            "--dims",
            64,
            "--mode",
            "legacy_pytorch",
            "--fid-weights",
            weights,
            "--json",
            tmp_path / "fid.json",
        )
        values.append(json.loads((tmp_path / "fid.json").read_text())["fid"]["value"])
    assert values[0] == values[1] > 0


def test_the_librarys_names_are_imported_when_asked_for():
    for name in malp_disc.__all__:
        assert getattr(malp_disc, name).__name__ == name and name in dir(malp_disc)
    with pytest.raises(AttributeError, match="no attribute 'MalP'"):
        malp_disc.MalP  # noqa: B018


def test_type_checkers_see_every_public_name():
    source = Path(malp_disc.__file__)
    (only,) = (node for node in ast.parse(source.read_text()).body if isinstance(node, ast.If))  # if TYPE_CHECKING
    assert {alias.name for line in only.body for alias in line.names} == set(malp_disc.__all__)
    assert (source.parent / "py.typed").is_file() and (source.parents[1] / "generators" / "py.typed").is_file()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_help_is_printed_in_every_encoding(monkeypatch, encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "malp_disc.cli", "--help"]
    result = subprocess.run(command, capture_output=True, env=environment, cwd=Path(__file__).parents[1], timeout=120)
    assert result.returncode == 0 and b"usage" in result.stdout.lower(), result.stderr[-500:]
    printed = io.BytesIO()  # a recipe's, whose help is longer: in this process, since another would import torch first
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    monkeypatch.setattr(sys, "argv", ["recipes/finetune_stargan.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        run_recipe(finetune_stargan.main, finetune_stargan.Config, finetune_stargan.__doc__)
    sys.stdout.flush()
    assert ended.value.code in (0, None) and b"usage" in printed.getvalue().lower()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), "error: No space left on device: out/a.png"),
        (OSError("can't write out"), "error: can't write out"),
    ],
)
def test_an_error_of_the_disk_names_the_file_if_it_is_known(error, message):
    with pytest.raises(SystemExit, match=f"^{message}$"), cli.plain_errors():
        raise error


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path):
    code = "from malp_disc.cli import plain_errors\nwith plain_errors():\n  for _ in range(100000): print('x' * 80, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1])
    process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read() and process.wait(60) == 141


@pytest.mark.parametrize(
    "arguments",
    [("doctor", "a:b"), ("key", "a", "--malp", "b"), ("protect", "a", "b", "--malp", "c"), ("localize", "a", "b", "--malp", "c"), ("detect", "a", "--malp", "c"),
     ("export", "a", "b"), ("fid", "a", "b"), ("report", "a"), ("finetune",), ("pretrain",), ("baseline",), ("benchmark",)],
)  # fmt: skip
def test_an_unknown_flag_points_to_the_help_of_its_own_command(command, capsys, arguments):
    assert command(*arguments, "--unknown", 1) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "Unrecognized options: --unknown, 1" in said or "Unrecognized options: --unknown 1" in said, said
    assert f"malp-disc {arguments[0]} --help" in said


def test_an_unknown_flag_of_a_recipe_points_to_a_command_that_can_be_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipes/finetune_stargan.py", "--unknown", "1"])
    with pytest.raises(SystemExit):
        run_recipe(finetune_stargan.main, finetune_stargan.Config, "")
    assert "python recipes/finetune_stargan.py --help" in " ".join(capsys.readouterr().err.replace("│", " ").split())
