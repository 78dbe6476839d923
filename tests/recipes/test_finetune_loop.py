"""What the loop does around its steps: learning rates, the moving average, grids, the best step on the way, and what a checkpoint brings back."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.finetune import ArmSetup, FineTuning
from malp_disc.training.options import FinetuneOptions, learning_rate_factor
from tests.recipes.engine import ToyGenerator, ToyLosses
from tests.tiny import sample_images, tiny_malp

FACES = ProceduralFaces(16, image_size=16)


@pytest.fixture
def tuning(tmp_path):
    """A fine-tuning of the toy generator, the same one every time."""

    def make(setup: ArmSetup | None = None, *, generator: nn.Module | None = None, quick_distance=None, sample_grid=None, **options) -> FineTuning:
        torch.manual_seed(0)
        config = FinetuneOptions(**{"output_dir": tmp_path, "train_batch_size": 2, "max_train_steps": 3, "log_steps": 1, "eval_steps": 0, "mixed_precision": "no", **options})
        before, losses = generator or ToyGenerator().train(), ToyLosses()
        return FineTuning("arm", setup or ArmSetup(), before, losses, FACES, config, Accelerator(cpu=True), quick_distance=quick_distance, sample_grid=sample_grid)

    return make


def cotrained(**changed) -> ArmSetup:
    return ArmSetup(tiny_malp(image_size=16, branch=None), **{"trainable": True, "weight": 0.5, "template_dropout": 1.0, **changed})


def test_each_network_learns_at_the_rate_of_its_schedule(tuning):
    flags = {"max_train_steps": 6, "lr_warmup_steps": 2, "lr_scheduler": "linear", "cotrain_lr_scheduler": "cosine", "cotrain_learning_rate": 5e-3}
    training, seen = tuning(cotrained(), **flags), []
    training.train_step = lambda *_: seen.append({name: optimizer.param_groups[0]["lr"] for name, optimizer in training.optimizers.items()}) or {}
    training.run()
    rates = {"G": 1e-4, "D": 2e-4, "MaLP": 5e-3}
    assert seen == [{name: pytest.approx(rate * learning_rate_factor(training.config, name, step)) for name, rate in rates.items()} for step in range(6)]


def test_the_moving_average_is_what_is_drawn_measured_kept_and_returned(tuning):
    weights, grids, measured, images, target = [], {}, {}, sample_images(1, 16, 16), torch.ones(1, 5)

    def sample_grid(step, manipulate):
        grids[step] = manipulate(images, target)

    def quick_distance(step, manipulate):
        measured[step] = manipulate(images, target)
        return float(step)

    training = tuning(ema_decay=0.75, learning_rate=1e-2, sample_steps=2, eval_steps=2, quick_distance=quick_distance, sample_grid=sample_grid)
    step = training.train_step
    training.train_step = lambda *arguments: (step(*arguments), weights.append({key: value.clone() for key, value in training.generator.state_dict().items()}))[0]
    start = ToyGenerator()
    start.load_state_dict(training.networks.before.state_dict())
    tuned = training.run()

    second = {key: 0.75 * weights[0][key] + 0.25 * weights[1][key] for key in weights[0]}
    last = {key: 0.75 * second[key] + 0.25 * weights[2][key] for key in second}
    torch.testing.assert_close(dict(tuned.state_dict()), last)
    assert not tuned.training and not torch.equal(last["last.weight"], weights[2]["last.weight"])
    expected = {0: start.manipulate(images, target)}
    for number, average in ((2, second), (3, last)):
        start.load_state_dict(average)
        expected[number] = start.manipulate(images, target)
    torch.testing.assert_close(grids, expected), "before the first step, every --sample-steps, and after the last"
    torch.testing.assert_close(measured, {2: expected[2]})
    folder = training.checkpoints.folder
    assert json.loads((folder / "best.json").read_text()) == {"step": 2, "frechet": 2.0}
    torch.testing.assert_close(load_file(folder / "best.safetensors"), second)


class WithModes(ToyGenerator):
    """With layers that behave otherwise in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def manipulate(self, images, target):
        return super().manipulate(self.dropout(self.norm(images)).clamp(-1, 1), target)


def test_a_generator_in_training_mode_is_tuned_in_evaluation_mode_and_stays_as_it_was(tuning):
    """Its norms keep their statistics and its dropout is off, so an image doesn't depend on the others of its batch."""
    generator = WithModes().train()
    training = tuning(generator=generator)
    training.run()
    assert not any(part.training for part in training.generator.modules()) and generator.training
    assert torch.equal(training.generator.norm.running_mean, torch.zeros(3))
    assert not torch.equal(training.generator.last.weight, generator.last.weight)


