"""The shipped checkpoints give the numbers that the documentation quotes (docs/results/faces/, read here so that they can't part).

By default they are measured on the first 200 of the 1,000 held-back images, and compared with what the same code and weights gave on these when the quoted
numbers were measured (``shipped_weights.json``), at tolerances tighter than those of the quoted numbers: whatever moves one moves the other. With ``-m slow``
all images are measured and compared with the quoted numbers themselves. New weights need new documentation and ``python -m tests.test_shipped_weights``.
"""

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
from malp_disc.evaluation.evaluator import EvaluationOptions, make_evaluation_models
from malp_disc.evaluation.localize import measure_malp
from malp_disc.evaluation.measure import measure_arm, measure_reference
from malp_disc.metrics.features import create_extractor
from malp_disc.serialization.files import write_json
from malp_disc.shipped import FACES_DISCRIMINATOR, FACES_GENERATOR, FACES_MALP

ROOT = Path(__file__).resolve().parents[1]
FIRST = Path(__file__).with_name("shipped_weights.json")
LOCALIZATION = ("cs", "cs_constant", "pearson", "ssim")


def quoted() -> dict:
    lines = (ROOT / "docs" / "results" / "faces" / "measurements.jsonl").read_text().splitlines()
    return next(line for line in map(json.loads, lines) if line["arm"] == "before")


def measure(share: float) -> dict:
    """The shipped generator and MaLP on the first of the held-back images, against the first of the reference images."""
    data, options = DataOptions(), EvaluationOptions(second_extractor="none", smaller_views=())
    held_out = build_dataset(data, "test")
    malp = MaLP.from_pretrained(FACES_MALP).eval().requires_grad_(False)
    models = dataclasses.replace(make_evaluation_models(options, data, held_out.attribute_names, torch.device("cpu")), malp=malp)
    inputs = EvalSet.take(held_out, round(share * options.eval_size))
    reference = measure_reference(build_dataset(data, "reference"), round(share * options.reference_size), models)
    return measure_arm(create_generator("stargan", FACES_GENERATOR).manipulate, inputs, reference, models)[0]


@pytest.mark.parametrize("share", [pytest.param(0.2, id="first 200"), pytest.param(1.0, id="all, as quoted", marks=pytest.mark.slow)])
def test_the_numbers_are_the_quoted_ones(share):
    measured, expected = measure(share), quoted() if share == 1 else json.loads(FIRST.read_text())
    assert measured["frechet"]["label"] == expected["frechet"]["label"] == "FD-faces"
    assert measured["frechet"]["n"] == expected["frechet"]["n"] and measured["frechet"]["reference_n"] == expected["frechet"]["reference_n"]
    assert measured["frechet"]["value"] == pytest.approx(expected["frechet"]["value"], rel=0.01 * share)
    assert measured["edit_accuracy"] == pytest.approx(expected["edit_accuracy"], abs=0.0051)  # of 200 images, one
    assert measured["identity_l1"] == pytest.approx(expected["identity_l1"], rel=0.01 * share)
    scores = measured["localization"]
    for name in LOCALIZATION:
        assert scores[name] == pytest.approx(expected["localization"][name], abs=0.01 * share), name
    assert scores["cs"] > scores["cs_constant"] + 0.05, "MaLP beats a constant map"
    assert measured["detection"]["auc"] >= 0.999


def test_the_first_images_give_about_what_all_give():
    """So that shipped_weights.json can't be of other weights than the quoted numbers."""
    first, of_all = json.loads(FIRST.read_text()), quoted()
    assert first["edit_accuracy"] == pytest.approx(of_all["edit_accuracy"], abs=0.05)
    assert first["identity_l1"] == pytest.approx(of_all["identity_l1"], rel=0.05)
    for name in LOCALIZATION:
        assert first["localization"][name] == pytest.approx(of_all["localization"][name], abs=0.02), name


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
    measured = measure_malp(generator.manipulate, EvalSet.take(build_dataset(data, "test"), quoted["n"]), malp)
    for name in ("cs", "cs_constant", "pearson", "pearson_mean_map", "ssim"):
        assert measured["localization"][name] == pytest.approx(quoted["localization"][name], abs=0.01), name
    assert measured["detection"]["auc"] == pytest.approx(quoted["detection"]["auc"], abs=0.005)
    assert measured["encrypted_psnr"] == pytest.approx(quoted["encrypted_psnr"], abs=0.1)


if __name__ == "__main__":
    found = measure(0.2)
    write_json(FIRST, {
        "frechet": {name: found["frechet"][name] for name in ("label", "value", "n", "reference_n")},
        "edit_accuracy": found["edit_accuracy"],
        "identity_l1": found["identity_l1"],
        "localization": {name: found["localization"][name] for name in LOCALIZATION},
    })  # fmt: skip
