"""Every update of a fine-tuning step can be called by itself, moves its own network and no other, and leaves the batches as they were."""

from __future__ import annotations

import contextlib
import copy
import dataclasses

import pytest
import torch
from accelerate import Accelerator

from benchmarks import finetune_step as benchmark
from malp_disc import MaLPDiscriminator
from malp_disc.backbones import near_nyquist
from malp_disc.data.faces import ProceduralFaces
from malp_disc.manipulate import Editor
from malp_disc.training import finetune_step
from malp_disc.training.batches import steps
from malp_disc.training.diff_augment import augment
from malp_disc.training.finetune import ArmSetup, FineTuning
from malp_disc.training.finetune_step import FinetuneStep, Networks, map_peak
from malp_disc.training.gradient_balance import GradientBalance
from malp_disc.training.guards import FiniteSteps
from malp_disc.training.options import FinetuneOptions, make_optimizer
from tests.recipes.engine import ToyGenerator, ToyLosses
from tests.tiny import sample_images, tiny_malp


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def make_step(accelerator, tmp_path, *, balanced: bool = False, accumulation: int = 2, templates: bool = True, **options) -> tuple[FinetuneStep, list]:
    torch.manual_seed(0)
    config = FinetuneOptions(output_dir=tmp_path, train_batch_size=2, gradient_accumulation_steps=accumulation, max_train_steps=3, mixed_precision="no", **options)
    generator = ToyGenerator().eval()
    learning = {"template_dropout": 0.5} if templates else {"template_dropout": 1.0, "train_template": False, "report_template": False}
    malp = MaLPDiscriminator(tiny_malp(image_size=16, branch=None), trainable=True, **learning)
    networks = Networks(Editor(generator), copy.deepcopy(generator).requires_grad_(False), ToyLosses(), malp)
    optimizers = {name: make_optimizer(name, network, config) for name, network in networks.trained.items()}
    balance = GradientBalance(generator.last.weight, 0.5) if balanced else None
    step = FinetuneStep(networks, optimizers, config, accelerator, guard=FiniteSteps(0), balance=balance)
    _, batches = next(steps(ProceduralFaces(16, image_size=16), config, accelerator, start=0))
    return step, batches


def moved(step: FinetuneStep, update) -> set[str]:
    """The networks whose weights `update` changes."""
    before = {name: copy.deepcopy(network.state_dict()) for name, network in step.networks.trained.items()}
    update()
    after = {name: network.state_dict() for name, network in step.networks.trained.items()}
    return {name for name in before if any(not torch.equal(value, after[name][key]) for key, value in before[name].items() if key != "scale")}


def test_each_update_moves_its_own_network_alone(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path)
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    assert moved(step, lambda: step.update_discriminator(1, batches, fakes)) == {"D"}
    assert moved(step, lambda: step.update_generator(1, batches, fakes, malp_weight=1.0)) == {"G"}
    assert moved(step, lambda: step.update_malp(1, batches, fakes)) == {"MaLP"}
    left = [name for network in step.networks.trained.values() for name, p in network.named_parameters() if p.grad is not None and p.grad.any()]
    assert not left, "no gradient is left for the next update"


@pytest.mark.parametrize("options", [{}, {"augmentation": ("color",)}, {"balanced": True}])
def test_one_pass_of_the_generators_images_through_malp_serves_both_updates(accelerator, tmp_path, options, monkeypatch):
    """With passes of its own MaLP's update gives the same weights but for rounding, and G's to the last bit."""

    def updated(shared: bool) -> tuple[dict, int]:
        step, batches = make_step(accelerator, tmp_path, accumulation=1, templates=False, **options)
        malp, passed = step.networks.malp, []
        if not shared:
            monkeypatch.setattr(type(malp), "shares_map", False)
        malp.malp.cnn.register_forward_hook(lambda _, inputs, output: passed.append(len(inputs[0])))
        batches = step.present(batches)
        fakes = step.generate(batches, keep_graph=True)
        _, fakes, known = step.update_generator(1, batches, fakes, malp_weight=1.0, measure_balance="balanced" in options)
        assert (known["known_map"] is not None) == shared
        assert moved(step, lambda: step.update_malp(1, batches, fakes, known)) == {"MaLP"}
        return {name: network.state_dict() for name, network in step.networks.trained.items()}, sum(passed)

    (weights, passed), (apart, passed_apart) = updated(True), updated(False)
    assert (passed, passed_apart) == (4, 6)
    torch.testing.assert_close(weights["G"], apart["G"], rtol=0, atol=0)
    torch.testing.assert_close(weights["MaLP"], apart["MaLP"], rtol=0, atol=1e-6)


