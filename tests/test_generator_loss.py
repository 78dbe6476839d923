"""MaLPDiscriminator in the generator's step: its terms, their scale, and whose weights get gradients."""

from __future__ import annotations

import pytest
import torch

from malp_disc import MaLPDiscriminator
from malp_disc.encryption import NO_TEMPLATE
from tests.tiny import SIZE, gradients, sample_images, small_generator, tiny_malp, with_rectangles


@pytest.mark.parametrize("trainable", [False, True])
def test_the_generator_loss_reaches_the_fake_and_no_weight_of_malp(trainable):
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable, map_weight=1.0, classifier_weight=1.0, template_weight=1.0)
    fake = sample_images(3).requires_grad_(True)
    disc.generator_loss(fake, torch.tensor([0, NO_TEMPLATE, 0])).total.backward()
    assert gradients(disc) == set()
    assert fake.grad.isfinite().all() and (fake.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("trainable", [False, True])
def test_the_generators_step_moves_no_template_through_the_encrypted_image(trainable):
    """fake = G(T(I)), and T holds the templates: a graph through `encrypt` would let G's loss pull at them."""
    disc, generator = MaLPDiscriminator(tiny_malp(), trainable), small_generator()
    encrypted, index = disc.encrypt(sample_images(2))
    assert not encrypted.requires_grad
    disc.generator_loss(generator(encrypted), index).total.backward()
    assert gradients(disc) == set() and gradients(generator) == {name for name, _ in generator.named_parameters()}


def test_encrypt_lets_the_gradient_of_an_image_pass():
    """For images that another network made."""
    images = sample_images(2).requires_grad_(True)
    MaLPDiscriminator(tiny_malp(), trainable=True).encrypt(images)[0].sum().backward()
    assert images.grad.any()


@pytest.mark.parametrize("trainable", [False, True])
def test_mode_and_gradients_are_as_before_after_the_generator_loss(trainable):
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable)
    for fake in (sample_images(2), torch.full((2, 3, SIZE, SIZE), 255.0)):
        try:
            disc.generator_loss(fake, torch.zeros(2, dtype=torch.long))
        except ValueError:
            assert fake.max() == 255  # that one is refused, and restores too
        assert all(module.training is trainable for module in disc.malp.modules())
        assert all(parameter.requires_grad is trainable for parameter in disc.parameters())


def test_templates_that_the_user_fixed_stay_fixed():
    disc = MaLPDiscriminator(tiny_malp(), trainable=True)
    disc.malp.encryption.requires_grad_(False)
    disc.generator_loss(sample_images(2), torch.zeros(2, dtype=torch.long))
    assert {name for name, parameter in disc.malp.named_parameters() if not parameter.requires_grad} == {"encryption.templates"}


def test_the_generator_sees_malp_in_evaluation_mode():
    """Two calls on one image agree, although the branch with dropout is in training mode."""
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True)
    fake, index, seen = sample_images(2), torch.zeros(2, dtype=torch.long), []
    disc.malp.cnn.register_forward_hook(lambda module, *_: seen.append(module.training))
    assert torch.equal(disc.generator_loss(fake, index).map, disc.generator_loss(fake, index).map)
    assert seen == [False, False]


