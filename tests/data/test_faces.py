from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from malp_disc.data.faces import ATTRIBUTES, ProceduralFaces, draw_faces
from malp_disc.metrics.spectrum import power_spectrum

HAIR = ATTRIBUTES[:3]
SIZE = 32


@pytest.fixture(scope="module")
def many_labels() -> torch.Tensor:
    """Labels of 20,000 faces: drawn at 4 pixels, where painting costs little; a label doesn't depend on the size (tested below)."""
    return torch.cat([draw_faces(range(start, start + 2000), 4)[1] for start in range(0, 20_000, 2000)])


@pytest.fixture(scope="module")
def some_faces() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_faces(range(600), SIZE)


def test_a_face_is_a_function_of_its_index_alone():
    alone, label = draw_faces([7], SIZE)
    among, labels = draw_faces([123_456_789, 7, 3], SIZE)
    assert torch.equal(alone[0], among[1])
    assert torch.equal(label[0], labels[1])
    assert not torch.equal(among[0], among[2])


def test_the_loader_gets_the_same_faces_in_batches_as_one_by_one():
    faces = ProceduralFaces(5, image_size=SIZE, first_index=40)
    batches = list(DataLoader(faces, batch_size=3))
    assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack([faces[i][0] for i in range(5)]))
    assert torch.equal(torch.cat([labels for _, labels in batches]), torch.stack([faces[i][1] for i in range(5)]))