def test_with_several_micro_batches_nothing_is_kept_of_them(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, accumulation=2, templates=False)
    batches = step.present(batches)
    *_, known = step.update_generator(1, batches, step.generate(batches, keep_graph=True), malp_weight=1.0)
    assert known == {}


def test_the_generator_is_kept_near_what_it_was_also_where_the_backbone_sees_nothing(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, accumulation=1, keep_weight=2.0, keep_nyquist_weight=5.0)
    batches = step.present(batches)
    with torch.no_grad():
        step.networks.editor.generator.last.weight *= 1.5
    fakes = step.generate(batches, keep_graph=True)
    kept = step.networks.before.manipulate(batches[0].shown, batches[0].target)
    difference = fakes[0].detach() - kept
    terms, *_ = step.update_generator(1, batches, fakes, malp_weight=1.0)
    torch.testing.assert_close(terms["G/keep"], 2 * difference.abs().mean())
    torch.testing.assert_close(terms["G/keep_nyquist"], 5 * near_nyquist(difference))
    assert terms["G/keep_nyquist"] > 0


def test_presenting_gives_new_batches_and_the_encrypted_images(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path)
    presented = step.present(batches)
    for batch, shown in zip(batches, presented):
        assert batch.shown is None and batch.index is None
        with_template = shown.index >= 0
        changed = (shown.shown != batch.images).flatten(1).any(1)
        assert torch.equal(changed, with_template), "images without a template are shown as they are"
    plain = step.present(batches, encrypted=False)
    assert all(torch.equal(batch.shown, batch.images) and batch.index is None for batch in plain)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_template_dropout_is_the_share_of_the_images_without_a_template(accelerator, tmp_path, dropout):
    step, batches = make_step(accelerator, tmp_path)
    step.networks.malp.template_dropout = dropout
    assert all(((batch.index < 0) == (dropout == 1)).all() for batch in step.present(batches))


def test_every_arm_draws_the_same_random_numbers(accelerator, tmp_path):
    """So that the arms of a run differ in nothing but MaLP."""
    drawn = []
    for has_malp, encrypted in ((True, True), (True, False), (False, True)):
        step, batches = make_step(accelerator, tmp_path)
        step.networks.malp = step.networks.malp if has_malp else None
        presented = step.present(batches, encrypted=encrypted)
        drawn.append(torch.cat([torch.cat([batch.numbers, batch.noise.uniform()[:, None], batch.noise.uniform(3)], 1) for batch in presented]))
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_malp_sees_each_version_of_an_image_augmented_alike_with_its_template_and_labels(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, accumulation=1, augmentation=("color",))
    malp, told = step.networks.malp, []
    (batch,) = batches = [dataclasses.replace(batch, reference=sample_images(2, 16, 16), target=1 - batch.labels) for batch in step.present(batches)]
    assert not torch.equal(batch.shown, batch.images)
    (fake,) = fakes = step.generate(batches, keep_graph=True)

    def augmented(images):
        return augment(images, batch.numbers, ("color",))

    calibrate, generator_loss = malp.calibrate, malp.generator_loss
    malp.calibrate = lambda given: calibrate(told.append(one) or one for one in given)
    malp.generator_loss = lambda *given, keep_map: told.append(given) or generator_loss(*given, keep_map=keep_map)
    malp.register_forward_pre_hook(lambda _, inputs, named: told.append((inputs, named)), with_kwargs=True)
    step.calibrate(batches, fakes)
    step.update_generator(1, batches, fakes, malp_weight=1.0)
    step.update_malp(1, batches, fakes)
    *by_the_generator, (seen, named) = told
    assert len(by_the_generator) == 2
    for given in by_the_generator:
        assert torch.equal(given[0], augmented(fake)) and torch.equal(given[1], batch.index) and torch.equal(given[2], batch.target)
    assert all(map(torch.equal, seen, (augmented(batch.images), augmented(batch.shown), augmented(fake), batch.index))) and not seen[2].requires_grad
    assert torch.equal(named["real"], augmented(batch.reference)) and torch.equal(named["labels"], batch.labels) and torch.equal(named["target"], batch.target)


