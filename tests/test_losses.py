"""Template, recovery and classification losses (Eq. 7, 9, 10) against a slow restatement in float64 loops and by hand, and batches of any order."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from generators.attgan_losses import AttGANWeights
from generators.cyclegan_losses import CycleGANWeights
from generators.stargan_losses import StarGANWeights
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import (
    LossWeights,
    classification_loss,
    localization_loss_encrypted,
    localization_loss_manipulated,
    low_frequency,
    recovery_loss,
    template_loss,
)
from tests.reference_losses import j_c, j_r, j_t, only, rand, randn


@pytest.mark.parametrize("kind", [LossWeights, StarGANWeights, AttGANWeights, CycleGANWeights])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_weight_has_to_be_finite_and_not_negative(kind, value):
    for field in dataclasses.fields(kind):
        with pytest.raises(ValueError, match=f"expected {field.name} of {kind.__name__} to be finite and 0 or more, got {value}"):
            kind(**{field.name: value})


def test_labels_are_smoothed_by_less_than_1():
    with pytest.raises(ValueError, match=r"expected label_smoothing in \[0, 1\), got 1"):
        LossWeights(label_smoothing=1)


@pytest.mark.parametrize(("n", "height", "width"), [(1, 16, 16), (3, 12, 16), (2, 9, 8)])
def test_j_t_is_eq_7(n, height, width):
    templates, weights = 0.2 * randn(n, height, width), LossWeights(magnitude=0.7, orthogonality=1.3, high_frequency=0.4)
    assert template_loss(templates, weights).item() == pytest.approx(j_t(templates.double().numpy(), weights), rel=1e-4)


def test_each_weight_of_j_t_drives_its_own_term():
    templates = 0.2 * randn(3, 8, 8)
    terms = {name: template_loss(templates, only(**{name: 1.0})).item() for name in ("magnitude", "orthogonality", "high_frequency")}
    for name, value in terms.items():
        assert value == pytest.approx(j_t(templates.double().numpy(), only(**{name: 1.0})), rel=1e-4)
    assert template_loss(templates, only()).item() == 0
    together = only(magnitude=2.0, orthogonality=3.0, high_frequency=5.0)
    expected = 2 * terms["magnitude"] + 3 * terms["orthogonality"] + 5 * terms["high_frequency"]
    assert template_loss(templates, together).item() == pytest.approx(expected, rel=1e-5)


def test_equal_opposite_and_orthogonal_templates_by_hand():
    """Two equal templates: CS = 1 in both orders, over n - 1 = 1: 2. Opposite: -2. Without common pixels: 0."""
    a = torch.zeros(4, 4)
    a[0] = 0.5
    for other, expected in ((a, 2.0), (-3 * a, -2.0), (a.T.flip(0) * (a == 0), 0.0)):
        assert template_loss(torch.stack([a, other]), only(orthogonality=1.0)).item() == pytest.approx(expected, abs=1e-4)


def test_magnitudes_add_up_as_root_mean_squares():
    templates = torch.stack([torch.full((8, 8), 0.3), torch.full((8, 8), -0.1)])
    assert template_loss(templates, only(magnitude=1.0)).item() == pytest.approx(0.4, rel=1e-5)


def test_low_frequencies_in_closed_form():
    """16×16, a constant c: one coefficient c·√256 = 16c of the 5×5 kept (±2 on each axis): √((16c)²/25) = 3.2c. The fastest pattern: 0."""
    assert low_frequency(torch.full((1, 16, 16), 0.5)).item() == pytest.approx(1.6, rel=1e-5)
    parity = (torch.arange(16)[:, None] + torch.arange(16)[None]).remainder(2).float() * 2 - 1
    assert low_frequency(parity[None]).item() < 1e-4


@pytest.mark.parametrize(("waves", "kept"), [(2, True), (3, False)])
def test_the_low_pass_ends_at_a_quarter_of_nyquist_on_both_axes(waves, kept):
    """16 pixels, Nyquist is 8 waves: 2 are kept, 3 are not; across or down makes no difference."""
    wave = torch.cos(2 * math.pi * waves * torch.arange(16) / 16).expand(16, 16)
    for template in (wave, wave.T):
        assert (low_frequency(template[None]).item() > 0.1) is kept


@pytest.mark.parametrize("size", [24, 40, 56, 72, 96, 104, 128, 256])
def test_the_border_frequency_is_kept_at_every_size_divisible_by_8(size):
    """size/8 waves are exactly a quarter of Nyquist; rounding of the frequency grid must not drop them at some sizes."""
    wave = torch.cos(2 * math.pi * (size // 8) * torch.arange(size) / size).expand(size, size)
    assert low_frequency(wave[None]).item() > 0.1


@pytest.mark.parametrize("index", [[2, 0, 1], [1, NO_TEMPLATE, 0], [NO_TEMPLATE] * 3])
def test_j_r_is_eq_9(index):
    on_encrypted, on_manipulated, templates = randn(3, 1, 7, 9, seed=1), randn(3, 1, 7, 9, seed=2), randn(3, 1, 7, 9, seed=3)
    on_encrypted = on_encrypted + templates[[max(i, 0) for i in index]]
    weights = LossWeights(recover_encrypted=1.4, recover_manipulated=0.6)
    expected = j_r(*(x.double().numpy() for x in (on_encrypted, on_manipulated, templates)), index, weights)
    assert recovery_loss(on_encrypted, on_manipulated, templates, torch.tensor(index), weights).item() == pytest.approx(expected, rel=1e-4)


def test_recovery_by_hand():
    """Templates without common pixels. S_R = S_0 on the encrypted: 0. S_R = S_1 instead: 1 - 0 = 1. S_R = -S_0 on the manipulated: (-1)² = 1."""
    templates = torch.zeros(2, 1, 4, 4)
    templates[0, 0, 0], templates[1, 0, 1] = 1.0, 1.0
    nothing, index = torch.zeros(1, 1, 4, 4), torch.tensor([0])
    assert recovery_loss(templates[:1], nothing, templates, index, LossWeights()).item() == pytest.approx(0, abs=1e-5)
    assert recovery_loss(templates[1:], nothing, templates, index, only(recover_encrypted=1.0)).item() == pytest.approx(1, abs=1e-5)
    assert recovery_loss(templates[:1], -templates[:1], templates, index, only(recover_manipulated=1.0)).item() == pytest.approx(1, abs=1e-5)


def test_weights_of_zero_switch_recovery_off():
    recovered, templates = randn(2, 1, 6, 6), randn(2, 1, 6, 6, seed=1)
    assert recovery_loss(recovered, recovered, templates, torch.tensor([0, 1]), only()).item() == 0


# --- Eq. 10 ------------------------------------------------------------------------------------------------------------------------

LOGITS, SIMILARITIES, MANIPULATED = [2.0, -1.5, 0.3, -0.2, 1.0], [0.1, 0.9, -0.4, 0.5, 0.0], [1, 0, 1, 0, 0]


@pytest.mark.parametrize("expected", [[True] * 5, [False] * 5, [True, False, True, False, True]])
def test_j_c_is_the_cross_entropy_of_eq_10_on_both_scores_or_on_the_classifier_alone(expected):
    weights = LossWeights(classification=0.8)
    loss = classification_loss(*map(torch.tensor, (LOGITS, SIMILARITIES, MANIPULATED, expected)), weights)
    assert loss.item() == pytest.approx(j_c(LOGITS, SIMILARITIES, MANIPULATED, expected, weights), rel=1e-4)


def test_one_answer_for_all_is_the_same_as_one_each():
    arguments = [torch.tensor(x) for x in (LOGITS, SIMILARITIES, MANIPULATED)]
    for answer in (True, False):
        each = classification_loss(*arguments, torch.full((5,), answer), LossWeights())
        assert torch.equal(classification_loss(*arguments, answer, LossWeights()), each)


def test_classification_by_hand():
    """Both scores undecided, C = ½ and CS = ½: ln 2. Both certain and right: 0 (up to the margin). Weight 0: 0."""
    undecided = (torch.zeros(2), torch.full((2,), 0.5), torch.tensor([0, 1]), True)
    assert classification_loss(*undecided, only(classification=1.0)).item() == pytest.approx(math.log(2), rel=1e-6)
    certain = (torch.tensor([-50.0, 50.0]), torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), True)
    assert classification_loss(*certain, only(classification=1.0)).item() == pytest.approx(0, abs=1e-5)
    assert classification_loss(*undecided, only()).item() == 0


def test_certain_and_wrong_costs_what_the_logit_says_and_is_learned_from():
    """-log([σ(-50) + 0] / 2) = 50 + ln 2 with a template, -log σ(-50) = 50 without; the slope of both is 1."""
    for expected, value in ((True, 50 + math.log(2)), (False, 50)):
        logit = torch.tensor([50.0, -50.0], requires_grad=True)
        loss = classification_loss(logit, torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), expected, only(classification=1.0))
        loss.backward()
        assert loss.item() == pytest.approx(value, rel=1e-6)
        assert logit.grad.tolist() == pytest.approx([0.5, -0.5], rel=1e-5)


def test_a_template_that_is_recovered_exactly_or_not_at_all_has_finite_gradients():
    """log 0 of the unused branch would make them NaN."""
    for label in (0, 1):
        similarity, logit = torch.tensor([0.0, 1.0], requires_grad=True), torch.zeros(2, requires_grad=True)
        classification_loss(logit, similarity, torch.tensor([label, label]), True, only(classification=1.0)).backward()
        assert similarity.grad.isfinite().all() and logit.grad.isfinite().all()


@pytest.mark.parametrize("expected", [True, False])
def test_j_c_has_no_step_where_its_logarithm_is_computed_from_the_logit(expected):
    logits = torch.linspace(13, 15, 201, dtype=torch.float32).requires_grad_(True)
    values = torch.stack([classification_loss(logit[None], torch.zeros(1), torch.zeros(1), expected, only(classification=1.0)) for logit in logits])
    assert values.tolist() == pytest.approx([j_c([logit], [0.0], [0], [expected], only(classification=1.0)) for logit in logits.tolist()], abs=0.06)  # 1 - P is a multiple of 2⁻²⁴ in float32, which is 6 % of 1e-6
    values.sum().backward()
    assert (logits.grad > 0.9).all()


def test_both_classes_are_pushed_the_right_way():
    """Printed Eq. 10 has a minus before (1 - y) that would push one class the wrong way."""
    logit = torch.zeros(2, requires_grad=True)
    similarity = torch.full((2,), 0.5, requires_grad=True)
    classification_loss(logit, similarity, torch.tensor([0, 1]), True, LossWeights()).backward()
    assert logit.grad[0] > 0 > logit.grad[1]  # descent lowers P(manipulated) of the encrypted, raises it for the manipulated
    assert similarity.grad[0] < 0 < similarity.grad[1]  # and asks for more of the template in the encrypted


def test_classification_agrees_with_finite_differences():
    logit = torch.tensor(LOGITS, requires_grad=True)
    rest = (torch.tensor(SIMILARITIES), torch.tensor(MANIPULATED), torch.tensor([True, False, True, True, False]), LossWeights())
    (gradient,) = torch.autograd.grad(classification_loss(logit, *rest), logit)
    for i in range(5):
        step = torch.zeros(5).index_fill_(0, torch.tensor(i), 1e-2)
        numeric = (classification_loss(logit.detach() + step, *rest) - classification_loss(logit.detach() - step, *rest)).item() / 2e-2
        assert gradient[i].item() == pytest.approx(numeric, rel=1e-2, abs=1e-4)


def test_the_order_of_the_batch_doesnt_matter():
    maps, truth, index = rand(4, 1, 13, 13), rand(4, 1, 13, 13, seed=1), torch.tensor([1, NO_TEMPLATE, 0, 1])
    recovered, templates = randn(4, 1, 13, 13), randn(2, 1, 13, 13, seed=1)
    logit, similarity, label = randn(4), rand(4), torch.tensor([1, 0, 0, 1])
    order, weights = torch.tensor([2, 0, 3, 1]), LossWeights()
    pairs = [
        (localization_loss_encrypted(maps, truth, weights), localization_loss_encrypted(maps[order], truth[order], weights)),
        (localization_loss_manipulated(maps, truth, weights), localization_loss_manipulated(maps[order], truth[order], weights)),
        (
            recovery_loss(recovered, 2 * recovered, templates, index, weights),
            recovery_loss(recovered[order], 2 * recovered[order], templates, index[order], weights),
        ),
        (
            classification_loss(logit, similarity, label, index >= 0, weights),
            classification_loss(logit[order], similarity[order], label[order], index[order] >= 0, weights),
        ),
        (template_loss(recovered[:, 0], weights), template_loss(recovered[order][:, 0], weights)),
    ]
    for one, other in pairs:
        assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_a_batch_counts_as_the_mean_of_its_images():
    """So that λ means the same at every batch size."""
    maps, truth = rand(4, 1, 13, 13), rand(4, 1, 13, 13, seed=1)
    for loss in (localization_loss_encrypted, localization_loss_manipulated):
        singles = [loss(maps[i : i + 1], truth[i : i + 1], LossWeights()).item() for i in range(4)]
        assert loss(maps, truth, LossWeights()).item() == pytest.approx(sum(singles) / 4, rel=1e-5)


def test_a_larger_image_of_the_same_content_costs_the_same():
    """Magnitude, L2 and squared error are per pixel: tiling a map twice changes nothing."""
    maps, truth = rand(2, 1, 12, 12), rand(2, 1, 12, 12, seed=1)
    for weights, loss in ((only(encrypted_zero=1.0), localization_loss_encrypted), (only(map_error=1.0), localization_loss_manipulated)):
        assert loss(maps.repeat(1, 1, 2, 2), truth.repeat(1, 1, 2, 2), weights).item() == pytest.approx(loss(maps, truth, weights).item(), rel=1e-5)
    assert template_loss(maps[:, 0].repeat(1, 2, 2), only(magnitude=1.0)).item() == pytest.approx(
        template_loss(maps[:, 0], only(magnitude=1.0)).item(), rel=1e-5
    )
