"""What is measured of generators whose answer is known: one that does nothing, one that blurs, one that paints a checkerboard, one that
diverged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from malp_disc.data.faces import DEFAULT_SELECTION, ProceduralFaces, draw_faces
from malp_disc.evaluation.eval_set import BATCH, EvalSet
from malp_disc.evaluation.feature_views import downsample_antialiased
from malp_disc.evaluation.gallery import draw_arm
from malp_disc.evaluation.measure import (
    EvaluationModels,
    measure_arm,
    measure_frechet,
    measure_reference,
    measure_reference_points,
)
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.kid import kernel_distance
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.run_folder.measurement import Content, Measurement, ReferencePoints
from malp_disc.serialization.typed_json import from_json, to_json
from malp_disc.ssim import structural_similarity
from tests.tiny import tiny_malp, with_rectangles

COUNT = 40


class Faces(torch.utils.data.Dataset):
    """Drawn faces of 32 pixels from a number on."""

    attribute_names = tuple(DEFAULT_SELECTION)
    description = "drawn faces"

    def __init__(self, first: int, count: int) -> None:
        self.images, self.labels = draw_faces(range(first, first + count), 32)[:2]
        self.labels = self.labels[:, : len(self.attribute_names)].float()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.images[i], self.labels[i]


class Mean(nn.Module):
    """An "extractor" of 6 numbers, and an "attribute classifier": mean and deviation of every channel."""

    label, name, resize, dims, backbone, fingerprint = "FD-means", "means", "none", 6, "means", "0"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


class Brightness(nn.Module):
    """Reads attribute 0 as present in bright images, and the others never."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = -torch.ones(len(images), len(Faces.attribute_names))
        logits[:, 0] = images.mean(dim=(1, 2, 3))
        return logits


@pytest.fixture(scope="module")
def evaluator():
    malp = tiny_malp().eval()
    models = EvaluationModels(Mean(), Brightness(), malp, RandomExtractor(), third=Mean())
    inputs = EvalSet.take(Faces(0, COUNT), COUNT)
    reference = measure_reference(Faces(1000, 60), 60, models)
    return inputs, reference, models


def test_a_generator_that_does_nothing_is_as_far_as_the_unedited_inputs(evaluator):
    inputs, reference, models = evaluator
    reference_points, unedited = measure_reference_points(inputs, reference, models)
    measured, evidence = measure_arm(lambda x, _: x, inputs, reference, models)
    assert measured.frechet.value == pytest.approx(reference_points.unedited.value, rel=1e-6)
    for view in ("second", "third", "frechet_2x", "frechet_4x"):
        assert measured.distance(view).value == pytest.approx(reference_points.points(view).unedited.value, rel=1e-6)
    assert measured.spectrum == reference_points.spectrum
    assert (measured.identity_l1, measured.leakage) == (0, 0)
    assert measured.content == Content(pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01)) and measured.attributes == 5
    assert unedited.keys() == evidence.features.keys() and all(np.array_equal(unedited[view], evidence.features[view]) for view in unedited)
    assert measured.ssim_to_input == pytest.approx(1) and measured.psnr_to_input is None
    assert measured.edit_accuracy == reference_points.edit_accuracy
    assert {view: features.shape for view, features in evidence.features.items()} == {
        "frechet": (COUNT, 6), "second": (COUNT, 96), "third": (COUNT, 6), "frechet_2x": (COUNT, 6), "frechet_4x": (COUNT, 6),
    }  # fmt: skip


def test_the_real_split_compares_one_half_of_the_reference_with_the_other(evaluator):
    inputs, reference, models = evaluator
    points, _ = measure_reference_points(inputs, reference, models)
    for view, features in reference.features.items():
        assert points.points(view).real_split.value == pytest.approx(frechet_distance(features[:30], features[30:]), rel=1e-6), view
        assert points.points(view).real_split.value > 1e-4, "a half has a distance from the other, unlike from itself"
    assert points.kid.real_split.value == pytest.approx(kernel_distance(*np.array_split(reference.features["frechet"], 2)[::-1])[0])


