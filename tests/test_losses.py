"""Every term of Eq. 7-10 against a slow restatement in float64 loops, by hand, and at the points where gradients tend to break."""

from __future__ import annotations

import cmath
import dataclasses
import math

import numpy as np
import pytest
import torch

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

OFF = {field.name: 0.0 for field in dataclasses.fields(LossWeights)}


def only(**weights: float) -> LossWeights:
    """All terms off but the given ones."""
    return LossWeights(**{**OFF, **weights})


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the slow restatements ---------------------------------------------------------------------------------------------------------


def cs(a: np.ndarray, b: np.ndarray) -> float:
    dot = aa = bb = 0.0
    for x, y in zip(a.ravel().tolist(), b.ravel().tolist()):
        dot, aa, bb = dot + x * y, aa + x * x, bb + y * y
    return dot / math.sqrt(aa * bb)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 for a range of 1: Gaussian window 11×11 with σ 1.5, K = 0.01, 0.03, at every pixel, the borders mirrored."""
    a, b = np.pad(a, 5, mode="reflect"), np.pad(b, 5, mode="reflect")
    offsets = range(-5, 6)
    window = {(dy, dx): math.exp(-(dy * dy + dx * dx) / (2 * 1.5**2)) for dy in offsets for dx in offsets}
    total = sum(window.values())
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            ma = mb = aa = bb = ab = 0.0
            for (dy, dx), weight in window.items():
                w, p, q = weight / total, a[y + dy, x + dx], b[y + dy, x + dx]
                ma, mb, aa, bb, ab = ma + w * p, mb + w * q, aa + w * p * p, bb + w * q * q, ab + w * p * q
            va, vb, vab = aa - ma * ma, bb - mb * mb, ab - ma * mb
            values.append((2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))
    return sum(values) / len(values)


def low_pass_norm(templates: np.ndarray) -> float:
    """Root mean square of the discrete Fourier coefficients (divided by √(HW)) with |frequency| ≤ ⅛ per pixel, a quarter of Nyquist."""
    n, height, width = templates.shape
    squares = []
    for template in templates:
        for u in range(-(height // 2), (height + 1) // 2):
            for v in range(-(width // 2), (width + 1) // 2):
                if abs(u) / height <= 0.125 and abs(v) / width <= 0.125:
                    coefficient = 0j
                    for y in range(height):
                        for x in range(width):
                            coefficient += template[y, x] * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))
                    squares.append(abs(coefficient) ** 2 / (height * width))
    return math.sqrt(sum(squares) / len(squares))


def j_t(templates: np.ndarray, w: LossWeights) -> float:
    n = len(templates)
    magnitude = sum(math.sqrt(sum(v * v for v in s.ravel().tolist()) / s.size) for s in templates)
    orthogonality = sum(cs(templates[i], templates[j]) for i in range(n) for j in range(n) if i != j) / max(1, n - 1)
    return w.magnitude * magnitude + w.orthogonality * orthogonality + w.high_frequency * low_pass_norm(templates)


def j_l_encrypted(maps: np.ndarray, truth: np.ndarray, w: LossWeights) -> float:
    terms = []
    for m, t in zip(maps, truth):
        floored = cs(m, t) * min(1, np.linalg.norm(m) / np.linalg.norm(t))  # a map fainter than the truth counts by its share
        terms.append(w.encrypted_zero * float(np.mean([v * v for v in m.ravel()])) + w.encrypted_cosine * floored)
    return sum(terms) / len(terms)


def j_l_manipulated(maps: np.ndarray, truth: np.ndarray, w: LossWeights) -> float:
    terms = []
    for m, t in zip(maps, truth):
        cosine = 1 - cs(m, t) if t.any() else 0.0
        pearson = 1 - np.corrcoef(m.ravel(), t.ravel())[0, 1] if t.any() else 0.0
        error = float(np.mean([(x - y) ** 2 for x, y in zip(m.ravel(), t.ravel())]))
        terms.append(w.manipulated_cosine * cosine + w.manipulated_ssim * (1 - ssim(m[0], t[0])) + w.map_correlation * pearson + w.map_error * error)
    return sum(terms) / len(terms)


def j_r(on_encrypted: np.ndarray, on_manipulated: np.ndarray, templates: np.ndarray, index: list[int], w: LossWeights) -> float:
    total = 0.0
    for recovered, i in zip(on_encrypted, index):
        if i == NO_TEMPLATE:
            total += w.recover_manipulated * sum(cs(s, recovered) ** 2 for s in templates)
        else:
            total += w.recover_encrypted * (1 - cs(templates[i], recovered))
    for recovered in on_manipulated:
        total += w.recover_manipulated * sum(cs(s, recovered) ** 2 for s in templates)
    return total / len(index)


def j_c(logits: list[float], similarities: list[float], manipulated: list[int], expected: list[bool], w: LossWeights) -> float:
    """Eq. 10 in the paper's own sense, y = 1 for encrypted, C the classifier's P(encrypted): BCE of [C + CS(S_R, S)] / 2."""
    total = 0.0
    for logit, similarity, changed, has_template in zip(logits, similarities, manipulated, expected):
        c = 1 / (1 + math.exp(logit))
        bracket = (c + min(1.0, max(0.0, similarity))) / 2 if has_template else c
        y = 1 - changed
        total -= y * math.log(bracket) + (1 - y) * math.log(1 - bracket)
    return w.classification * total / len(logits)


# --- Eq. 7 -------------------------------------------------------------------------------------------------------------------------


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


# --- Eq. 8 -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    truth = rand(3, 1, 13, 14, seed=2)
    truth[1] = 0  # the generator left this one untouched
    return rand(3, 1, 13, 14, seed=1), truth


def test_j_l_of_encrypted_pictures_is_eq_8_first_case(maps):
    predicted, truth = maps[0], rand(3, 1, 13, 14, seed=3)
    weights = LossWeights(encrypted_zero=4.0, encrypted_cosine=0.7)
    expected = j_l_encrypted(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_encrypted(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


def test_j_l_of_manipulated_pictures_is_eq_8_second_case(maps):
    predicted, truth = maps
    weights = LossWeights(manipulated_cosine=1.7, manipulated_ssim=0.6, map_error=3.0, map_correlation=0.9)
    expected = j_l_manipulated(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_manipulated(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["manipulated_cosine", "manipulated_ssim", "map_error", "map_correlation"])
def test_each_weight_of_the_second_case_drives_its_own_term(maps, name):
    predicted, truth = maps
    weights = only(**{name: 2.0})
    expected = j_l_manipulated(predicted.double().numpy(), truth.double().numpy(), weights)
    assert localization_loss_manipulated(predicted, truth, weights).item() == pytest.approx(expected, rel=1e-4)


def test_weights_of_zero_switch_both_cases_off(maps):
    assert localization_loss_encrypted(*maps, only()).item() == 0
    assert localization_loss_manipulated(*maps, only()).item() == 0
    assert localization_loss_encrypted(*maps, only(manipulated_cosine=9.0, manipulated_ssim=9.0, map_error=9.0, map_correlation=9.0)).item() == 0
    assert localization_loss_manipulated(*maps, only(encrypted_zero=9.0, encrypted_cosine=9.0)).item() == 0


def test_a_perfect_map_costs_nothing(maps):
    truth = maps[0]
    assert localization_loss_manipulated(truth, truth, LossWeights()).item() == pytest.approx(0, abs=1e-5)


def test_a_zero_map_of_an_encrypted_picture_costs_nothing(maps):
    assert localization_loss_encrypted(torch.zeros_like(maps[0]), maps[0], LossWeights()).item() == 0


def test_a_bright_spot_off_the_truth_gains_an_encrypted_picture_nothing():
    """By the plain cosine a spot where nothing changes would lower λ5's term for a faint map; it must not."""
    truth, faint = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.01)
    truth[..., 14:, 14:] = 0
    spotted = faint.clone()
    spotted[..., 14:, 14:] = 0.5
    weights = only(encrypted_cosine=1.0)
    assert torch.nn.functional.cosine_similarity(spotted.flatten(), truth.flatten(), dim=0) < 0.2 < 0.9 < cs(faint.numpy(), truth.numpy())
    plain, marked = (localization_loss_encrypted(maps, truth, weights).item() for maps in (faint, spotted))
    assert plain < 0.06 and marked > 0.99 * plain
    assert localization_loss_encrypted(faint / 10, truth, weights).item() < 0.1 * plain + 1e-3, "the term goes to zero with the map"


