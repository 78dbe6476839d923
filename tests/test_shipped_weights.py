"""The shipped checkpoints give the numbers that the documentation quotes (docs/results/faces/shipped.jsonl, read here so that they can't part)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from generators import create_generator
from generators.stargan import stargan_discriminator
from malp_disc import MaLP
from malp_disc.data import DataOptions, build_dataset
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.evaluation_models import EvaluationConfig, make_evaluation_models
from malp_disc.evaluation.localize import measure_malp
from malp_disc.evaluation.measure import measure_arm, measure_reference
from malp_disc.metrics.features import create_extractor
from malp_disc.run_folder.measurement import Measurement
from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_GENERATOR, FACES_MALP

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def quoted() -> dict:
    return json.loads((ROOT / "docs" / "results" / "faces" / "shipped.jsonl").read_text())


@pytest.fixture(scope="module")
def measured(quoted) -> Measurement:
    config = EvaluationConfig(extractor="faces", second_extractor="none", smaller_views=())
    held_out = build_dataset(config, "test")
    malp = MaLP.from_pretrained(FACES_MALP).eval().requires_grad_(False)
    models = dataclasses.replace(make_evaluation_models(config, held_out.attribute_names, torch.device("cpu")), malp=malp)
    inputs = EvalSet.take(held_out, quoted["frechet"]["n"])
    reference = measure_reference(build_dataset(config, "reference"), quoted["frechet"]["reference_n"], models)
    return measure_arm(create_generator("stargan", FACES_GENERATOR).manipulate, inputs, reference, models)[0]


def test_the_frechet_distance_before_is_the_quoted_one(measured, quoted):
    assert measured.frechet.label == quoted["frechet"]["label"] == "FD-faces"
    assert measured.frechet.value == pytest.approx(quoted["frechet"]["value"], rel=0.01)


def test_the_edits_are_the_quoted_ones(measured, quoted):
    assert measured.edit_accuracy == pytest.approx(quoted["edit_accuracy"], abs=0.005)
    assert measured.identity_l1 == pytest.approx(quoted["identity_l1"], rel=0.01)


def test_malp_localizes_as_quoted_and_beats_a_constant_map(measured, quoted):
    scores = measured.localization
    for name in ("cs", "cs_constant", "pearson", "ssim"):
        assert getattr(scores, name) == pytest.approx(quoted["localization"][name], abs=0.01), name
    assert scores.cs > scores.cs_constant + 0.05
    assert measured.detection.auc >= 0.999


def test_the_shipped_discriminator_fits_the_generator():
    generator, discriminator = create_generator("stargan", FACES_GENERATOR), stargan_discriminator(FACES_DISCRIMINATOR)
    assert discriminator.c_dim == generator.c_dim and discriminator.image_size == 64


def test_the_shipped_feature_net_is_not_called_fid():
    assert create_extractor("faces").label == "FD-faces"


def test_malp_on_real_faces_localizes_as_quoted(shared):
    """docs/results/localizer-probe.jsonl, part generators, the generator it was trained on, seed 0: made again from the weights and the images."""
    lines = [json.loads(line) for line in (ROOT / "docs" / "results" / "localizer-probe.jsonl").read_text().splitlines()]
    (quoted,) = (line for line in lines if (line["part"], line["name"], line["seed"], line["case"]) == ("generators", "MaLP", 0, "stargan (trained on)"))
    folder = shared("data/celeba_aligned_89x109")
    names = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
    data = DataOptions(data="folder", data_root=folder / "images", attributes=folder / "list_attr.csv", selected_attributes=names, crop_size=89)
    generator = create_generator("stargan", ROOT / "weights" / "celeba64" / "G.safetensors").eval().requires_grad_(False)
    malp = MaLP.from_pretrained(ROOT / "weights" / "celeba64" / "malp").eval()
    held = build_dataset(data, "test")
    by_path = sorted(range(len(held)), key=held.paths.__getitem__)  # the order at that time
    held.paths, held.labels = [held.paths[row] for row in by_path], held.labels[by_path]
    measured = measure_malp(generator.manipulate, EvalSet.take(held, quoted["n"]), malp)
    for name in ("cs", "cs_constant", "pearson", "pearson_mean_map", "ssim"):
        assert getattr(measured.localization, name) == pytest.approx(quoted["localization"][name], abs=0.01), name
    assert measured.detection.auc == pytest.approx(quoted["detection"]["auc"], abs=0.005)
    assert measured.encrypted_psnr == pytest.approx(quoted["encrypted_psnr"], abs=0.1)
