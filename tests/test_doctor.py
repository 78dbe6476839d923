"""The doctor names what stands between a generator and its fine-tuning, and finds nothing where nothing is."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from malp_disc import cli
from malp_disc.commands import finetune
from malp_disc.commands.batch import Sources
from malp_disc.commands.doctor import Doctor, doctor
from malp_disc.malp import with_pretrained_branch
from malp_disc.training.flag_groups import parse_flags
from malp_disc.training.generator_checks.full_check import Finding, examine
from tests.tiny import tiny_malp


class Healthy(nn.Module):
    """Repaints the left half, by its target."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def manipulate(self, images, target):
        with torch.autocast(images.device.type, enabled=False):
            new = torch.tanh(self.out(torch.tanh(self.inside(images.float()))) + target[:, :1, None, None].sum(1, keepdim=True))
        left = (torch.arange(images.shape[-1], device=images.device) < images.shape[-1] // 2).float()
        return (left * new + (1 - left) * images).clamp(-1, 1)


def findings_of(generator, **settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(generator, **{"image_size": 32, "batch_size": 3, **settings})}


@pytest.mark.parametrize("attributes", [0, 5])
def test_a_healthy_generator_has_no_problem_and_is_left_as_it_was(attributes):
    generator = Healthy().train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    found = findings_of(generator, attributes=attributes, malp=tiny_malp())
    assert {finding.level for finding in found.values()} == {"ok"}, found
    assert found["gradients"].said == "reach 4 of 4 weights"
    assert generator.training and all(p.grad is None for p in generator.parameters())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


def sick(function, *, learns: bool = True) -> nn.Module:
    """Healthy, with something done to its result."""

    class Sick(Healthy):
        def manipulate(self, images, target):
            return function(super().manipulate(images, target), images)

    return Sick().requires_grad_(learns)


@pytest.mark.parametrize(
    ("function", "name", "said", "advice"),
    [
        (lambda y, x: (y + 1) / 2, "range", "values from 0", r"return 2 \* y - 1"),
        (lambda y, x: 127.5 * (y + 1), "range", "to 2", "divide by 127.5"),
        (lambda y, x: 1.2 * y, "range", "to 1.2", "clamp"),
        (lambda y, x: y / 0 * 0, "range", "NaN", "weights"),
        (lambda y, x: y.permute(0, 2, 3, 1), "shape", r"\(3, 32, 32, 3\) out", r"permute\(0, 3, 1, 2\)"),
        (lambda y, x: y[..., ::2, ::2], "shape", r"\(3, 3, 16, 16\) out", "resize"),
        (lambda y, x: (y, x), "shape", "returns a tuple", "alone"),
        (lambda y, x: (127 * y).to(torch.int8), "shape", "int8", "rounding has no gradient"),
        (lambda y, x: x + 0 * y, "edit", "copies its input", "target"),
        (lambda y, x: (y * 127.5).round() / 127.5, "gradients", "no gradient reaches its weights", "rounded"),
        (lambda y, x: y.detach(), "gradients", "no gradient passes manipulate", "no_grad"),
    ],
)
def test_what_is_in_the_way_is_named_with_what_to_do(function, name, said, advice):
    finding = findings_of(sick(function))[name]
    assert finding.level == "problem"
    assert re.search(said, finding.said) and re.search(advice, finding.advice), finding


@pytest.mark.parametrize(
    ("function", "name", "said"),
    [
        (lambda y, x: y + 0.01 * torch.rand_like(y) * (y.abs() < 0.9), "repeatable", "another result the second time"),
        (lambda y, x: (y - y.mean(0, keepdim=True) * 0.2).clamp(-1, 1), "neighbours", "depends on what stands beside it"),
        (lambda y, x: (0.9 * x + 0.1 * y).flip(1), "colours", "with red and blue exchanged it is nearer"),
        (lambda y, x: y.to(torch.bfloat16).float() if torch.is_autocast_enabled("cpu") else y, "bf16", "on the grid of bf16 values"),
    ],
)
def test_what_is_worth_knowing_is_noted(function, name, said):
    finding = findings_of(sick(function))[name]
    assert finding.level == "note" and said in finding.said and finding.advice


def test_weights_without_a_part_sizes_and_foreign_objects_are_told():
    generator = Healthy()
    generator.idle = nn.Linear(2, 2)
    assert "reach 4 of 6 weights" in findings_of(generator)["gradients"].said
    assert "idle.weight" in findings_of(generator)["gradients"].advice
    generator.idle.requires_grad_(False)
    assert findings_of(generator)["gradients"].said == "reach 4 of 4 weights; 2 are fixed and stay so"

    class Picky(Healthy):
        def manipulate(self, images, target):
            if images.shape[2:] != (32, 32):
                raise ValueError("32 only")
            return super().manipulate(images, target)

    assert "not 64x64, 32x64, 36x36" in findings_of(Picky())["sizes"].said
    assert findings_of(lambda images, target: images)["interface"].level == "problem"
    assert "shape mismatch" in findings_of(sick(lambda y, x: (_ for _ in ()).throw(RuntimeError("shape mismatch"))))["interface"].said


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("labels", 5, "manipulate is given the desired labels, (3, 5) of 0 and 1"),
        ("change", 5, "manipulate is given the change of the labels, desired - current, (3, 5) of -1, 0 and 1"),
        ("none", 5, 'manipulate is given None, as it declares with target_kind = "none"'),
        ("labels", 0, "manipulate is given the desired labels, (3, 0) of 0 and 1"),
    ],
)
def test_what_manipulate_is_given_is_said_and_given(kind, attributes, said):
    seen = []

    class Seeing(Healthy):
        target_kind = kind

        def manipulate(self, images, target):
            seen.append(target)
            return super().manipulate(images, None if target is None else 0.1 * target)

    found = findings_of(Seeing(), attributes=attributes)["target"]
    assert (found.level, found.said) == ("ok", said)
    values = {None if target is None else tuple(target.unique().tolist()) for target in seen if target is None or len(target) == 3}
    assert values == {{"labels": (0.0, 1.0), "change": (-1.0, 0.0, 1.0), "none": None}[kind] if attributes else ()}