def test_encrypted_by_hand():
    """M̂ = ½ everywhere: ‖M̂‖² is ¼; a constant truth is parallel to it: CS 1."""
    predicted, truth = torch.full((2, 1, 12, 12), 0.5), torch.full((2, 1, 12, 12), 0.2)
    assert localization_loss_encrypted(predicted, truth, only(encrypted_zero=4.0)).item() == pytest.approx(1.0)
    assert localization_loss_encrypted(predicted, truth, only(encrypted_cosine=3.0)).item() == pytest.approx(3.0, rel=1e-5)


def test_scale_is_free_for_the_cosine_and_costs_in_the_squared_error(maps):
    truth = maps[0]
    assert localization_loss_manipulated(truth / 2, truth, only(manipulated_cosine=1.0)).item() == pytest.approx(0, abs=1e-5)
    expected = (truth / 2).square().mean().item()
    assert localization_loss_manipulated(truth / 2, truth, only(map_error=1.0)).item() == pytest.approx(expected, rel=1e-5)


def test_a_constant_map_has_a_high_cosine_and_no_correlation():
    """Why Pearson's correlation stands beside Eq. 8: for maps that change everywhere a little, "everywhere alike" is nearly right by the cosine."""
    truth = 0.3 + 0.1 * torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    constant = torch.full_like(truth, 0.2)
    assert localization_loss_manipulated(constant, truth, only(manipulated_cosine=1.0)).item() < 0.01
    assert localization_loss_manipulated(constant, truth, only(map_correlation=1.0)).item() == pytest.approx(1, abs=1e-4)
    assert localization_loss_manipulated(0.5 * truth - 0.1, truth, only(map_correlation=1.0)).item() == pytest.approx(0, abs=1e-4)


