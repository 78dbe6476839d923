"""The list of issued templates: all of them are in it, whatever happens to the process, and originals are recognised."""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys

import pytest
import torch

from malp_disc.degradations import gaussian_blur, jpeg, resized
from malp_disc.keyed import issued as module
from malp_disc.keyed.issued import Issued, IssuedTemplates
from malp_disc.keyed.looks import MOST, RESEMBLES, look, resemblance
from tests.keyed.conftest import natural_images

IMAGE = torch.zeros(1, 3, 32, 32)


def test_numbers_are_random_and_the_file_names_are_kept(tmp_path):
    issued = IssuedTemplates(tmp_path / "secret.safetensors", "0a")
    numbers = [issued.issue(f"{i}.jpg", IMAGE)["template"] for i in range(4)]
    assert len(set(numbers)) == 4 and 2**40 < max(numbers) < 2**53, "all four are below 2^40 once in 2^52"
    assert IssuedTemplates(tmp_path / "other.safetensors", "0a").path.name == "other.safetensors.issued.jsonl"
    read = Issued.read(issued.path)
    assert read.numbers == tuple(numbers) and read.names[numbers[2]] == "2.jpg" and len(read.looks) == 4
    wide = issued.issue("wide.jpg", torch.zeros(1, 3, 20, 30))
    assert (wide["height"], wide["width"]) == (20, 30) == Issued.read(issued.path).shapes[wide["template"]]


@pytest.mark.parametrize("rest", ["", '{"templ', '{"template": 1', '{"template": 12, "file": "caf\u00e9'])
def test_a_line_that_was_cut_off_spoils_no_other(rest, tmp_path):
    issued = IssuedTemplates(tmp_path / "secret.safetensors", "0a")
    first = issued.issue("a.jpg", IMAGE)["template"]
    with open(issued.path, "ab") as file:
        file.write(rest.encode())
    numbers = [issued.issue("b.jpg", IMAGE)["template"] for _ in range(2)]
    assert Issued.read(issued.path).numbers == (first, *numbers)


def _issue(key, count, queue) -> None:
    queue.put([IssuedTemplates(key, "0a").issue("a.jpg", IMAGE)["template"] for _ in range(count)])