def test_the_edit_strength_is_the_distance_from_the_unprotected_image(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path)
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    expected = torch.cat([(fake - batch.images).abs() for fake, batch in zip(fakes, batches)]).mean().item()
    assert step.calibrate(batches, fakes)["edit_strength"] == pytest.approx(expected, rel=1e-5)
    assert step.update_generator(1, batches, fakes, malp_weight=1.0)[0]["G/edit_strength"].item() == pytest.approx(expected, rel=1e-5)


def test_the_balance_is_that_of_the_unweighted_losses(accelerator, tmp_path):
    weights = []
    for malp_weight in (0.1, 10.0):
        step, batches = make_step(accelerator, tmp_path, balanced=True)
        batches = step.present(batches)
        step.update_generator(1, batches, step.generate(batches, keep_graph=True), malp_weight=malp_weight, measure_balance=True)
        weights.append(step.balance.weight)
    assert weights[0] == pytest.approx(weights[1], rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_graph_of_a_single_micro_batch_is_kept_and_that_of_several_is_not(accelerator, tmp_path, accumulation):
    step, batches = make_step(accelerator, tmp_path, accumulation=accumulation)
    fakes = step.generate(step.present(batches), keep_graph=True)
    assert [fake.requires_grad for fake in fakes] == [accumulation == 1] * accumulation
    assert not any(fake.requires_grad for fake in step.generate(step.present(batches), keep_graph=False))


def test_an_image_of_another_process_that_isnt_finite_is_noticed_too(accelerator, tmp_path, monkeypatch):
    step, batches = make_step(accelerator, tmp_path)
    batches = step.present(batches)
    assert step.generate(batches, keep_graph=True) is not None
    monkeypatch.setattr(finetune_step, "mean_over_processes", lambda values: values + torch.tensor([0.5, 0.0]))
    assert step.generate(batches, keep_graph=True) is None


@pytest.mark.parametrize("longest", [None, 1e-3])
def test_a_networks_gradient_is_scaled_down_to_the_longest_norm(accelerator, tmp_path, longest):
    step, batches = make_step(accelerator, tmp_path, max_grad_norm=longest)
    step.optimizers = {name: torch.optim.SGD(network.parameters(), lr=1.0) for name, network in step.networks.trained.items()}
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    updates = {
        "D": lambda: step.update_discriminator(1, batches, fakes),
        "G": lambda: step.update_generator(1, batches, fakes, malp_weight=1.0),
        "MaLP": lambda: step.update_malp(1, batches, fakes),
    }
    for name, update in updates.items():
        network = step.networks.trained[name]
        before = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        update()
        length = (torch.nn.utils.parameters_to_vector(network.parameters()) - before).norm().item()
        assert length > 0.01 if longest is None else length == pytest.approx(longest, rel=1e-3), name


class HalfPrecision:
    """Accelerate's part in a step on a GPU in float16: it scales losses and gradients, on the CPU here."""

    def __init__(self) -> None:
        self.scaler, self.told = torch.amp.GradScaler("cpu", init_scale=1024.0), []
        self.autocast, self.print = contextlib.nullcontext, self.told.append

    def no_sync(self, network):
        return contextlib.nullcontext()

    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def unscale_gradients(self, optimizer):
        self.scaler.unscale_(optimizer)

    def prepared(self, optimizer):
        """Its step is left out where a gradient isn't finite, and lowers the scale then."""
        plain = optimizer.step

        def step() -> None:
            optimizer.step = plain  # the scaler calls it
            self.scaler.step(optimizer)
            self.scaler.update()
            optimizer.step = step

        optimizer.step = step
        return optimizer


def test_in_half_precision_an_overflow_lowers_the_scale_and_a_nan_of_the_loss_counts_as_skipped(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, max_grad_norm=1e-3)
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    step.accelerator, step.guard = HalfPrecision(), FiniteSteps(1)
    network, scaler = step.networks.objective, step.accelerator.scaler
    step.optimizers["D"] = step.accelerator.prepared(torch.optim.SGD(network.parameters(), lr=1.0))

    def moved_by() -> float:
        before = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        step.update_discriminator(1, batches, fakes)
        return (torch.nn.utils.parameters_to_vector(network.parameters()) - before).norm().item()

    assert moved_by() == pytest.approx(1e-3, rel=1e-3), "the gradient is clipped after it is unscaled"
    overflow = network.discriminator[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    assert moved_by() == 0 and (step.guard.skipped, scaler.get_scale(), step.accelerator.told) == (0, 512.0, [])
    overflow.remove()
    forward, network.forward = network.forward, lambda fake, batch: {"adversarial": float("nan") * network.discriminator(fake).mean()}
    assert moved_by() == 0 and (step.guard.skipped, scaler.get_scale()) == (1, 256.0)
    assert "the gradient of the generator's own discriminator isn't finite (D/adversarial = nan)" in step.accelerator.told[0]
    network.forward = forward
    assert moved_by() == pytest.approx(1e-3, rel=1e-3), "the scaler is ready for the next step"


def test_images_on_another_scale_are_refused_where_malp_would_see_them(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path)
    batches = step.present(batches)
    step.networks.editor.forward = lambda images, *labels: 100 * images
    with pytest.raises(ValueError, match=r"expected fake in \[-1, 1\]"):
        step.generate(batches, keep_graph=False)
    step.networks.malp = None
    assert step.generate(batches, keep_graph=False)[0].max() > 10


def test_the_peak_of_a_map_is_that_of_each_image():
    malp, fakes = tiny_malp(), [sample_images(2), sample_images(2, seed=1)]
    torch.nn.init.normal_(malp.cnn.map_head.weight)
    peaks = [malp(image).map.max().item() for fake in fakes for image in fake.split(1)]
    assert len(set(peaks)) == 4
    assert map_peak(malp, fakes).item() == pytest.approx(sum(peaks) / 4, rel=1e-5)


def test_the_images_for_malp_are_those_from_before_the_generators_update(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path)
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    terms, seen, _ = step.update_generator(1, batches, fakes, malp_weight=0.3)
    assert all(torch.allclose(a.detach(), b, atol=1e-6) and not b.requires_grad for a, b in zip(fakes, seen))
    assert not torch.equal(step.generate(batches, keep_graph=False)[0], seen[0])
    assert {"G/adversarial", "G/reconstruction", "G/malp", "G/map", "G/edit_strength"} == set(terms)


def test_calibrating_fixes_malps_scale_and_weight_and_moves_nothing(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, balanced=True)
    batches = step.present(batches)
    fakes = step.generate(batches, keep_graph=True)
    started = {}
    assert moved(step, lambda: started.update(step.calibrate(batches, fakes))) == set()
    assert set(started) == {"edit_strength", "map"} and step.balance.weight > 0
    assert step.networks.malp.scale[0] == pytest.approx(started["map"], rel=1e-5)


def test_an_image_that_isnt_finite_is_noticed_before_any_update(accelerator, tmp_path):
    step, batches = make_step(accelerator, tmp_path, accumulation=1)
    batches = step.present(batches)
    with torch.no_grad():
        step.networks.editor.generator.last.weight.fill_(float("nan"))
    assert step.generate(batches, keep_graph=True) is None


class WithFrozenFeatures(ToyLosses):
    """Also has a pretrained network that measures a loss, as a perceptual or identity loss does: frozen, and in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5)).eval().requires_grad_(False)

    def generator_loss(self, fake, batch, edit) -> dict[str, torch.Tensor]:
        distance = (self.features(fake) - self.features(batch.images)).square().mean()
        return {**super().generator_loss(fake, batch, edit), "perceptual": distance}


def test_parts_of_the_users_losses_stay_in_their_modes(accelerator, tmp_path):
    """In training mode a frozen network would drift in its running statistics, and differ from one call to the next."""
    config = FinetuneOptions(output_dir=tmp_path, train_batch_size=2, max_train_steps=2, mixed_precision="no")
    losses = WithFrozenFeatures()
    training = FineTuning("control", ArmSetup(), ToyGenerator().eval(), losses, ProceduralFaces(8, image_size=16), config, accelerator)
    training.run()
    tuned = training.networks.objective
    assert not any(part.training for part in tuned.features.modules()) and tuned.discriminator.training
    assert torch.equal(tuned.features[1].running_mean, losses.features[1].running_mean)
    assert not torch.equal(tuned.discriminator[0].weight, losses.discriminator[0].weight)


def test_the_benchmark_of_a_step_needs_the_loop_that_the_others_are_compared_with():
    with pytest.raises(SystemExit, match="expected control among --loops, which the others are compared with, got frozen, joint"):
        benchmark.main(benchmark.Config(loops=("frozen", "joint")))
