"""The detector of weights/survive, with a key made here: it finds what it says it finds, on images that have nothing to do with its training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from malp_disc.data.faces import ProceduralFaces
from malp_disc.data.local_edits import local_edit, random_masks
from malp_disc.degradations import jpeg, resized, to_8bit
from malp_disc.evaluation.survival import FAINT, issued_to, region_scores, scores
from malp_disc.keyed import KeyedMaLP
from malp_disc.serialization.state_dicts import load_tensors

FOLDER = Path(__file__).resolve().parents[2] / "weights" / "survive"


@pytest.fixture(scope="module")
def malp() -> KeyedMaLP:
    return KeyedMaLP.from_pretrained(FOLDER, key=b"a key for tests, 32 bytes long!!").eval()


def faces(first: int) -> Tensor:
    drawn = ProceduralFaces(8, image_size=128, first_index=first)
    return torch.stack([drawn[i][0] for i in range(8)])


@pytest.fixture(scope="module")
def protected(malp) -> Tensor:
    return to_8bit(malp.encrypt(faces(0), torch.arange(8))[0])


@pytest.mark.parametrize(("publish", "least"), [(to_8bit, 0.7), (lambda images: jpeg(images, 75), 0.6)], ids=["lossless", "jpeg"])
def test_a_pasted_region_is_found_and_untouched_images_are_left_alone(publish, least, malp, protected):
    regions = random_masks(protected, [[seed] for seed in range(8)])
    edited = local_edit(protected, regions, "splice", sources=faces(8), seed=0)
    with torch.no_grad():
        found, untouched = (malp(publish(images), torch.arange(8)) for images in (edited, protected))
    assert region_scores(found.edited, regions, malp.config.edited_above)["f1"] > least
    assert (untouched.edited > malp.config.edited_above).float().mean() < 0.1
    assert found.logit.mean() > untouched.logit.mean() + 4


@pytest.mark.parametrize("edit", ["red and blue exchanged", "20 levels brighter"])
def test_a_recoloured_or_brightened_region_is_found(edit, malp, protected):
    regions = random_masks(protected, [[seed] for seed in range(8)])
    edited = to_8bit(torch.where(regions, FAINT[edit](protected), protected).clamp(-1, 1))
    with torch.no_grad():
        found, untouched = (malp(images, torch.arange(8)) for images in (edited, protected))
    assert region_scores(found.edited, regions, malp.config.edited_above)["f1"] > 0.5
    assert found.logit.mean() > untouched.logit.mean() + 3


def test_presence_tells_protected_images_from_others(malp, protected):
    issued = issued_to(faces(0))
    assert scores(malp, protected, issued).presence.min() > 2 * malp.config.present_above
    assert scores(malp, faces(16), issued).presence.max() < malp.config.present_above


@pytest.mark.parametrize(("side", "cut"), [(128, 1), (256, 2)])
def test_trimmed_by_one_pixel_of_the_grid_an_image_isnt_called_manipulated(malp, side, cut):
    """Its template is recognised without alignment, but the local evidence is lost."""
    for number, image in enumerate(to_8bit(malp.encrypt(resized(faces(0)[:4], (side, side)), torch.arange(4))[0])[:, :, cut:, cut:].split(1)):
        found = malp.identify(image, range(10))
        assert found.number == number and found.alignment.share == pytest.approx(1 - cut / side, abs=0.004)
        assert found.alignment.offset == pytest.approx((1, 1), abs=0.1)
        assert malp(image, number).presence > 2 * malp.config.present_above
        assert malp(image, number, found.alignment).score < 0.3 < malp(image, number).score


def test_no_key_is_published():
    assert sorted(path.name for path in FOLDER.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert all(name.startswith(("cnn.", "change.")) for name in load_tensors(FOLDER / "model.safetensors"))