# --- Eq. 9 -------------------------------------------------------------------------------------------------------------------------


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
def test_j_c_is_the_cross_entropy_of_eq_10_on_both_witnesses_or_on_the_classifier_alone(expected):
    weights = LossWeights(classification=0.8)
    loss = classification_loss(*map(torch.tensor, (LOGITS, SIMILARITIES, MANIPULATED, expected)), weights)
    assert loss.item() == pytest.approx(j_c(LOGITS, SIMILARITIES, MANIPULATED, expected, weights), rel=1e-4)


def test_one_answer_for_all_is_the_same_as_one_each():
    arguments = [torch.tensor(x) for x in (LOGITS, SIMILARITIES, MANIPULATED)]
    for answer in (True, False):
        each = classification_loss(*arguments, torch.full((5,), answer), LossWeights())
        assert torch.equal(classification_loss(*arguments, answer, LossWeights()), each)


def test_classification_by_hand():
    """Both witnesses undecided, C = ½ and CS = ½: ln 2. Both certain and right: 0 (up to the margin). Weight 0: 0."""
    undecided = (torch.zeros(2), torch.full((2,), 0.5), torch.tensor([0, 1]), True)
    assert classification_loss(*undecided, only(classification=1.0)).item() == pytest.approx(math.log(2), rel=1e-6)
    certain = (torch.tensor([-50.0, 50.0]), torch.tensor([1.0, 0.0]), torch.tensor([0, 1]), True)
    assert classification_loss(*certain, only(classification=1.0)).item() == pytest.approx(0, abs=1e-5)
    assert classification_loss(*undecided, only()).item() == 0


def test_certain_and_wrong_is_dear_but_finite():
    logit = torch.tensor([50.0, -50.0], requires_grad=True)
    loss = classification_loss(logit, torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), True, LossWeights())
    loss.backward()
    assert 1 < loss.item() < 100 and logit.grad.isfinite().all()


def test_both_classes_are_pushed_the_right_way():
    """Printed Eq. 10 has a minus before (1 - y) that would push one class the wrong way."""
    logit = torch.zeros(2, requires_grad=True)
    similarity = torch.full((2,), 0.5, requires_grad=True)
    classification_loss(logit, similarity, torch.tensor([0, 1]), True, LossWeights()).backward()
    assert logit.grad[0] > 0 > logit.grad[1]  # descent lowers P(manipulated) of the encrypted, raises it for the manipulated
    assert similarity.grad[0] < 0 < similarity.grad[1]  # and asks for more of the template in the encrypted


# --- gradients ---------------------------------------------------------------------------------------------------------------------