def test_a_checkpoint_brings_back_what_was_counted_told_and_balanced(tuning):
    drawn = []
    flags = {"gradient_share": 0.5, "checkpointing_steps": 2, "sample_grid": lambda step, manipulate: drawn.append(step)}
    first = tuning(cotrained(), **flags)
    first.guard.skipped, first.monitor.state["told"] = 3, ["copying"]
    first.run()
    line = json.loads((first.config.output_dir / "curves" / "arm.jsonl").read_text().splitlines()[0])
    assert drawn == [0, 3] and first.balance.weight is not None
    assert first.monitor.state["start"] == {name: pytest.approx(line[f"G/{name}"], rel=1e-5) for name in ("edit_strength", "map")}, "those before the first update"
    again = tuning(cotrained(), resume_from_checkpoint="checkpoint-2", **flags)
    assert (again.first, again.guard.skipped, again.balance.weight) == (2, 3, first.balance.weight)
    assert again.monitor.state == first.monitor.state and again.monitor.state["told"] == ["copying"]
    again.run()
    assert drawn == [0, 3, 3], "the first grid is that of the generator before"
    with pytest.raises(ValueError, match="generator_weights was"):
        tuning(cotrained(), generator=ToyGenerator(), resume_from_checkpoint="checkpoint-2", **flags)


def test_a_first_step_without_finite_images_leaves_calibrating_to_the_next(tuning):
    training = tuning(cotrained(), max_train_steps=2)
    generate, called = training.step.generate, []
    training.step.generate = lambda batches, **options: called.append(1) or (None if len(called) == 1 else generate(batches, **options))
    training.run()
    assert training.guard.skipped == 1 and training.monitor.state["start"]["map"] > 0
    assert training.networks.malp.scale[0].item() == pytest.approx(training.monitor.state["start"]["map"], rel=1e-5)
    assert json.loads((training.config.output_dir / "curves" / "arm.jsonl").read_text())["step"] == 2


def test_the_balance_is_measured_at_first_and_every_ten_steps_and_applies_from_the_next_on(tuning):
    training, told = tuning(cotrained(), gradient_share=0.5, max_train_steps=11), []
    update = training.step.update_generator

    def spied(number, *arguments, **options):
        done = update(number, *arguments, **options)
        told.append((options["measure_balance"], options["malp_weight"], training.balance.weight))
        return done

    training.step.update_generator = spied
    training.run()
    measured, weights, after = zip(*told)
    assert [number for number, measures in enumerate(measured, start=1) if measures] == [10]
    assert len(set(weights[:10])) == 1 and weights[9] != after[9] == weights[10]
    lines = [json.loads(line) for line in (training.config.output_dir / "curves" / "arm.jsonl").read_text().splitlines()]
    assert [line["MaLP/weight"] for line in lines] == pytest.approx(weights)


@pytest.mark.parametrize("trainable", [False, True])
def test_the_malp_of_the_setup_stays_as_it_was_for_the_next_arm(tuning, trainable):
    setup = cotrained(trainable=trainable)
    before = {name: value.clone() for name, value in setup.malp.state_dict().items()}
    training = tuning(setup)
    training.run()
    assert all(torch.equal(value, before[name]) for name, value in setup.malp.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in setup.malp.parameters()) and setup.malp.training
    moved = not all(torch.equal(value, before[name]) for name, value in training.networks.malp.malp.state_dict().items())
    assert moved == trainable


def test_a_second_update_of_the_discriminator_sees_other_images_than_the_first(tuning):
    training, seen = tuning(ArmSetup(second_discriminator_update=True)), []
    update = training.step.update_discriminator
    training.step.update_discriminator = lambda number, batches, fakes: seen.append((number, batches[0].images)) or update(number, batches, fakes)
    training.run()
    assert [number for number, _ in seen] == [1, 1, 2, 2, 3, 3]
    assert not any(torch.equal(one, other) for i, (_, one) in enumerate(seen) for _, other in seen[:i])


@pytest.mark.parametrize(
    ("setup", "watched"),
    [(None, {}), ({}, {"map": "G/map", "map_peak": "MaLP/map_peak"}), ({"map_weight": 0.0, "classifier_weight": 1.0}, {"map_peak": "MaLP/map_peak"})],
    ids=["without MaLP", "map", "classifier"],
)
def test_a_map_that_the_generator_isnt_asked_for_is_not_watched(tuning, setup, watched):
    """It may well be faint."""
    training, seen = tuning(None if setup is None else cotrained(**setup), max_train_steps=1), []
    training.monitor.check = lambda number, values: seen.append(values) or []
    training.run()
    line = json.loads((training.config.output_dir / "curves" / "arm.jsonl").read_text())
    assert seen == [{name: line[key] for name, key in ({"edit_strength": "G/edit_strength"} | watched).items()}]
    assert 0 < line.get("MaLP/map_peak", 0.5) < 1
