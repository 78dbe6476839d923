"""The classifier of maps, the cosines and the score that averages both."""

from __future__ import annotations

import math

import pytest
import torch

from malp_disc.detection import MapClassifier, cosine, manipulation_score, template_similarity


@pytest.fixture(scope="module")
def classifier() -> MapClassifier:
    torch.manual_seed(0)
    return MapClassifier()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 50), (8, 8), (128, 64)])
def test_the_classifier_takes_maps_of_any_size(classifier, height, width):
    logit = classifier(torch.rand(3, 1, height, width, generator=torch.Generator().manual_seed(0)))
    assert logit.shape == (3,) and logit.isfinite().all()


def test_a_small_bright_spot_counts_as_much_in_a_large_map(classifier):
    """The maximum carries it: with the mean alone a 4×4 spot in 256×256 pixels would be diluted by 64 against 32×32."""

    def effect(side: int) -> float:
        maps = torch.zeros(2, 1, side, side)
        maps[1, :, 12:16, 12:16] = 1
        empty, spotted = classifier(maps).tolist()
        return abs(spotted - empty)

    assert effect(32) > 1e-5
    assert effect(256) > 0.3 * effect(32)


def test_a_maps_logit_doesnt_depend_on_its_neighbours(classifier):
    maps = torch.rand(4, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(classifier(maps)[:1], classifier(maps[:1]), atol=1e-6)


def test_the_classifier_learns_in_every_parameter():
    torch.manual_seed(0)
    classifier = MapClassifier()
    classifier(torch.rand(8, 1, 32, 32)).square().mean().backward()
    assert [name for name, parameter in classifier.named_parameters() if not parameter.grad.any()] == []


def test_a_zero_map_keeps_the_classifier_alive():
    """What G is asked to produce. The gradient must reach the map, or G couldn't get away from a wrong answer."""
    torch.manual_seed(0)
    maps = torch.zeros(2, 1, 32, 32, requires_grad=True)
    MapClassifier()(maps).sum().backward()
    assert maps.grad.isfinite().all() and maps.grad.any()


def test_cosine_by_hand():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    b = torch.tensor([[6.0, 8.0], [0.0, 2.0], [-2.0, -2.0], [1.0, 0.0]])
    assert cosine(a, b).tolist() == pytest.approx([1, 0, -1, 0], abs=1e-5)


def test_cosine_runs_over_all_dimensions_but_the_first():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 1, 4, 5, generator=generator), torch.rand(3, 1, 4, 5, generator=generator)
    expected = torch.nn.functional.cosine_similarity(a.double().flatten(1), b.double().flatten(1))
    assert torch.allclose(cosine(a, b).double(), expected, atol=1e-5)


def test_cosine_is_symmetric_and_blind_to_positive_scale():
    a, b = torch.rand(2, 9), torch.rand(2, 9)
    assert torch.allclose(cosine(a, b), cosine(b, a))
    assert torch.allclose(cosine(a, b), cosine(5 * a, b), atol=1e-5)


def test_cosine_at_zero_has_a_finite_gradient():
    """At most 1/√ε = 1000. torch's own cosine_similarity gives near 4e7 for a map that small."""
    for value in (0.0, 1e-8, 1e-4):
        for swapped in (False, True):
            a = torch.full((1, 100), value, requires_grad=True)
            pair = a, torch.ones(1, 100)
            cosine(*pair[::-1] if swapped else pair).sum().backward()
            assert a.grad.isfinite().all() and a.grad.norm() <= 1000.001


def test_cosine_is_computed_in_float32():
    assert cosine(torch.ones(1, 4, dtype=torch.bfloat16), torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float32


def test_template_similarity_is_the_cosine_of_every_pair():
    generator = torch.Generator().manual_seed(0)
    recovered, templates = torch.randn(3, 1, 4, 5, generator=generator), torch.randn(2, 1, 4, 5, generator=generator)
    table = template_similarity(recovered, templates)
    assert table.shape == (3, 2)
    for b in range(3):
        for i in range(2):
            assert table[b, i].item() == pytest.approx(cosine(recovered[b : b + 1], templates[i : i + 1]).item(), abs=1e-5)


def test_template_similarity_survives_zeros():
    recovered, templates = torch.zeros(2, 1, 3, 3, requires_grad=True), torch.zeros(1, 1, 3, 3, requires_grad=True)
    table = template_similarity(recovered, templates)
    table.sum().backward()
    assert not table.any() and recovered.grad.isfinite().all() and templates.grad.isfinite().all()


@pytest.mark.parametrize(
    ("logit", "similarity", "expected", "score"),
    [
        (0.0, 0.5, True, 0.5),  # both undecided
        (math.log(3), 0.0, True, 0.875),  # (3/4 + 1 - 0) / 2
        (math.log(3), 1.0, True, 0.375),  # (3/4 + 1 - 1) / 2
        (-math.log(3), 1.0, True, 0.125),  # (1/4 + 0) / 2: untouched by both
        (-math.log(3), -0.7, True, 0.625),  # a negative cosine says no more than 0: (1/4 + 1) / 2
        (math.log(3), 0.9, False, 0.75),  # no template was added: the classifier alone
        (math.log(3), -0.9, False, 0.75),
        (100.0, 0.0, True, 1.0),
        (-100.0, 1.0, True, 0.0),
    ],
)
def test_the_score_by_hand(logit, similarity, expected, score):
    result = manipulation_score(torch.tensor([logit]), torch.tensor([similarity]), torch.tensor([expected]))
    assert result.tolist() == pytest.approx([score], abs=1e-6)
    assert manipulation_score(torch.tensor([logit]), torch.tensor([similarity]), expected).tolist() == pytest.approx([score], abs=1e-6)


def test_scores_of_a_column_and_a_row_are_refused_and_not_made_a_table():
    with pytest.raises(ValueError, match=r"one shape \(B,\), got \(3,\) and \(3, 1\)"):
        manipulation_score(torch.zeros(3), torch.zeros(3, 1))


def test_the_score_grows_with_the_logit_and_falls_with_the_similarity():
    logits, similarities = torch.linspace(-4, 4, 9), torch.linspace(0, 1, 9)
    assert (manipulation_score(logits, torch.full((9,), 0.3)).diff() > 0).all()
    assert (manipulation_score(torch.zeros(9), similarities).diff() < 0).all()