def test_the_terms_are_what_they_say():
    """‖M̂‖² as a mean square; -log P(not manipulated) = softplus of the logit; 1 - CS(S_i, S_R), 0 for an image without a template."""
    malp = tiny_malp(set_size=2)
    disc = MaLPDiscriminator(malp, map_weight=0.5, classifier_weight=2.0, template_weight=3.0, relative=False)
    fake, index = sample_images(3), torch.tensor([1, NO_TEMPLATE, 0])
    losses, out = disc.generator_loss(fake, index), malp(fake)
    kept = torch.nn.functional.cosine_similarity(out.template[[0, 2], 0].flatten(1), malp.encryption.templates[[1, 0]].flatten(1))
    assert losses.map.item() == pytest.approx(out.map.square().mean().item(), rel=1e-5)
    assert losses.classifier.item() == pytest.approx(-(1 - out.logit.sigmoid()).log().mean().item(), rel=1e-4)
    assert losses.template.item() == pytest.approx((1 - kept).sum().item() / 3, rel=1e-3)
    expected = 0.5 * losses.map + 2 * losses.classifier + 3 * losses.template
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_templates_has_no_template_term():
    disc = MaLPDiscriminator(tiny_malp(), map_weight=1.0, template_weight=1.0, relative=False)
    losses = disc.generator_loss(sample_images(2), torch.full((2,), NO_TEMPLATE))
    assert losses.template.item() == 0 and losses.total.item() == pytest.approx(losses.map.item())


def test_descent_on_the_fake_lowers_the_map():
    """Eq. 12 for G: "generate a fakeness map as a zero image" (section 4.4)."""
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(2, dtype=torch.long)
    fake = sample_images(2).requires_grad_(True)
    optimizer = torch.optim.Adam([fake], lr=0.05)
    values = []
    for _ in range(6):
        losses = disc.generator_loss(fake.clamp(-1, 1), index)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        values.append(losses.map.item())
    assert values[-1] < 0.9 * values[0]


# --- relative scale ----------------------------------------------------------------------------------------------------------------


def test_the_first_total_is_the_sum_of_the_weights_and_the_first_scale_is_kept():
    weights = {"map_weight": 0.7, "classifier_weight": 2.0, "template_weight": 0.3}
    disc, index = MaLPDiscriminator(tiny_malp(), **weights), torch.zeros(3, dtype=torch.long)
    first = disc.generator_loss(sample_images(3), index)
    assert first.total.item() == pytest.approx(3.0, rel=1e-5)
    second = disc.generator_loss(sample_images(3, seed=5), index)
    expected = 0.7 * second.map / first.map + 2 * second.classifier / first.classifier + 0.3 * second.template / first.template
    assert second.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert second.map.item() != first.map.item()


def test_the_scale_is_saved_with_the_weights():
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(3, dtype=torch.long)
    disc.generator_loss(sample_images(3), index)
    resumed = MaLPDiscriminator(tiny_malp(1))
    resumed.load_state_dict(disc.state_dict())
    assert torch.equal(resumed.scale, disc.scale)
    later = sample_images(3, seed=5)
    assert torch.equal(resumed.generator_loss(later, index).total, disc.generator_loss(later, index).total)


def test_the_scale_is_a_constant_to_the_gradient():
    """Had it a gradient, a / a would have none."""
    fake = sample_images(2).requires_grad_(True)
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(2, dtype=torch.long)
    (relative,) = torch.autograd.grad(disc.generator_loss(fake, index).total, fake)
    plain = MaLPDiscriminator(tiny_malp(), relative=False)
    (absolute,) = torch.autograd.grad(plain.generator_loss(fake, index).total, fake)
    assert torch.allclose(relative * disc.scale[0], absolute, rtol=1e-4, atol=1e-9)
    assert not plain.scale.any()


def test_calibration_over_several_batches_is_that_of_one_with_all_images():
    weights = {"map_weight": 0.7, "classifier_weight": 2.0, "template_weight": 0.3}
    disc, whole = (MaLPDiscriminator(tiny_malp(), **weights) for _ in range(2))
    fake, index = sample_images(6), torch.tensor([0, NO_TEMPLATE, 0, 0, 0, NO_TEMPLATE])
    disc.generator_loss(sample_images(3, seed=9), index[:3])  # forgotten again
    means = disc.calibrate([(fake[:3], index[:3]), (fake[3:], index[3:])])
    expected = whole.generator_loss(fake, index)
    assert torch.allclose(disc.scale, whole.scale, rtol=1e-5) and disc.scale[:3].min() > 0
    assert means.map.item() == pytest.approx(expected.map.item(), rel=1e-5) and means.total.item() == pytest.approx(3.0, rel=1e-5)
    with pytest.raises(ValueError, match="at least one batch"):
        disc.calibrate([])


