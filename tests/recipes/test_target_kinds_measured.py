"""What a generator declares holds in every measurement, in the benchmark, and in commands as users run them; see `test_target_kinds.py` for the training steps."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from generators import create_generator
from malp_disc.benchmark.inputs import cases_of
from malp_disc.benchmark.methods import create_method
from malp_disc.benchmark.run import Competitor, Settings, generator_lines
from malp_disc.benchmark.suite import generator_entry
from malp_disc.commands import baseline
from malp_disc.data import DataOptions, WithReferences, build_dataset
from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.eval_set import EvalSet, edit
from malp_disc.evaluation.gallery import draw_arm
from malp_disc.evaluation.localize import malp_gallery, measure_malp, score_unprotected, through_generator
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.serialization.state_dicts import save_tensors
from malp_disc.target_kind import label_options
from recipes import evaluate_survival
from recipes.research import attack_templates
from tests.recipes.conftest import TINY
from tests.recipes.in_process import ROOT
from tests.recipes.noting import GIVEN, Noting, NotingChange, check, fresh
from tests.tiny import tiny_malp


@pytest.fixture(params=[Noting, NotingChange], ids=["labels", "change"])
def generator(request) -> nn.Module:
    return fresh(request.param)


def inputs() -> EvalSet:
    return EvalSet.take(ProceduralFaces(16, image_size=32), 8)


@pytest.mark.parametrize("attribute", [None, "Smiling"])
def test_every_measurement(generator, attribute):
    held, malp = inputs() if attribute is None else inputs().of_one_attribute("Smiling"), tiny_malp().eval()
    count, asked = len(held.images), (held.targets, held.labels)
    edit(generator.manipulate, held.images, held.targets, current=held.labels)
    through_generator(generator.manipulate, held, malp)
    measure_malp(generator.manipulate, held, malp)
    score_unprotected(generator.manipulate, held, malp)
    malp_gallery(generator.manipulate, held, malp, count=count)
    draw_arm(generator.manipulate, held, malp)
    check(generator, *[asked] * 7)  # the last two are of the gallery


def test_the_scores_of_a_localizer(generator):
    held = inputs()
    baseline.score(create_method("resnet50_map", side=32), generator.manipulate, held)
    check(generator, (held.targets, held.labels))


def test_survival(generator):
    held, malp = inputs(), KeyedMaLP(KeyedConfig(image_size=32, width=4), secret=b"m" * 32)
    config = evaluate_survival.Config(eval_size=6)
    list(evaluate_survival.measure("generated", malp, held, generator, None, 0, config))
    check(generator, (held.targets[:6], held.labels[:6]))


def test_templates_by_attacks(generator):
    config = SimpleNamespace(attack_batches=1, train_batch_size=4)
    faces = ProceduralFaces(16, image_size=32)
    attack_templates.template_loss(tiny_malp(), generator.manipulate, faces, config, torch.device("cpu"))(torch.zeros(32, 32), 0)
    held = EvalSet.take(faces, 4)
    check(generator, (held.targets, held.labels))


@pytest.mark.parametrize("own", [None, "labels", "change"])
def test_the_benchmark_with_and_without_a_target_of_its_own(monkeypatch, tmp_path, generator, own):
    """The generator's declaration is the default; an entry of the suite takes its place."""
    monkeypatch.setattr("malp_disc.benchmark.run.load_entry", lambda entry: generator)
    entry = dataclasses.replace(generator_entry("my:make", data=DataOptions(image_size=32, test_size=16), edits=("Smiling",)), target=own)
    grey = SimpleNamespace(localize=lambda images: (images.mean(1, keepdim=True).clamp(0, 1), images.mean((1, 2, 3))))
    found = generator_lines(entry, [Competitor(grey, "grey")], Settings(folder=tmp_path, images=6, side=32))
    assert not any(one.gap for one in found) and len(GIVEN) == 2
    changes = own == "change" or (own is None and isinstance(generator, NotingChange))
    assert all((given < 0).any() == changes for given in GIVEN)
    alone = GIVEN[1]
    assert not changes or (alone.abs().sum(0) == torch.tensor([0, 0, 0, 6, 0])).all()


# Commands as users run them