def test_what_is_measured_has_the_shape_that_the_folder_promises(evaluator):
    inputs, reference, models = evaluator
    measured, _ = measure_arm(lambda x, _: with_rectangles(x), inputs, reference, models, fresh=models.malp)
    assert from_json(Measurement, json.loads(json.dumps(to_json(measured, sparse=True))), "measured") == measured
    reference_points, unedited = measure_reference_points(inputs, reference, models)
    assert from_json(ReferencePoints, json.loads(json.dumps(to_json(reference_points, sparse=True))), "reference_points") == reference_points
    assert measured.localization_fresh == measured.localization
    absent = {name for name, value in to_json(measured).items() if to_json({"value": value}, sparse=True) == {}}
    assert absent == {"identity", "perfect_edit", "weights", "steps", "seconds", "skipped", "experiment", "teachers", "diverged"}
    described = measured.frechet_2x
    assert (described.label, described.n, described.dims, described.reference_n) == ("FD-means at 1/2 size", COUNT, 6, 60)
    assert described.resize == "antialiased downsampling by 2, then none"


def test_the_distance_is_that_of_the_features_in_every_view(evaluator):
    inputs, reference, models = evaluator
    measured, evidence = measure_arm(lambda x, _: with_rectangles(x), inputs, reference, models)
    for view, features in evidence.features.items():
        assert measured.distance(view).value == pytest.approx(frechet_distance(reference.features[view], features))
    small = Mean()(downsample_antialiased(evidence.edited, 2)).numpy()
    assert evidence.features["frechet_2x"] == pytest.approx(small, abs=1e-6)
    assert measure_frechet(lambda x, _: with_rectangles(x), inputs, reference, models.extractor) == pytest.approx(
        measured.frechet.value
    )


def test_the_perfect_edits_are_what_a_perfect_generator_makes(evaluator):
    _, reference, models = evaluator
    faces = ProceduralFaces(COUNT, image_size=32)
    inputs = EvalSet.take(faces, COUNT)
    assert torch.equal(inputs.first(5).perfect, faces.perfect_edits(range(5), inputs.targets[:5]))
    models = dataclasses.replace(models, malp=None)
    copied = iter(inputs.perfect.split(BATCH))
    perfect, evidence = measure_arm(lambda x, _: next(copied), inputs, reference, models)
    assert perfect.perfect_edit == 0 and evidence.scores["perfect_edit"].shape == (COUNT, 1)
    unedited, evidence = measure_arm(lambda x, _: x, inputs, reference, models)
    assert unedited.perfect_edit == pytest.approx(np.mean(evidence.scores["perfect_edit"])) == measure_reference_points(inputs, reference, models)[0].perfect_edit
    assert unedited.perfect_edit == pytest.approx((inputs.images - inputs.perfect).abs().mean().item())


def test_psnr_is_that_of_the_mean_square(evaluator):
    inputs, reference, models = evaluator
    darkest = dataclasses.replace(inputs, images=inputs.images.clamp(min=-0.5))
    measured, _ = measure_arm(lambda x, _: x - 0.2, darkest, reference, dataclasses.replace(models, malp=None, second=None, smaller=()))
    assert measured.psnr_to_input == pytest.approx(20, abs=1e-3), "10 log10(2² / 0.2²)"


def test_a_blur_is_seen_in_texture_and_hardly_in_structure(evaluator):
    inputs, reference, models = evaluator
    blurred, _ = measure_arm(
        lambda x, _: nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1), inputs, reference, models
    )
    same, _ = measure_arm(lambda x, _: x, inputs, reference, models)
    assert blurred.spectrum.fine < 0.2 < 0.7 < same.spectrum.fine
    assert blurred.second.value > 2 * same.second.value
    assert blurred.frechet_4x.value < 1.5 * same.frechet_4x.value + 1e-3


def test_a_faint_checkerboard_shows_at_nyquist(evaluator):
    inputs, reference, models = evaluator
    board = 0.06 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1)
    measured, _ = measure_arm(lambda x, _: (x + board).clamp(-1, 1), inputs, reference, models)
    assert measured.spectrum.nyquist > 3
    assert measured.frechet_2x.value == pytest.approx(
        measure_arm(lambda x, _: x, inputs, reference, models)[0].frechet_2x.value, rel=0.1
    )