def test_processes_at_once_get_different_numbers(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # a process that starts anew imports torch first
    queue = context.Queue()
    processes = [context.Process(target=_issue, args=(tmp_path / "secret.safetensors", 20, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    numbers = [number for _ in processes for number in queue.get(timeout=120)]
    for process in processes:
        process.join()
    assert sorted(Issued.read(tmp_path / "issued.jsonl").numbers) == sorted(numbers) and len(set(numbers)) == 40


def test_a_list_that_cant_be_written_gives_out_no_number(tmp_path, monkeypatch):
    issued = IssuedTemplates(tmp_path / "secret.safetensors", "0a")

    def full(handle):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            issued.issue("a.jpg", IMAGE)
    assert issued.issue("b.jpg", IMAGE)["template"] in Issued.read(issued.path).numbers


def test_an_image_is_recognised_by_its_look_after_what_happens_to_images():
    images = natural_images(8, 64, 96, seed=1)
    issued = Issued(tuple(range(100, 108)), looks=dict(zip(range(100, 108), look(images))))
    for change in (lambda x: jpeg(x, 30), lambda x: gaussian_blur(x, 2.0), lambda x: resized(x, (40, 60)), lambda x: 0.6 * x + 0.2):
        assert [issued.likely(image) for image in change(images).split(1)] == [[number] for number in range(100, 108)]
    assert issued.likely(natural_images(1, 64, 96, seed=9)) == [] == Issued((1, 2)).likely(images[:1])
    looks = look(images)
    torch.testing.assert_close(resemblance(looks[0], looks[:1]), torch.ones(1))
    assert resemblance(looks[0], looks[1:]).max() < RESEMBLES
    assert resemblance(look(IMAGE)[0], looks).abs().max() == 0, "a plain image resembles none"


def test_every_template_of_an_original_is_likely_the_newest_first():
    """It may have been protected several times, and any of these copies may be the one that was published."""
    one, other = natural_images(2, 64, 64)
    looks = {**{number: look(one[None])[0] for number in range(10)}, 10: look(other[None])[0]}
    issued = Issued(tuple(looks), looks=looks)
    assert issued.likely(one[None]) == [9, 8, 7, 6] and issued.likely(other[None]) == [10]
    assert Issued((1, 2)).fingerprint == Issued((2, 1)).fingerprint != Issued((1, 3)).fingerprint


def test_the_originals_of_a_long_list_are_those_of_a_comparison_with_each():
    """Near-copies of eight images, some of which are in the list up to six times, at any place of it."""
    generator = torch.Generator().manual_seed(0)
    base = look(natural_images(8, 64, 64, seed=5)).int()
    distinct = (base[torch.randint(8, (60,), generator=generator)] + torch.randint(-6, 7, (60, 144), generator=generator)).clamp(0, 255).byte()
    looks = distinct[torch.randint(60, (200,), generator=generator)]
    issued = Issued(tuple(range(200)), looks=dict(enumerate(looks)))
    for image, least in ((image, least) for image in natural_images(8, 64, 64, seed=5).split(1) for least in (0.5, RESEMBLES)):
        values = resemblance(look(image)[0], looks)
        rows: dict[bytes, list[int]] = {}
        for row in sorted(range(200), key=lambda row: -round(values[row].item(), 5)):
            if values[row] >= least:
                rows.setdefault(bytes(looks[row].tolist()), []).append(row)
        expected = [row for copies in list(rows.values())[:MOST] for row in sorted(copies, reverse=True)[:4]]
        found = issued.similar(image, least)
        assert len(expected) >= MOST and list(found) == expected == issued.likely(image, least)
        torch.testing.assert_close(torch.tensor(list(found.values())), values[expected])


def test_a_long_list_isnt_worked_through_again_for_every_image(monkeypatch):
    rows = []
    monkeypatch.setattr(module, "differences", lambda looks, own=module.differences: rows.append(len(looks)) or own(looks))
    images = natural_images(3, 64, 64, seed=1)
    issued = Issued(tuple(range(500)), looks=dict(enumerate(look(images)[torch.arange(500) % 3])))
    assert [issued.likely(image)[0] % 3 for image in images.split(1)] == [0, 1, 2]
    assert sorted(rows) == [1, 1, 1, 500]


def test_a_list_names_its_key_and_is_its_owners(tmp_path):
    issued = IssuedTemplates(tmp_path / "secret.safetensors", "0a")
    issued.issue("a.jpg", IMAGE)
    assert stat.S_IMODE(issued.path.stat().st_mode) == 0o600
    assert Issued.read(issued.path, key="0a").numbers == Issued.read(issued.path).numbers
    with pytest.raises(ValueError, match="lists templates of the key 0a, and this is the key 1b"):
        Issued.read(issued.path, key="1b")
    (tmp_path / "protect.jsonl").write_text('{"file": "a.png", "settings": {"key": "0a"}, "template": 3}\n')
    with pytest.raises(ValueError, match="of the key 0a, and this is the key 1b"):
        Issued.read(tmp_path / "protect.jsonl", key="1b")


def test_lists_hold_what_protect_writes_and_nothing_else_counts(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"template": 3, "file": "a.png", "psnr": 38.5}\nnonsense\n{"template": -1}\n{"template": true}\n[3]\n{"template": 4, "look": "?"}\n')
    read = Issued.read(path)
    assert read.numbers == (3, 4) and read.names == {3: "a.png"} and not read.looks
    huge = '"width": 1' + 400 * "0" + ', "height": 4'
    path.write_text('{"template": 5, "settings": "none"}\n{"template": 6, "settings": [1], ' + huge + "}\n" + 10**5 * "[" + '\n{"template": 7, "width": 6, "height": 4, "settings": {"key": 3}}\n')
    assert Issued.read(path, key="0a").numbers == (5, 6, 7) and Issued.read(path).shapes == {7: (4, 6)}
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="lists no template"):
        Issued.read(path)