def losses_of(maps: torch.Tensor, truth: torch.Tensor, recovered: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
    """All of Eq. 7-9 together."""
    index = torch.tensor([0, NO_TEMPLATE])
    return (
        template_loss(templates[:, 0], LossWeights())
        + localization_loss_encrypted(maps, truth, LossWeights())
        + localization_loss_manipulated(maps, truth, LossWeights())
        + recovery_loss(recovered, recovered, templates, index, LossWeights())
    )


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("truth", [0.0, 0.3])
def test_gradients_are_finite_and_moderate_at_zero_and_constant_inputs(value, truth):
    maps = torch.full((2, 1, 12, 12), value, requires_grad=True)
    recovered = torch.full((2, 1, 12, 12), value, requires_grad=True)
    templates = torch.full((2, 1, 12, 12), value, requires_grad=True)
    losses_of(maps, torch.full((2, 1, 12, 12), truth), recovered, templates).backward()
    for leaf in (maps, recovered, templates):
        assert leaf.grad.isfinite().all() and leaf.grad.abs().max() < 1e4  # a cosine without its epsilon gives 4e7


def test_gradients_agree_with_finite_differences():
    """The directional derivative (f(x + hv) - f(x - hv)) / 2h. The losses compute in float32, hence h = 1e-2 and 1 %."""
    leaves = [0.3 + 0.4 * rand(2, 1, 12, 13, seed=1), 0.1 + rand(2, 1, 12, 13, seed=2), randn(2, 1, 12, 13, seed=3), randn(2, 1, 12, 13, seed=4)]
    for which in (0, 2, 3):
        direction = randn(*leaves[which].shape, seed=9)
        direction = direction / direction.norm()
        x = leaves[which].clone().requires_grad_(True)
        arguments = [x if i == which else leaf for i, leaf in enumerate(leaves)]
        (gradient,) = torch.autograd.grad(losses_of(*arguments), x)
        ahead, behind = (losses_of(*[leaf + s * 1e-2 * direction if i == which else leaf for i, leaf in enumerate(leaves)]) for s in (1, -1))
        numeric = (ahead - behind).item() / 2e-2
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-2, abs=2e-4)


def test_classification_agrees_with_finite_differences():
    logit = torch.tensor(LOGITS, requires_grad=True)
    rest = (torch.tensor(SIMILARITIES), torch.tensor(MANIPULATED), torch.tensor([True, False, True, True, False]), LossWeights())
    (gradient,) = torch.autograd.grad(classification_loss(logit, *rest), logit)
    for i in range(5):
        step = torch.zeros(5).index_fill_(0, torch.tensor(i), 1e-2)
        numeric = (classification_loss(logit.detach() + step, *rest) - classification_loss(logit.detach() - step, *rest)).item() / 2e-2
        assert gradient[i].item() == pytest.approx(numeric, rel=1e-2, abs=1e-4)


# --- batches -----------------------------------------------------------------------------------------------------------------------


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


def test_a_batch_counts_as_the_mean_of_its_pictures():
    """So that λ means the same at every batch size."""
    maps, truth = rand(4, 1, 13, 13), rand(4, 1, 13, 13, seed=1)
    for loss in (localization_loss_encrypted, localization_loss_manipulated):
        singles = [loss(maps[i : i + 1], truth[i : i + 1], LossWeights()).item() for i in range(4)]
        assert loss(maps, truth, LossWeights()).item() == pytest.approx(sum(singles) / 4, rel=1e-5)


def test_a_larger_picture_of_the_same_content_costs_the_same():
    """Magnitude, L2 and squared error are per pixel: tiling a map twice changes nothing."""
    maps, truth = rand(2, 1, 12, 12), rand(2, 1, 12, 12, seed=1)
    for weights, loss in ((only(encrypted_zero=1.0), localization_loss_encrypted), (only(map_error=1.0), localization_loss_manipulated)):
        assert loss(maps.repeat(1, 1, 2, 2), truth.repeat(1, 1, 2, 2), weights).item() == pytest.approx(loss(maps, truth, weights).item(), rel=1e-5)
    assert template_loss(maps[:, 0].repeat(1, 2, 2), only(magnitude=1.0)).item() == pytest.approx(
        template_loss(maps[:, 0], only(magnitude=1.0)).item(), rel=1e-5
    )