def test_what_changes_unasked_is_leakage(evaluator):
    """Everything turns black: attribute 0 is read as gone wherever it was read as there."""
    inputs, reference, models = evaluator
    measured, _ = measure_arm(lambda x, _: torch.full_like(x, -1.0), inputs, reference, models)
    bright = inputs.images.mean(dim=(1, 2, 3)) > 0
    asked = (inputs.targets != inputs.labels)[:, 0]
    assert measured.leakage_per_attribute[Faces.attribute_names[0]] == pytest.approx(bright[~asked].double().mean().item())
    assert measured.leakage_per_attribute[Faces.attribute_names[1]] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_generator_that_diverged_is_said_to_and_nothing_is_measured(evaluator, bad):
    inputs, reference, models = evaluator

    def one_pixel(x, _):
        x[-1, 0, 0, 0] = bad
        return x

    for manipulate in (one_pixel, lambda x, _: torch.full_like(x, bad)):
        measured, evidence = measure_arm(manipulate, inputs, reference, models)
        assert measured == Measurement(diverged=True)
        assert evidence.features == {}
        assert measure_frechet(manipulate, inputs, reference, models.extractor) is None


def test_a_generator_that_diverges_on_encrypted_images_only_has_diverged(evaluator):
    inputs, reference, models = evaluator
    known = {image.sum().item() for image in inputs.images}
    measured, _ = measure_arm(lambda x, _: x if x[0].sum().item() in known else x / 0, inputs, reference, models)
    assert measured == Measurement(diverged=True)


def test_a_generator_whose_values_leave_the_range_is_measured_and_drawn_as_if_clamped(evaluator):
    """A fine-tuned one without a tanh may, after all of its training."""
    inputs, reference, models = evaluator
    drifted, clamped = (lambda x, _: 1.5 * x), (lambda x, _: (1.5 * x).clamp(-1, 1))
    assert measure_arm(drifted, inputs, reference, models)[0] == measure_arm(clamped, inputs, reference, models)[0]
    strips, expected = (draw_arm(manipulate, inputs, models.malp) for manipulate in (drifted, clamped))
    assert all(torch.equal(strips[kind][0], expected[kind][0]) for kind in expected)


def test_scores_of_single_images_have_the_measured_means(evaluator):
    inputs, reference, models = evaluator
    measured, evidence = measure_arm(lambda x, _: with_rectangles(x), inputs, reference, models)
    assert evidence.scores["edit_accuracy"].shape == evidence.scores["content"].shape == (COUNT, 1), "every input has a request"
    assert evidence.scores["edit_accuracy"].mean() == pytest.approx(measured.edit_accuracy)
    assert (evidence.scores["content"].mean(), evidence.scores["content"].std(ddof=1)) == pytest.approx((measured.content.value, measured.content.std))
    assert set(np.unique(evidence.scores["edit_accuracy"])) <= {0.0, 1.0}


def test_another_classifier_reads_the_inputs_again(evaluator):
    """Its logits of the inputs are kept with them, for the next arm."""
    inputs, reference, models = evaluator
    dark = dataclasses.replace(models, classifier=nn.Sequential(Brightness(), nn.Threshold(2, -1)), malp=None)
    bright = dataclasses.replace(dark, classifier=nn.Sequential(Brightness(), nn.Threshold(2, 1)))
    found = [measure_reference_points(inputs, reference, models)[0].kept_accuracy for models in (dark, bright, dark)]
    assert found[0] == found[2] == pytest.approx(1 - found[1]) and found[0] != 0.5, "one sees no attribute anywhere, the other all"


def test_similarity_to_the_input_is_ssim_on_the_range_of_images(evaluator):
    inputs, reference, models = evaluator
    alone = dataclasses.replace(models, classifier=None, malp=None, second=None, third=None, smaller=())
    measured, evidence = measure_arm(lambda x, _: with_rectangles(x), inputs, reference, alone)
    assert measured.ssim_to_input == pytest.approx(structural_similarity(evidence.edited, inputs.images, data_range=2.0).mean().item(), rel=1e-5)