def test_a_generator_of_domains_is_given_numbers():
    class Domains(Healthy):
        target_kind = "domain"

        def manipulate(self, images, target):
            assert target.shape == (len(images),) and target.dtype == torch.long
            return super().manipulate(images, 0.1 * target[:, None])

    found = findings_of(Domains(), attributes=2)
    assert found["target"].said == "manipulate is given the number of the desired domain, (3,) of integers" and found["shape"].level == "ok"


class Own(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def generator_loss(self, fake, batch, edit):
        return {"rebuilt": self.weight * (edit(fake, batch.labels) - batch.images).abs().mean()}


def test_malps_gradient_stands_beside_its_own_and_a_dead_map_is_a_problem():
    strong, weak = (findings_of(Healthy(), losses=Own(weight), malp=tiny_malp())["MaLP's gradient"] for weight in (1.0, 0.001))
    ratios = [float(finding.said.split()[1]) for finding in (strong, weak)]
    assert ratios[1] == pytest.approx(1000 * ratios[0], rel=0.01)
    assert "--gradient-share 0.5" in weak.advice
    dead = tiny_malp()
    with torch.no_grad():
        dead.cnn.map_head.weight.zero_()
        dead.cnn.map_head.bias.fill_(-20)
    found = findings_of(Healthy(), malp=dead)
    assert found["map"].level == "problem" and "dead" in found["map"].said


class Elsewhere(nn.Module):
    """Losses that don't train the generator's last layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def generator_loss(self, fake, batch, edit):
        if self.kind == "other layers":
            return {"decay": edit.generator.inside.weight.square().sum()}
        return {"zero": 0 * fake.sum() if self.kind == "zero" else (0 * fake).square().sum().sqrt()}


@pytest.mark.parametrize(
    ("kind", "level", "said"),
    [
        ("other layers", "problem", "doesn't depend on the weights of the generator's last layer"),
        ("zero", "note", "has length 0.0 at the generator's last layer"),  # as the distance to what the generator was has at first
        ("root of zero", "problem", "has length nan at the generator's last layer"),
    ],
)
def test_losses_that_do_not_train_the_last_layer_are_told_of(kind, level, said):
    finding = findings_of(Healthy(), losses=Elsewhere(kind), malp=tiny_malp())["losses"]
    assert finding.level == level and said in finding.said


def test_a_generator_that_exits_at_other_sizes_or_in_half_precision_is_told_of():
    class Exits(Healthy):
        def manipulate(self, images, target):
            if images.shape[2:] != (32, 32) or torch.is_autocast_enabled("cpu"):
                sys.exit("no")
            return super().manipulate(images, target)

    found = findings_of(Exits())
    assert "not 64x64" in found["sizes"].said and "fails under autocast: SystemExit: no" in found["bf16"].said


def test_a_malp_whose_second_branch_is_told_attributes_is_given_the_targets():
    malp = with_pretrained_branch(tiny_malp(), "test_efficientnet", weights="random", side=32, labels=5)
    assert findings_of(Healthy(), malp=malp)["MaLP's gradient"].level == "ok"


def test_too_little_memory_for_the_doctor_names_the_flags_that_need_less(monkeypatch):
    monkeypatch.setattr("malp_disc.commands.doctor.call_by_name", lambda name: Healthy())
    monkeypatch.setattr("malp_disc.training.generator_checks.full_check.examine", lambda *arguments, **options: torch.empty(2**50))
    with pytest.raises(ValueError, match="cpu has too little memory for 4 images of 64 pixels; give a smaller --batch-size or --image-size"):
        doctor(Doctor(generator="x:y", device="cpu"))


def test_memory_is_that_of_the_images_kept_for_the_backward_pass():
    """Twice the side, four times the memory; exactly the same whatever the batch."""
    kept = [float(findings_of(Healthy(), image_size=size, batch_size=batch)["memory"].said.split()[0]) for size, batch in ((64, 2), (128, 2), (128, 4))]
    assert kept[1] == pytest.approx(4 * kept[0], rel=0.1) and kept[2] == pytest.approx(kept[1], rel=0.05)


def test_the_command_prints_writes_and_ends_with_a_status(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_for_doctor.py").write_text(
        "import torch\nfrom tests.test_doctor import Healthy, sick\ndef good():\n    return Healthy()\ndef bad():\n    return sick(lambda y, x: (y + 1) / 2)\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    doctor(Doctor(generator="mine_for_doctor:good", image_size=32, json=tmp_path / "found.json"))
    printed = capsys.readouterr().out
    assert "ok   shape" in printed and "it can be fine-tuned: accelerate launch -m malp_disc finetune --generator mine_for_doctor:good" in printed
    assert printed.splitlines()[-1].endswith(" --data folder --data-root FOLDER --attributes TABLE.csv --image-size 32")
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["problems"] == 0 and {finding["level"] for finding in record["findings"]} <= {"ok", "note"}
    with pytest.raises(SystemExit, match="1 thing to mend"):
        doctor(Doctor(generator="mine_for_doctor:bad", image_size=32))
    assert "STOP range" in capsys.readouterr().out


@pytest.mark.parametrize("attributes", [0, 2])
def test_the_suggested_command_fine_tunes_on_images_that_fit_the_generator(tmp_path, monkeypatch, capsys, attributes):
    """Not on the drawn faces, which have five attributes and are the default of --data."""
    (tmp_path / "mine_to_tune.py").write_text("from tests.test_doctor import Healthy\ndef good():\n    return Healthy()\n")
    for number in range(12):
        (tmp_path / "photos" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 9, 9)).save(tmp_path / "photos" / str(number % 2) / f"{number}.png")
    (tmp_path / "table.csv").write_text("file,A,B\n" + "".join(f"{number}.png,{number % 2},0\n" for number in range(12)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    doctor(Doctor(generator="mine_to_tune:good", attributes=attributes, image_size=32))
    suggested = capsys.readouterr().out.splitlines()[-1].split(" finetune ")[1].replace("FOLDER", "photos").replace("TABLE.csv", "table.csv").split()
    config = parse_flags(finetune.Config, description=None, arguments=[*suggested, "--test-size", "4"])
    dataset, _ = finetune.load_datasets(config)
    assert dataset.image_size == config.image_size == 32 and len(dataset.attribute_names) == attributes and config.generator == "mine_to_tune:good"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "foo"), "can't compute on --device foo ("),
        (("--device", "meta"), "can't compute on --device meta ("),
        (("--device", "hpu"), "can't compute on --device hpu ("),
        (("--attributes", "-1"), "expected --attributes of 0 or more, got -1"),
        (("--image-size", "30"), "expected --image-size of 16 or more, divisible by 4, got 30"),
    ],
)
def test_wrong_flags_end_in_a_sentence_before_the_generator_is_made(monkeypatch, arguments, words):
    monkeypatch.setattr("malp_disc.commands.doctor.call_by_name", lambda name: pytest.fail("made the generator"))
    assert_ends_with(monkeypatch, ("doctor", "nowhere:make", *arguments), words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("command", [("doctor", "nowhere:make"), ("localize", "tests", "out", "--malp", "nowhere"), ("fid", "tests", "tests")])
def test_every_command_says_in_the_same_words_that_there_is_no_gpu(monkeypatch, command):
    monkeypatch.setattr("malp_disc.commands.batch.Sources.find", lambda place: Sources(place, ("a.png",), single=False))
    assert_ends_with(monkeypatch, (*command, "--device", "cuda"), "can't compute on --device cuda (")


def assert_ends_with(monkeypatch, arguments, words):
    monkeypatch.setattr("sys.argv", ["malp-disc", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert str(stopped.value.code).startswith(f"error: {words}"), stopped.value.code
