"""What goes wrong is named with its step, once; what is well is let pass."""

from __future__ import annotations

import re

import pytest
import torch

from malp_disc.training.guards import FiniteSteps, TrainingMonitor, TrainingStopped, gradient_norm


def test_finite_steps_pass_and_others_are_named_counted_and_at_last_too_many():
    guard = FiniteSteps(2, skipped=1)
    assert guard.allow(3, "G", torch.tensor(1e30), {}) is None and guard.skipped == 1
    said = guard.allow(7, "the generator", torch.tensor(float("inf")), {"map": torch.tensor(0.5), "own": torch.tensor(float("nan"))})
    assert said == "step 7: the gradient of the generator isn't finite (own = nan); it is skipped, 2 of at most 2"
    with pytest.raises(TrainingStopped, match=r"step 9: the gradient of MaLP isn't finite \(though every term of the loss is\); 2 steps were skipped.*--max-grad-norm"):
        guard.allow(9, "MaLP", float("nan"), {"total": 1.0})


def test_the_norm_is_over_all_gradients_and_zero_without_any():
    layer = torch.nn.Linear(1, 2)
    assert gradient_norm(layer.parameters()) == 0
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0], [0.0]]), torch.tensor([0.0, 4.0])
    assert gradient_norm(layer.parameters()).item() == pytest.approx(5)
    layer.bias.grad[0] = float("nan")
    assert gradient_norm(layer.parameters()).isnan()


HEALTHY = {"edit_strength": 0.2, "map": 0.01, "map_peak": 0.5}


def watching(**state) -> TrainingMonitor:
    watch = TrainingMonitor(**state)
    watch.begin({"edit_strength": 0.2, "map": 0.01})
    return watch


def test_a_healthy_run_is_left_in_peace():
    watch = watching()
    for step in range(5):
        assert watch.check(step, {**HEALTHY, "map": 0.01 - 0.002 * step, "edit_strength": 0.2 - 0.02 * step}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"edit_strength": 0.09}, r"step 4: the generator edits less and less: .* 0.0900, 45% of its initial value"),
        ({"map_peak": 5e-5, "map": 1e-9}, r"step 4: MaLP's map is dead: its largest value is 5.0e-05"),
        ({"map": 5e-5}, r"step 4: MaLP is fooled completely: .* has 0.5% of its initial mean square"),
    ],
)
def test_each_trouble_is_told_once_also_over_a_resume(values, message):
    watch = TrainingMonitor(state=watching().state)
    (said,) = watch.check(4, {**HEALTHY, **values})
    assert re.match(message, said)
    assert watch.check(5, {**HEALTHY, **values}) == []
    assert TrainingMonitor(state=watch.state).check(6, {**HEALTHY, **values}) == []


def test_an_arm_without_malp_is_watched_by_its_edits_alone():
    watch = TrainingMonitor()
    watch.begin({"edit_strength": 0.2})
    assert watch.check(1, {"edit_strength": 0.2}) == []
    assert len(watch.check(2, {"edit_strength": 0.05})) == 1
