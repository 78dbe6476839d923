"""What a generator's or a localizer's own code raises is a gap in the tables with type, message and line, and the rest is measured."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from generators import create_generator, list_generators
from malp_disc.benchmark import inputs
from malp_disc.benchmark.failures import named_failures
from malp_disc.benchmark.page import write_pages
from malp_disc.benchmark.run import Competitor, Settings, run_generators
from malp_disc.benchmark.speed import images_per_second
from malp_disc.benchmark.suite import GeneratorEntry, Suite, generator_entry
from malp_disc.commands.benchmark import check_suite, measure_speeds
from malp_disc.data import DataOptions
from malp_disc.runtime.input_checks import check_images

FACES = DataOptions(image_size=32, test_size=16)
GENERATORS = """
from torch import nn

class Fails(nn.Module):
    def manipulate(self, images, target):
        {line}

class Works:
    def manipulate(self, images, target):
        images[:, :, :10, :20] -= 0.4
        return images.clamp(-1, 1)

class Stuck(Works, nn.Module):
    def eval(self):
        return {{}}["mode"]

def fails():
    return Fails()

def works():
    return Works()

def stuck():
    return Stuck()
"""


@pytest.fixture
def file(tmp_path):
    """Writes a module with generators, of which one fails with the given line."""

    def write(line: str = "raise TypeError('no 3 dimensions')"):
        path = tmp_path / "my_generators.py"
        path.write_text(GENERATORS.format(line=line))
        return path

    return write


def grey(images):
    return images.mean(1, keepdim=True).clamp(0, 1), images.mean((1, 2, 3))


def competitor(localize=grey, name: str = "grey", **more) -> Competitor:
    return Competitor(SimpleNamespace(localize=localize, name=name, **more), name)


def entry(spec: str, **more) -> GeneratorEntry:
    return generator_entry(spec, name=spec.rpartition(":")[2], data=FACES, **more)


def lines_of(folder, *entries, competitors=None, side: int = 32):
    found = competitors or [competitor()]
    return run_generators(entries, found, Settings(folder=folder, images=3, side=side), show=False)


@pytest.mark.parametrize(
    "line, said",
    [
        ("raise TypeError('no 3 dimensions')", "TypeError: no 3 dimensions"),
        ("return [][images.ndim]", "IndexError: list index out of range"),
        ("return {}['mask']", "KeyError: 'mask'"),
        ("return 1 / len([])", "ZeroDivisionError: division by zero"),
        ("raise NotImplementedError", "NotImplementedError"),
        ("return images.nothing", "AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("return images.view(7)", "RuntimeError: shape '[7]' is invalid"),
        ("raise KeyError('k' * 999)", "KeyError: 'kkk"),
        ("raise ValueError('first line\\nsecond')", "ValueError: first line"),
    ],
)
def test_whatever_a_generator_raises_is_its_gap_and_the_next_one_is_measured(file, tmp_path, caplog, line, said):
    path = file(line)
    gap, *others = lines_of(tmp_path, entry(f"{path}:fails"), entry(f"{path}:works"))
    number = GENERATORS.splitlines().index("        {line}") + 1
    assert gap.generator == "fails" and gap.localizer is None
    assert gap.gap.startswith(f"manipulate failed: {said}") and gap.gap.endswith(f"({path}, line {number})"), gap.gap
    assert gap.gap in caplog.text and len(gap.gap) < 600
    assert others and all(other.generator == "works" and other.gap is None for other in others)


def test_an_error_while_a_generator_is_loaded_is_its_gap(file, tmp_path):
    path = file()
    gap, *others = lines_of(tmp_path, entry(f"{path}:stuck"), entry(f"{path}:works"))
    assert gap.gap.startswith(f"loading {path}:stuck failed: KeyError: 'mode' ({path}, line ")
    assert others and all(other.gap is None for other in others)


def test_an_error_in_the_zoos_constructor_is_a_gap(monkeypatch, tmp_path):
    """A constructor whose signature doesn't say what it takes, and a checkpoint that breaks its loader."""
    monkeypatch.setattr("generators.stgan.stgan_official.load", lambda path: [][0])
    weights = tmp_path / "stgan.ckpt"
    weights.write_bytes(b"")
    (gap,) = lines_of(tmp_path, replace(entry("stgan", checkpoint=weights), options={"form": "port"}))
    assert gap.gap.startswith("loading stgan failed: IndexError: list index out of range (")


def test_a_sentence_of_the_zoo_stays_as_it_is(tmp_path):
    weights = tmp_path / "stgan.ckpt"
    weights.write_bytes(b"")
    (gap,) = lines_of(tmp_path, replace(entry("stgan", checkpoint=weights), options={"form": "prot"}))
    assert gap.gap == "unknown form 'prot' of STGAN; choose 'port' or 'official'"
    with pytest.raises(ValueError, match=r"^expected images of shape"), named_failures("localize"):
        check_images(torch.zeros(3))


