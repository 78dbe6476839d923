"""Proactive image manipulation detection (CVPR 2022): the authors' own outputs, their scales, and their checkpoints."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from malp_disc import MaLP
from malp_disc.official.proactive_imd import ImageClassifier, ProactiveIMD, RecoveryEncoder
from tests.golden.__main__ import main
from tests.golden.authors_arithmetic import imd_metric
from tests.golden.seeded import fill, image
from tests.tiny import sample_images

GOLDENS = Path(__file__).resolve().parent / "golden" / "data"


def packed(count: int = 4) -> dict:
    """A checkpoint as their train.py packs it."""
    encoder = RecoveryEncoder()
    fill(encoder)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1e-5).state_dict()
    templates = torch.rand(count, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    return {"state_dict_encoder2": encoder.state_dict(), "optimizer_2": optimizer, "state_dict_signal_set": {"A": templates}, "optimizer_3": optimizer}


def loaded(folder: Path, content: dict, **options) -> ProactiveIMD:
    torch.save(content, folder / "39_model.pickle")
    return ProactiveIMD.from_official(folder / "39_model.pickle", **options)


def test_the_networks_and_the_arithmetic_reproduce_the_authors_numbers():
    names = ["proactive_imd_encoder1", "proactive_imd_encoder2", "proactive_imd_losses"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main([str(GOLDENS), "proactive_imd_*"])
    assert out.getvalue().splitlines() == [f"PASS {name}" for name in names] + ["3 passed, 0 failed"] and status == 0


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_checkpoint_loads_and_recovers_as_the_authors(tmp_path, count, prefix):
    content = packed(count)
    content["state_dict_encoder2"] = {prefix + key: value for key, value in content["state_dict_encoder2"].items()}
    imd = loaded(tmp_path, content)
    assert not imd.training and imd.strength == 0.3
    assert torch.equal(imd.templates, content["state_dict_signal_set"]["A"])
    with torch.no_grad():
        recovered = imd.recover(image("x", (2, 3, 128, 128)))
    assert torch.allclose(recovered[..., ::2, ::2], torch.from_numpy(np.load(GOLDENS / "proactive_imd_encoder2.npz")["out/signal"]), atol=1e-5)


def test_the_score_is_their_metric_the_largest_of_the_set(tmp_path):
    imd, images = loaded(tmp_path, packed(3)), sample_images(2, 128, 128)
    with torch.no_grad():
        expected = imd_metric(imd.templates, 0.3, imd.recover(images), imd.recover(images))[..., 0].amax(1)
        assert torch.allclose(imd.score(images), expected, atol=1e-5) and torch.equal(imd(images), imd.score(images))


def test_a_dead_encoder_scores_zero():
    imd = ProactiveIMD(2).eval()
    with torch.no_grad():
        imd.encoder.layer_2[1].weight.zero_(), imd.encoder.layer_2[1].bias.fill_(-1.0)
        assert torch.equal(imd.score(sample_images(2, 128, 128)), torch.zeros(2))


def test_a_template_is_added_on_the_normalized_scale():
    """((x + 1)/2 − 0.6490)/0.1269 + m·A, and back."""
    imd, images, index = ProactiveIMD(3, strength=0.08), sample_images(2, 128, 128), torch.tensor([2, 0])
    encrypted, again = imd.encrypt(images, index)
    assert torch.equal(index, again) and encrypted.shape == images.shape
    difference = imd.normalized(encrypted) - imd.normalized(images)
    assert torch.allclose(difference, (0.08 * imd.templates[index]).expand_as(images), atol=1e-5)
    assert torch.allclose(imd.normalized(torch.full((1, 3, 2, 2), 2 * 0.6490 - 1)), torch.zeros(1, 3, 2, 2), atol=1e-5)
    assert imd.encrypt(torch.ones(1, 3, 128, 128))[0].max() == 1


def test_other_sizes_are_resampled_by_nearest_neighbour():
    imd, images = ProactiveIMD().eval(), sample_images(2, 256, 256)
    encrypted, _ = imd.encrypt(images)
    step = (encrypted - images)[:, :, ::2, ::2]
    assert torch.allclose((encrypted - images)[:, :, 1::2, 1::2], step, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(imd.recover(images), imd.recover(images[:, :, ::2, ::2]))


def test_the_draw_is_over_the_set_and_can_be_seeded():
    imd, images = ProactiveIMD(3), sample_images(12, 128, 128)
    _, index = imd.encrypt(images, generator=torch.Generator().manual_seed(0))
    assert set(index.tolist()) == {0, 1, 2} and torch.equal(index, imd.encrypt(images, generator=torch.Generator().manual_seed(0))[1])
    for wrong in (torch.zeros(2, dtype=torch.long), torch.full((12,), 3), torch.full((12,), -1)):
        with pytest.raises(ValueError, match="index of 12 whole numbers, one per image|template numbers 0 … 2, got"):
            imd.encrypt(images, wrong)


def test_templates_and_encoder_learn_from_the_score():
    imd, images = ProactiveIMD(1), sample_images(2, 128, 128)
    imd.score(imd.normalized(imd.encrypt(images)[0])).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in imd.parameters())
    assert imd.templates.grad.any() and imd.encoder.layers[0][0].weight.grad.any()


def test_the_image_classifier_answers_once_per_image():
    classifier = ImageClassifier().eval()
    with torch.no_grad():
        assert classifier(sample_images(2, 64, 64)).shape == (2,)
        assert classifier.sigmoids(sample_images(1, 128, 128)).shape == (1, 2)
    with pytest.raises(ValueError, match=r"takes \(B, 3, 128, 128\) only, got \(1, 1, 128, 128\)"):
        classifier.sigmoids(torch.zeros(1, 1, 128, 128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state_dict_encoder2": nn.Linear(2, 2).state_dict()}, r"RecoveryEncoder: \d+ missing, first \['layers.0.0.weight'.*unknown, first \['weight', 'bias'\]"),
        ({"state_dict_signal_set": {"A": torch.zeros(4, 128, 128)}}, r"expected one entry A of shape \(set_size, 1, 128, 128\), found \{'A': \(4, 128, 128\)\}"),
        ({"state_dict_signal_set": None}, "its state_dict_signal_set is no state dict, expected tensors by name, found NoneType"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, {**packed(), **change})


def test_the_two_methods_refuse_each_others_files(tmp_path):
    torch.save(packed(), tmp_path / "imd.pickle")
    with pytest.raises(ValueError, match=r"not a MaLP checkpoint of the authors: expected .*'state_dict_signal'\], found \['state_dict_encoder2', "):
        MaLP.from_official(tmp_path / "imd.pickle")
    torch.save({"state_dict_encoder": {"w": torch.ones(1)}, "state_dict_signal": {"A": torch.zeros(1, 128, 128)}}, tmp_path / "malp.pickle")
    with pytest.raises(ValueError, match=r"not a proactive-IMD checkpoint of the authors: expected .*found \['state_dict_encoder', 'state_dict_signal'\]"):
        ProactiveIMD.from_official(tmp_path / "malp.pickle")


@pytest.mark.parametrize(("arguments", "message"), [({"set_size": 0}, "set of at least 1, got 0"), ({"strength": 0.0}, r"strength in \(0, 1\], got 0.0")])
def test_an_impossible_one_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProactiveIMD(**arguments)
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), got \(2, 1, 8, 8\)"):
        ProactiveIMD().recover(torch.zeros(2, 1, 8, 8))