def test_what_is_kept_of_malp_is_what_it_says_of_the_edited_images(evaluator):
    inputs, reference, models = evaluator
    measured, evidence = measure_arm(lambda x, _: with_rectangles(x), inputs, reference, models)
    assert evidence.predictions.map.mean().item() == pytest.approx(measured.localization.mean_manipulated) != measured.localization.mean_encrypted
    points, _ = measure_reference_points(inputs, reference, models)
    assert points.encrypted_psnr == pytest.approx(measured.encrypted_psnr) and points.key_fingerprint == models.malp.key_fingerprint
    passive, _ = measure_reference_points(inputs, reference, dataclasses.replace(models, malp=tiny_malp(strength=0.0).eval()))
    assert passive.encrypted_psnr is None and passive.key_fingerprint is None


def test_the_reference_says_how_many_images_it_has(evaluator):
    assert measure_reference(Faces(1000, 60), 50, dataclasses.replace(evaluator[2], second=None)).text == "drawn faces, n = 50"


def test_each_extractor_but_the_first_may_be_absent(evaluator):
    inputs, reference, models = evaluator
    alone = dataclasses.replace(models, classifier=None, malp=None, second=None, third=None, smaller=())
    measured, evidence = measure_arm(lambda x, _: x, inputs, reference, alone)
    assert list(evidence.features) == ["frechet"] and evidence.manipulated is None
    assert not {"second", "third", "frechet_2x", "edit_accuracy", "localization", "identity"} & to_json(measured, sparse=True).keys()


def test_one_smaller_size_is_enough(evaluator):
    inputs, reference, models = evaluator
    _, evidence = measure_arm(lambda x, _: x, inputs, reference, dataclasses.replace(models, second=None, smaller=(2,)))
    assert list(evidence.features) == ["frechet", "third", "frechet_2x"]


class Counting(Mean):
    """Counts the images it is shown."""

    shown = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown += len(images)
        return super().forward(images)


def test_kept_features_of_the_reference_are_taken_again_only_for_these_images_and_extractors(tmp_path):
    cache, faces = tmp_path / "features" / "reference.npz", Faces(1000, 60)

    def measured(dataset=faces, count=60, **changed):
        models = dataclasses.replace(EvaluationModels(Counting(), None, None, RandomExtractor(), smaller=(2,)), **changed)
        return measure_reference(dataset, count, models, cache=cache), models.extractor.shown

    first, shown = measured()
    assert shown == 2 * 60, "full and half size"
    again, shown = measured()
    assert shown == 0 and again.sha256 == first.sha256 and again.text == first.text
    assert np.array_equal(again.power, first.power)
    assert again.features.keys() == first.features.keys()
    assert all(np.array_equal(again.features[view], first.features[view]) for view in first.features), "the second extractor is fitted again"
    for other in ({"dataset": Faces(1001, 60)}, {"count": 59}, {"smaller": (2, 4)}, {"second": None}, {"third": RandomExtractor()}):
        assert measured(**other)[1] > 0, other
        measured()  # back to what it was
    named = Counting()
    named.name = "others"
    assert measured(extractor=named)[1] > 0, "another extractor"
    measured()
    cache.write_bytes(cache.read_bytes()[:-100])
    assert measured()[1] == 2 * 60, "a damaged file is made again"
    assert measured()[1] == 0


def test_an_embedding_recognises_the_person(evaluator):
    inputs, reference, models = evaluator
    embedding = Mean()
    measured, _ = measure_arm(lambda x, _: -x, inputs, reference, dataclasses.replace(models, embedding=embedding))
    assert measured.identity.name == "means"
    assert -1 <= measured.identity.value < 1


def test_another_malp_gives_other_scores(evaluator):
    inputs, reference, models = evaluator
    first, second = (
        measure_arm(lambda x, _: with_rectangles(x), inputs, reference, models, fresh=malp)[0].localization_fresh.cs
        for malp in (models.malp, tiny_malp(5).eval())
    )
    assert first != second


def test_smaller_images_are_antialiased_means():
    """Halving averages: a pixel-wise checkerboard vanishes, a flat image stays."""
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1).expand(1, 3, 16, 16)
    assert downsample_antialiased(board, 2)[..., 2:-2, 2:-2].abs().max() < 1e-6
    assert downsample_antialiased(torch.full((1, 3, 16, 16), 0.3), 4).shape == (1, 3, 4, 4)
    assert downsample_antialiased(board, 1) is board