def test_several_processes_share_the_mean_of_their_first_values(monkeypatch):
    """The other process saw three times ours: the mean is twice ours, so our first total is ½ of the weight."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.mul_(4))
    disc = MaLPDiscriminator(tiny_malp())
    assert disc.generator_loss(sample_images(2), torch.zeros(2, dtype=torch.long)).total.item() == pytest.approx(0.5, rel=1e-5)


def test_without_a_template_term_the_backward_pass_leaves_out_the_recovery():
    """The gradient is that of a weight too small to count; E_E's layers aren't in the graph."""
    fake, index, called = with_rectangles(sample_images(2)).requires_grad_(), torch.zeros(2, dtype=torch.long), []
    found = []
    for weight in (0.0, 1e-12):
        disc = MaLPDiscriminator(tiny_malp(), trainable=False, template_weight=weight)
        disc.malp.cnn.recovery.register_full_backward_hook(lambda *_, weight=weight: called.append(weight))
        found += torch.autograd.grad(disc.generator_loss(fake, index).total, fake)
    assert called == [1e-12]
    torch.testing.assert_close(*found)


def runs_of_the_recovery(disc: MaLPDiscriminator) -> list[int]:
    """A list that gets the number of images of every pass through the layers of E_E alone."""
    runs: list[int] = []
    disc.malp.cnn.recovery.register_forward_hook(lambda _, inputs, output: runs.append(len(output)))
    return runs


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_without_a_template_in_the_batch_the_recovery_isnt_run_and_nothing_else_changes(trainable, weight):
    fake, none = with_rectangles(sample_images(3)).requires_grad_(), torch.full((3,), NO_TEMPLATE)
    disc = MaLPDiscriminator(tiny_malp(), trainable, classifier_weight=1.0, template_weight=weight, relative=False)
    runs, out = runs_of_the_recovery(disc), disc.malp.eval()(fake)
    runs.clear()
    losses = disc.generator_loss(fake, none)
    assert not runs and losses.template == 0
    expected = out.map.square().mean() + torch.nn.functional.softplus(out.logit).mean()
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(*(torch.autograd.grad(total, fake) for total in (losses.total, expected)))


@pytest.mark.parametrize("trainable", [False, True])
def test_a_classifier_of_weight_0_tells_its_value_and_needs_no_gradient(trainable):
    fake, index, learns, found = with_rectangles(sample_images(3)).requires_grad_(), torch.zeros(3, dtype=torch.long), [], []
    for weight in (0.0, 1e-30):
        disc = MaLPDiscriminator(tiny_malp(), trainable, classifier_weight=weight, relative=False)
        disc.malp.classifier.register_forward_hook(lambda _, inputs, output: learns.append(output.requires_grad))
        losses = disc.generator_loss(fake, index)
        found.append((losses.total, losses.classifier, *torch.autograd.grad(losses.total, fake)))
    assert learns == [False, True] and found[0][1] > 0
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_the_plain_template_term_of_weight_0_can_be_left_out():
    fake, index = with_rectangles(sample_images(3)).requires_grad_(), torch.tensor([0, NO_TEMPLATE, 0])
    totals = []
    for report in (True, False):
        disc = MaLPDiscriminator(tiny_malp(), report_template=report)
        runs = runs_of_the_recovery(disc)
        totals.append(disc.generator_loss(fake, index))
        assert len(runs) == report and (totals[-1].template > 0) == report
    torch.testing.assert_close(totals[1].total, totals[0].total)
    torch.testing.assert_close(*(torch.autograd.grad(losses.total, fake) for losses in totals))
    assert MaLPDiscriminator(tiny_malp(), template_weight=1.0, report_template=False).generator_loss(fake, index).template > 0