@pytest.mark.parametrize("method", ["localize", "protect"])
def test_a_localizer_that_fails_is_a_gap_of_its_own(file, tmp_path, method):
    def broken(images):
        return [][0]

    failing = competitor(grey, "failing", **{"protect": broken}) if method == "protect" else competitor(broken, "failing")
    lines = lines_of(tmp_path, entry(f"{file()}:works"), competitors=[failing, competitor()])
    gaps = [line for line in lines if line.gap is not None]
    assert {line.localizer for line in gaps} == {"failing"}
    (gap,) = {line.gap for line in gaps}
    assert gap.startswith(f"{method} of failing failed: IndexError: list index out of range ({__file__}, line ")
    assert [line.gap for line in lines if line.localizer == "grey"] == [None]
    contents = write_pages(tmp_path, lines, {}, {})
    assert contents.gaps == [("failing on works" + (", sc." if method == "localize" else ""), gap)]
    assert gap in (tmp_path / "benchmark.md").read_text()


def test_a_localizer_that_takes_only_the_scaled_images_keeps_its_numbers(file, tmp_path):
    """The figure of samples shows the images as the generator left them, 32 x 32, which this localizer can't take."""

    def small(images):
        assert images.shape[-1] == 16
        return grey(images)

    lines = lines_of(tmp_path, entry(f"{file()}:works"), competitors=[competitor(small, "small")], side=16)
    assert [(line.scale, line.gap is None) for line in lines] == [("sc.", True), ("no sc.", False)]


def test_an_interruption_and_a_full_disk_end_the_benchmark(monkeypatch, file, tmp_path):
    path = file("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        lines_of(tmp_path, entry(f"{path}:fails"))

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(inputs, "save_tensors", full)
    with pytest.raises(OSError, match="no space left"):
        lines_of(tmp_path / "full", entry(f"{path}:works"))


@pytest.mark.parametrize("error", [RuntimeError("too small"), IndexError("too small"), KeyError("too small"), ValueError("too small")])
def test_a_localizer_that_cannot_take_the_scaled_size_has_no_speed_and_the_page_is_written(tmp_path, file, caplog, error):
    def large(images):
        if images.shape[-1] < 32:
            raise error
        return grey(images)

    with pytest.raises(ValueError, match=rf"localize of large on 8 images of 16x16 failed: {type(error).__name__}: .*too small.* \({__file__}, line"):
        images_per_second(SimpleNamespace(localize=large, name="large"), 16)
    threads, both = torch.get_num_threads(), [competitor(large, "large"), competitor()]
    lines = lines_of(tmp_path, entry(f"{file()}:works"), competitors=both, side=16)
    speeds = measure_speeds(both, Settings(folder=tmp_path, images=3, side=16))
    assert list(speeds) == ["grey"] and torch.get_num_threads() == threads and "no images/s of it" in caplog.text
    write_pages(tmp_path, lines, speeds, {})
    assert "large" in (tmp_path / "benchmark.html").read_text()
    alone = both[:1]
    speeds = measure_speeds(alone, Settings(folder=tmp_path / "alone", images=3, side=16))
    write_pages(tmp_path / "alone", lines_of(tmp_path / "alone", entry(f"{file()}:works"), competitors=alone, side=16), speeds, {})
    assert (tmp_path / "alone" / "benchmark.html").exists()


class Wide(nn.Module):
    def localize(self, images):
        return images.nothing


def test_a_network_that_fails_has_no_speed():
    with pytest.raises(ValueError, match="localize of Wide on 8 images of 16x16 failed: AttributeError"):
        images_per_second(Wide(), 16)


# Options of the zoo's constructors


def suite_of(generator: str, options: dict) -> Suite:
    return Suite(localizers=(object(),), generators=(replace(generator_entry(generator, data=FACES), options=options),))


@pytest.mark.parametrize(
    "generator, options, said",
    [
        ("stargan", {"c_dmi": 5}, "StarGAN: unknown option 'c_dmi'; did you mean c_dim\\? stargan takes conv_dim, c_dim, repeat_num"),
        ("pix2pix", {"netwrk": "unet"}, "unknown option 'netwrk'; did you mean network\\?"),
        ("my_module:make", {"c_dim": 5}, "my_module:make: options are for networks of the zoo, .* set c_dim in that function"),
    ],
)
def test_an_option_that_no_constructor_takes_is_named_before_any_work(generator, options, said):
    with pytest.raises(ValueError, match=said):
        check_suite(suite_of(generator, options))


@pytest.mark.parametrize("name", list_generators())
def test_options_that_a_constructor_takes_are_accepted(name):
    """Those of every network that its function can make: what a signature doesn't name is never refused where the constructor takes it."""
    forms = {"stgan": [{"form": "official"}], "dualgan": [{"form": form} for form in ("pytorch_gan", "togheppi")], "real_esrgan": [{"architecture": "srvgg"}]}
    forms |= {"pix2pix": [{"network": "resnet"}], "colorizing_gan": [{"form": "port"}], "stylegan": [{"port": "rosinality"}]}
    for form in [{}, *forms.get(name, [])]:
        with torch.device("meta"):
            network = create_generator(name, **form)
        taken = getattr(network, "config", None) or dict.fromkeys(inspect.signature(type(network)).parameters)
        check_suite(suite_of(name, {**form, **taken}))