def test_other_labels_change_the_face_only_where_the_attribute_is():
    images, labels = draw_faces(range(20), SIZE)
    again, same = draw_faces(range(20), SIZE, labels=labels)
    assert torch.equal(again, images) and torch.equal(same, labels)
    glasses = labels.clone()
    glasses[:, ATTRIBUTES.index("Eyeglasses")] = 1 - glasses[:, ATTRIBUTES.index("Eyeglasses")]
    changed = (draw_faces(range(20), SIZE, labels=glasses)[0] - images).abs().amax(dim=(0, 1)) > 0
    assert changed[SIZE // 3 : SIZE // 2].any() and not changed[: SIZE // 6].any() and not changed[-SIZE // 4 :].any()


def test_nothing_in_a_face_is_noise():
    """Beyond three quarters of the highest frequency, where noise would be, a face of twice the size has far less power."""
    shares = []
    for size in (64, 128):
        power = power_spectrum([draw_faces(range(16), size)[0]])
        radius = np.hypot(*np.meshgrid(*[2 * np.fft.fftfreq(size)] * 2))
        shares.append(power[radius > 0.75].mean() / power[(radius > 0) & (radius < 0.5)].mean())
    assert shares[1] < 0.5 * shares[0]


def test_labels_do_not_depend_on_the_size():
    assert torch.equal(draw_faces(range(50), 16)[1], draw_faces(range(50), 64)[1])


def test_first_index_shifts_the_range_so_that_disjoint_ranges_share_no_face():
    whole = ProceduralFaces(8, image_size=SIZE, first_index=0)
    second = ProceduralFaces(4, image_size=SIZE, first_index=4)
    assert all(torch.equal(whole[4 + i][0], second[i][0]) for i in range(4))
    distinct = {image.numpy().tobytes() for image, _ in (whole[i] for i in range(8))}
    assert len(distinct) == 8


def test_every_face_has_exactly_one_hair_colour(many_labels):
    hair = many_labels[:, [ATTRIBUTES.index(name) for name in HAIR]]
    assert torch.equal(hair.sum(1), torch.ones(len(hair)))
    assert (hair.mean(0) - 1 / 3).abs().max() < 0.015  # four standard errors of a third over 20,000 draws


def test_attributes_are_uncorrelated(many_labels):
    """Of independent labels the sample correlation has standard error 1/sqrt(20000) = 0.007; five of these are allowed.

    Hair colours exclude each other: of three equally likely exclusive ones the correlation is -1/2.
    """
    correlation = torch.corrcoef(many_labels.T)
    expected = torch.eye(len(ATTRIBUTES))
    expected[:3, :3] = torch.full((3, 3), -0.5) + 1.5 * torch.eye(3)
    assert (correlation - expected).abs().max() < 5 * 0.00707


def test_neighbouring_faces_have_independent_labels(many_labels):
    smiling = many_labels[:, ATTRIBUTES.index("Smiling")]
    neighbours = torch.corrcoef(torch.stack([smiling[:-1], smiling[1:]]))[0, 1]
    assert abs(neighbours) < 5 * 0.00707


def test_images_lie_on_the_8_bit_grid_inside_the_range(some_faces):
    images, _ = some_faces
    assert images.dtype == torch.float32
    assert images.shape[1:] == (3, SIZE, SIZE)
    assert images.min() >= -1
    assert images.max() <= 1
    levels = (images + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3
    assert len(levels.round().unique()) > 200


@pytest.mark.parametrize("attribute", ["Black_Hair", "Blond_Hair", "Smiling", "Eyeglasses", "Bangs", "Goatee", "Pale_Skin"])
def test_an_attribute_is_visible_to_a_linear_probe(some_faces, attribute):
    """Least squares with a ridge on 16x16 images, fitted on 400 faces and scored on 200 others, against always saying the commoner value."""
    images, labels = some_faces
    pixels = torch.nn.functional.avg_pool2d(images, SIZE // 16).flatten(1).double()
    pixels = torch.cat([pixels, torch.ones(len(pixels), 1, dtype=torch.float64)], 1)
    truth = labels[:, ATTRIBUTES.index(attribute)].double()
    fit, held = slice(0, 400), slice(400, 600)
    gram = pixels[fit] @ pixels[fit].T + 10 * torch.eye(400, dtype=torch.float64)
    guess = pixels[held] @ (pixels[fit].T @ torch.linalg.solve(gram, 2 * truth[fit] - 1))
    accuracy = ((guess > 0) == (truth[held] > 0.5)).double().mean().item()
    chance = max(truth[held].mean().item(), 1 - truth[held].mean().item())
    assert accuracy > chance + 0.08, f"{attribute}: {accuracy:.3f} against {chance:.3f}"


def test_hair_above_the_forehead_has_the_colour_of_the_label(some_faces):
    """Mean brightness of a patch above the forehead: black < brown < blond."""
    images, labels = some_faces
    patch = images[:, :, SIZE // 8 : SIZE // 5 + 1, 3 * SIZE // 8 : 5 * SIZE // 8].mean((1, 2, 3))
    black, blond, brown = (patch[labels[:, ATTRIBUTES.index(name)] == 1].mean() for name in HAIR)
    assert black + 0.1 < brown < blond - 0.1


def test_labels_come_in_the_order_asked_for():
    _, all_labels = draw_faces(range(20), SIZE)
    names = ("Goatee", "Blond_Hair")
    faces = ProceduralFaces(20, image_size=SIZE, selected_attributes=names)
    labels = torch.stack([faces[i][1] for i in range(20)])
    assert faces.attribute_names == names
    assert torch.equal(labels, all_labels[:, [ATTRIBUTES.index(name) for name in names]])


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_the_range_is_refused(index):
    with pytest.raises(IndexError, match=r"outside 0\.\.2"):
        ProceduralFaces(3, image_size=SIZE)[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length >= 1"),
        ({"length": 3, "first_index": -1}, "first_index >= 0"),
        ({"length": 3, "image_size": 30}, "divisible by 4, got 30"),
        ({"length": 3, "image_size": 12}, "at least 16"),
        ({"length": 3, "selected_attributes": ("Beard",)}, "Beard"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProceduralFaces(**arguments)


def test_the_description_names_the_range():
    assert ProceduralFaces(10, image_size=SIZE, first_index=500).description == "drawn faces, 10 images (numbers 500-509), 32x32"


def test_a_perfect_edit_is_the_same_face_with_the_other_attributes():
    faces = ProceduralFaces(12, image_size=SIZE, first_index=40)
    images, labels = zip(*faces.__getitems__([3, 7, 5]))
    targets = torch.stack(labels)
    assert torch.equal(faces.perfect_edits([3, 7, 5], targets), torch.stack(images))
    targets[:, 3] = 1 - targets[:, 3]
    with_others = draw_faces([43, 47, 45], SIZE)[1]
    with_others[:, 3] = targets[:, 3]
    assert torch.equal(faces.perfect_edits([3, 7, 5], targets), draw_faces([43, 47, 45], SIZE, labels=with_others)[0])
    assert not torch.equal(faces.perfect_edits([3, 7, 5], targets), torch.stack(images))
