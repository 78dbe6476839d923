"""The bench: what it writes of arms and seeds is what the report reads, and a second try replaces the first."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.data import DataOptions, build_dataset
from malp_disc.evaluation.evaluation_models import EvaluationConfig, make_evaluation_models
from malp_disc.evaluation.evaluator import _log_summary, check_same_attributes, make_evaluator
from malp_disc.generator_source import GeneratorOptions, load_generator
from malp_disc.report import write_report
from malp_disc.run_folder.arms import FURTHER
from malp_disc.run_folder.experiment import training_settings
from malp_disc.run_folder.measurement import Content, Distance, Measurement, Network
from malp_disc.run_folder.schema import read_features, read_measurements
from malp_disc.serialization.state_dicts import save_tensors
from recipes import evaluate
from tests.tiny import coloured_share, tiny_malp, with_rectangles

SMALL = {"image_size": 32, "train_size": 64, "test_size": 24}


@pytest.fixture
def evaluator(tmp_path):
    config, cpu = EvaluationConfig(extractor="faces", eval_size=24, reference_size=48, smaller_views=(2, 4), **SMALL), torch.device("cpu")
    models = make_evaluation_models(config, ("Black_Hair", "Blond_Hair", "Brown_Hair", "Smiling", "Eyeglasses"), cpu)
    return make_evaluator(config, models, tiny_malp().eval(), tmp_path / "run", cpu)


def darker(images, target):
    return images * 0.8 - 0.1


def test_other_images_under_the_same_names_are_refused(evaluator):
    evaluator.measure_reference_points()
    evaluator.check_same_images()
    images = evaluator.inputs.images.clone()
    evaluator.inputs.images[3] = -images[3]
    with pytest.raises(ValueError, match="measured on other held-out images than there are now"):
        evaluator.check_same_images()
    evaluator.inputs.images.copy_(images)
    evaluator.reference = dataclasses.replace(evaluator.reference, sha256="0" * 16)
    with pytest.raises(ValueError, match="measured on other real images than there are now"):
        evaluator.check_same_images()


def test_arms_of_several_seeds_become_one_report(evaluator, tmp_path):
    weights = tmp_path / "G-cotrain.safetensors"
    weights.write_bytes(b"weights")
    evaluator.measure_reference_points()
    evaluator.measure("before", lambda x, t: with_rectangles(x), steps=0)
    for seed in (0, 1):
        assert evaluator.measured(seed=seed) == ["before"]
        evaluator.measure("control", darker, seed=seed, steps=2, seconds=1.5)
        evaluator.quick_distance("cotrain", 1, darker, seed=seed)
        fresh = tiny_malp(3).eval() if seed else None
        evaluator.measure("cotrain", lambda x, t, s=seed: x * (0.9 + 0.02 * s), seed=seed, weights=weights, fresh=fresh)
        assert evaluator.measured(seed=seed) == ["before", "control", "cotrain"]
    runs = read_measurements(evaluator.folder)
    assert {seed: list(arms) for seed, arms in runs.items()} == {0: ["before", "control", "cotrain"], 1: ["control", "cotrain"]}
    assert runs[1]["cotrain"].localization_fresh.cs is not None and runs[0]["cotrain"].localization_fresh.cs is None
    assert runs[1]["cotrain"].weights.file == "G-cotrain.safetensors" and len(runs[1]["cotrain"].weights.sha256) == 64
    for view, dims in {"frechet": 96, "second": 96, "frechet_2x": 96, "frechet_4x": 96}.items():
        assert read_features(evaluator.folder, "cotrain", seed=1, view=view).shape == (24, dims)
        assert read_features(evaluator.folder, "reference", view=view).shape == (48, dims)
    assert len((evaluator.folder / "quality.jsonl").read_text().splitlines()) == 2
    record = write_report(evaluator.folder, resamples=10)
    assert record.seeds == (0, 1) and record.delta("cotrain").count == 2
    assert set(record.verdicts) == {"cotrain"}
    assert record.verdict.split(".")[0] in (evaluator.folder / "report.html").read_text()
    assert all(coloured_share(evaluator.folder / name) > 0.001 for name in ("samples.png", "fakeness.png", "spectrum.png"))


def test_the_same_arm_and_seed_again_replaces_its_line_and_its_features(evaluator):
    evaluator.measure("control", darker, seed=2)
    first = read_features(evaluator.folder, "control", seed=2)
    evaluator.measure("control", lambda x, t: -x, seed=2)
    evaluator.measure("control", darker, seed=3)
    lines = [json.loads(line) for line in (evaluator.folder / "measurements.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["arm"]) for line in lines] == [(2, "control"), (3, "control")]
    assert not np.allclose(read_features(evaluator.folder, "control", seed=2), first)
    assert np.allclose(read_features(evaluator.folder, "control", seed=3), first)


def test_what_is_told_of_the_training_and_the_scores_of_single_images_are_kept(evaluator):
    teachers = (Network("squeezenet1_0", "0123456789abcdef"),)
    evaluator.measure("cotrain", darker, seed=1, steps=7, seconds=1.5, skipped=2, experiment="abc", teachers=teachers)
    line = read_measurements(evaluator.folder)[1]["cotrain"]
    assert (evaluator.folder / "gallery" / "1" / "cotrain-edited.png").exists() and not (evaluator.folder / "gallery" / "0" / "cotrain-edited.png").exists()
    assert (line.steps, line.seconds, line.skipped, line.experiment, line.teachers) == (7, 1.5, 2, "abc", teachers)
    assert evaluator.recorded_experiment() is None, "that of before alone"
    evaluator.measure("before", darker, experiment="abc")
    assert evaluator.recorded_experiment() == "abc"
    for score, mean in (("edit_accuracy", line.edit_accuracy), ("content", line.content.value), ("perfect_edit", line.perfect_edit)):
        assert read_features(evaluator.folder, "cotrain", seed=1, view=score).mean() == pytest.approx(mean, rel=1e-4), score


def test_a_diverged_generator_leaves_a_line_and_no_features(evaluator, caplog):
    evaluator.measure("cotrain", lambda x, t: x * float("nan"), seed=1, steps=5)
    line = json.loads((evaluator.folder / "measurements.jsonl").read_text())
    assert line == {"seed": 1, "arm": "cotrain", "diverged": True, "steps": 5}
    assert not (evaluator.folder / "features" / "1").exists()
    assert "not finite" in caplog.text


def test_a_glance_gives_the_distance_and_a_grid_the_fixed_images(evaluator):
    measured = evaluator.measure("control", darker, seed=1)
    assert not torch.equal(evaluator.selection.images[:24], evaluator.inputs.images), "the best step is chosen on other images"
    assert evaluator.quick_distance("control", 5, darker, seed=1) != pytest.approx(measured.frechet.value)
    evaluator.selection = None
    assert evaluator.quick_distance("control", 5, darker, seed=1) == pytest.approx(measured.frechet.value)
    assert evaluator.quick_distance("control", 6, lambda x, t: x * float("nan"), seed=1) == float("inf")
    lines = [json.loads(line) for line in (evaluator.folder / "quality.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["step"], line["frechet"] is None) for line in lines] == [(1, 5, False), (1, 6, True)]
    for seed, path in ((0, "samples/control/000005.png"), (1, "samples/1/control/000005.png")):
        evaluator.grid("control", 5, darker, seed=seed)
        width, height = Image.open(evaluator.folder / path).size
        assert height > 10 * 32 and width > 2 * 32
    evaluator.grid("control", 7, lambda x, t: x * float("nan"))
    assert not (evaluator.folder / "samples" / "control" / "000007.png").exists()


def test_a_grid_of_a_generator_that_takes_the_change_tells_it_the_labels_that_the_images_have(evaluator):
    asked = []

    def unchanged(images, target):
        asked.append(target)
        return images

    unchanged.target_kind = "change"
    evaluator.grid("control", 5, unchanged)
    (change,) = asked
    assert change.any() and torch.equal(change, (evaluator.inputs.targets - evaluator.inputs.labels)[: len(change)])


@pytest.mark.parametrize(
    ("options", "further"),
    [
        ({}, ["FD-random", "FD-faces"]),
        ({"second_extractor": "none", "third_extractor": "none"}, []),
        ({"second_extractor": "faces"}, ["FD-faces"]),
        ({"extractor": "faces"}, ["FD-random"]),
        ({"third_extractor": "squeezenet", "extractor": "faces"}, ["FD-random", "FD-SqueezeNet"]),
    ],
)
def test_the_further_extractors_need_no_file_unless_one_is_chosen(options, further):
    models = make_evaluation_models(EvaluationConfig(**options, **SMALL), ("Smiling",), torch.device("cpu"))
    assert [models.of(view).label for view in FURTHER if models.of(view) is not None] == further
    assert sum(view in FURTHER for view in models.views(64, 64)) == len(further)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"extractor": "faces"}, "FD-SqueezeNet"),
        ({"extractor": "squeezenet"}, None),
        ({"extractor": "faces", "second_extractor": "squeezenet-128"}, None),
        ({"extractor": "faces", "third_extractor": "none"}, None),
        ({"extractor": "squeezenet", "third_extractor": "faces"}, "FD-faces"),
    ],
)
def test_the_third_extractor_of_real_images_is_the_included_squeezenet_where_it_isnt_one_of_the_others(tmp_path, options, label):
    third = make_evaluation_models(EvaluationConfig(**options, data="images", data_root=tmp_path), (), torch.device("cpu")).third
    assert (None if third is None else third.label) == label


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"second_extractor": "squeezenet"}, "--second-extractor is the network of --extractor, squeezenet1_0"),
        ({"third_extractor": "squeezenet-128"}, "--third-extractor is the network of --extractor"),
        ({"third_extractor": "random"}, "--third-extractor is the network of --second-extractor"),
        ({"extractor": "faces", "second_extractor": "faces"}, "--second-extractor is the network of --extractor"),
    ],
)
def test_no_network_is_asked_twice(options, message):
    with pytest.raises(ValueError, match=f"{message}.*: what it shows is no second opinion. Choose another network, or none"):
        make_evaluation_models(EvaluationConfig(**options, **SMALL), ("Smiling",), torch.device("cpu"))


def test_squeezenet_is_taken_where_its_weights_are_given(shared):
    weights = shared("weights/squeezenet1_0/squeezenet1_0_deepcompression_decoded.pth")
    models = make_evaluation_models(EvaluationConfig(extractor="faces", second_weights=weights, **SMALL), ("Smiling",), torch.device("cpu"))
    assert models.second.label == "FD-SqueezeNet"


def test_fresh_malps_are_named_by_their_arm(tmp_path):
    config = evaluate.Config(fresh=("cotrain=runs/malp",))
    assert evaluate.fresh_folders(config, {"before": tmp_path, "cotrain": tmp_path}) == {"cotrain": evaluate.Path("runs/malp")}
    for wrong in ("runs/malp", "control=runs/malp", "cotrain="):
        with pytest.raises(ValueError, match="ARM=FOLDER with an arm that is measured"):
            evaluate.fresh_folders(evaluate.Config(fresh=(wrong,)), {"before": tmp_path, "cotrain": tmp_path})


def test_a_tuned_generators_file_names_its_teachers(tmp_path):
    teachers = [{"backbone": "squeezenet1_0", "fingerprint": "0123456789abcdef"}]
    save_tensors(tmp_path / "G-vision_aided.safetensors", {"weight": torch.ones(1)}, {"malp_disc": json.dumps({"arm": "vision_aided", "teachers": teachers})})
    save_tensors(tmp_path / "G.safetensors", {"weight": torch.ones(1)})
    torch.save({"weight": torch.ones(1)}, tmp_path / "G.pth")
    assert evaluate.teachers_in(tmp_path / "G-vision_aided.safetensors") == (Network(**teachers[0]),)
    assert [evaluate.teachers_in(path) for path in (tmp_path / "G.safetensors", tmp_path / "G.pth", tmp_path / "model-500", None)] == [()] * 4


def test_the_log_has_the_content_of_images_without_attributes(caplog):
    measured = Measurement(attributes=0, content=Content(0.91), frechet=Distance("FID-768", 0.5, 10), identity_l1=0.1)
    for line, words in ((measured, "control: FID-768 0.50 (n = 10), content 0.910, mean"), (dataclasses.replace(measured, attributes=5), "edit accuracy not measured")):
        with caplog.at_level(logging.INFO, logger="malp_disc"):
            _log_summary("control", line)
        assert words in caplog.messages[-1]


def test_images_that_a_generator_was_fine_tuned_on_are_not_held_out(tmp_path):
    for index in range(6):
        Image.new("L", (16, 16), 10 * index).save(tmp_path / f"{index}.png")
    config = evaluate.Config(data="images", data_root=tmp_path, image_size=16, test_size=3)
    tuned = tmp_path / "G-control.safetensors"
    save_tensors(tuned, {"weight": torch.ones(1)}, {"malp_disc": json.dumps({"settings": training_settings(config)})})
    evaluate.check_held_out(config, {"before": None, "control": tuned})
    evaluate.check_held_out(dataclasses.replace(config, test_size=2), {"control": tuned})
    evaluate.check_held_out(dataclasses.replace(config, test_size=4, data_root=tmp_path / "elsewhere"), {"control": tuned})
    with pytest.raises(ValueError, match="G-control.safetensors was fine-tuned with --test-size 3: of the 4 images that are held out here, it was trained on some"):
        evaluate.check_held_out(dataclasses.replace(config, test_size=4), {"control": tuned})


def test_a_generator_for_another_number_of_attributes_is_refused():
    held_out = build_dataset(DataOptions(**SMALL, selected_attributes=("Smiling", "Bangs")), "test")
    check_same_attributes(held_out, 2, "G.safetensors")
    with pytest.raises(ValueError, match=r"^G.safetensors takes 5 attributes, but 2 are selected \(Smiling Bangs\); give --selected-attributes"):
        check_same_attributes(held_out, 5, "G.safetensors")
    with pytest.raises(ValueError, match="^the shipped generator takes 5 attributes, but 2 are selected; give --selected-attributes"):
        load_generator(GeneratorOptions(), attributes=2)
    assert load_generator(GeneratorOptions(), attributes=5).c_dim == 5


@pytest.mark.parametrize("name", ["none", "random"])
@pytest.mark.parametrize("which", ["second", "third"])
def test_weights_for_an_extractor_that_takes_none_are_refused(which, name):
    config = EvaluationConfig(extractor="faces", **SMALL, **{f"{which}_extractor": name, f"{which}_weights": Path("nosuch")})
    with pytest.raises(ValueError, match=f"--{which}-weights nosuch has no effect with --{which}-extractor {name}; leave it out"):
        make_evaluation_models(config, ("Smiling",), torch.device("cpu"))