MODULE = """
import torch
from PIL import Image
from tests.recipes.noting import Cycle, NotingChange

def make():
    torch.manual_seed(0)
    return NotingChange()

def losses():
    return Cycle()
"""
FEW = ["--train-size", 40, "--test-size", 12]
EVALUATED = [
    "--eval-size",
    8,
    "--reference-size",
    8,
    "--extractor",
    "faces",
    "--second-extractor",
    "none",
    "--smaller-views",
    "--eval-steps",
    0,
]


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        ("pretrain_malp.py", ["--malp-width", 4, "--malp-branch", "none", "--malp-attribute", "Smiling"]),
        ("train_localizer.py", ["--method", "resnet50_map", "--edit-attribute", "Smiling"]),
        (
            "finetune.py",
            [
                *EVALUATED,
                "--losses",
                "mine_for_kinds:losses",
                "--keep-weight",
                1,
                "--malp-pretrain-steps",
                1,
                "--malp-width",
                4,
                "--arms",
                "control",
                "frozen",
            ],
        ),
    ],
)
def test_a_command_as_a_user_runs_it(launch, tmp_path, monkeypatch, recipe, flags):
    """No call of a whole run is given desired labels: a change of four faces or more has something to remove, unless it is zero (each is given its own labels)."""
    (tmp_path / "mine_for_kinds.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(ROOT))
    GIVEN.clear()
    launch(
        recipe,
        *TINY,
        *FEW,
        *flags,
        "--generator",
        "mine_for_kinds:make",
        "--max-train-steps",
        2,
        "--output-dir",
        tmp_path / "run",
        charts=False,
        cwd=tmp_path,
    )
    assert len(GIVEN) > 6
    wrong = [given.tolist() for given in GIVEN if len(given) >= 4 and given.any() and not (given < 0).any()]
    assert wrong == []
    assert {value for given in GIVEN for value in given.flatten().tolist()} == {-1.0, 0.0, 1.0}


def test_a_tiny_stgan_is_fine_tuned(launch, tmp_path):
    """The zoo's STGAN with its own checkpoint, from the doctor's checks to the report."""
    torch.manual_seed(0)
    generator = create_generator("stgan", attr_dim=5, conv_dim=4, n_layers=3, shortcut_layers=1)
    with torch.no_grad():
        generator.decoder[-1][-2].weight.mul_(300)  # not one flat colour, which the checks before a run refuse
    save_tensors(tmp_path / "G.safetensors", generator.state_dict())
    result = launch("finetune.py", *TINY, *FEW, *EVALUATED, "--generator", "stgan", "--generator-checkpoint", tmp_path / "G.safetensors", "--malp-pretrain-steps", 1, "--malp-width", 4,
                    "--arms", "control", "frozen", "--max-train-steps", 2, "--output-dir", tmp_path / "run", charts=False)  # fmt: skip
    assert set(json.loads((tmp_path / "run" / "report.json").read_text())["arms"]) == {"before", "control", "frozen"}, result.stdout


def test_a_folder_per_domain_asks_for_one_domain(tmp_path):
    """Whatever the generator takes: two domains at once is a request that no network was trained for."""
    for number, domain in enumerate(("angry", "happy", "sad")):
        (tmp_path / domain).mkdir()
        for index in range(4):
            Image.new("RGB", (32, 32), (60 * number, 20 * index, 0)).save(tmp_path / domain / f"{domain}{index}.png")
    options = DataOptions(data="folder", data_root=tmp_path, image_size=32, test_size=6)
    held = build_dataset(options, "test")
    taken = EvalSet.take(held, 6)
    entry = generator_entry("stargan", data=options, edits=("happy",))
    cases = cases_of(entry, "labels", 6, 0)
    requested = [taken.targets, taken.of_one_attribute("happy").targets, taken.first(5).of_one_attribute("sad").targets, *(case.target for case in cases)]
    for targets in requested:
        assert len(targets) and torch.equal(targets.sum(1), torch.ones(len(targets)))
    assert torch.equal(requested[1], torch.tensor([[0.0, 1.0, 0.0]]).expand_as(requested[1]))
    assert label_options(fresh(Noting), WithReferences(held, tmp_path / "sad")) == {"attribute_names": held.attribute_names, "exclusive": held.attribute_names}
