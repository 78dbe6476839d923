"""Files that a command writes last are tested first: hours of work aren't lost to a mistyped path."""

from __future__ import annotations

import os

import pytest

from malp_disc.serialization.files import check_writable, write_text
from tests.tiny import tiny_malp

COMMANDS = {
    "protect": ("protect", "photos", "out", "--malp", "malp"),
    "localize": ("localize", "photos", "out", "--malp", "malp"),
    "detect": ("detect", "photos", "--malp", "malp", "--threshold", "0.5"),
    "doctor": ("doctor", "nowhere:make"),
    "fid": ("fid", "photos", "photos"),
}


@pytest.fixture
def workplace(photos, tmp_path, monkeypatch):
    """A working folder with photos/, malp/, the file ``file`` and the folder ``folder``, where loading a network or a generator is a failure."""
    tiny_malp().save_pretrained(tmp_path / "malp")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for work in ("protect.load_malp", "localize.load_malp", "detect.load_malp", "doctor.call_by_name", "fid.compare"):
        monkeypatch.setattr(f"malp_disc.commands.{work}", lambda *arguments, **options: pytest.fail("work began"))
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_json_file_that_cannot_be_written_ends_the_command_before_it_begins(command, workplace, name):
    for json_file, words in (("file/found.json", "can't write --json file/found.json ("), ("folder", "--json folder is a folder; give a file's name")):
        assert command(*COMMANDS[name], "--json", json_file).startswith(f"error: {words}")
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("arguments", [("protect", "photos"), ("protect", "photos/a.png"), ("localize", "photos")], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_error_before_the_first_image(command, malp_folder, photos, monkeypatch, capsys, arguments):
    monkeypatch.chdir(photos.parent)
    (photos.parent / "file").write_text("in the way")
    output = "file/a.png" if arguments[-1].endswith("png") else "file/out"
    message = command(*arguments, output, "--malp", malp_folder)
    assert message.startswith(f"error: can't write OUT {output}") and message.endswith("; give an output where you may write")
    assert "failed" not in capsys.readouterr().err


def test_a_threshold_that_cannot_be_kept_ends_the_calibration_before_it_begins(command, workplace):
    (workplace / "malp" / "detection.json").mkdir()
    assert "malp/detection.json is a folder" in command("detect", "--calibrate", "photos", "--false-alarm-rate", "0.5", "--malp", "malp")


def test_testing_a_file_makes_its_folder_and_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "old.json", "old")
    check_writable(tmp_path / "old.json")
    check_writable(tmp_path / "a" / "b" / "new.json")
    assert (tmp_path / "old.json").read_text() == "old" and not list((tmp_path / "a" / "b").iterdir())


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="--json .*pipe is a device or a pipe"):
        check_writable(tmp_path / "pipe", "--json")


def test_a_folder_that_may_not_be_written_to_is_named_with_the_reason(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(ValueError, match=r"can't write --json .*a\.json \(Permission denied\); give a file in a folder where you may write"):
        check_writable(tmp_path / "a.json", "--json")
