"""Whose statistics a norm uses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generators.norms import BatchNorm, Dropout, InstanceNorm, batch_norm, image_norm, make_norm


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1) + 0.5


def seeded(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return norm


@pytest.mark.parametrize("training", [False, True])
def test_an_images_statistics_are_those_of_a_batch_of_one(features, training):
    """By hand: (x - mean) / sqrt(biased variance + eps) · weight + bias over the image alone, in either mode; nothing is remembered."""
    norm = seeded(BatchNorm(4, statistics="image")).train(training)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    output = norm(features)
    mean, variance = features.mean((2, 3), keepdim=True), features.var((2, 3), correction=0, keepdim=True)
    expected = (features - mean) / (variance + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    assert torch.allclose(output, expected, atol=1e-5)
    norm.statistics = "batch"
    for i in range(3):
        assert torch.allclose(norm(features[i : i + 1]), output[i : i + 1], atol=1e-5)
    assert not torch.allclose(norm(features), output, atol=0.1)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_running_statistics_are_torchs_batch_norm(features):
    ours, torchs = seeded(BatchNorm(4)), nn.BatchNorm2d(4)
    torchs.load_state_dict(ours.state_dict())
    for training in (False, True, False):
        assert torch.equal(ours.train(training)(features), torchs.train(training)(features))
    assert all(torch.equal(value, torchs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_instance_norms_carry_buffers_without_reading_or_moving_them(features):
    plain, tracked = InstanceNorm(4), InstanceNorm(4, tracked=True)
    assert list(plain.state_dict()) == [] and list(tracked.state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]
    tracked.running_mean.fill_(3.0)
    for training in (False, True):
        assert torch.equal(tracked.train(training)(features), plain(features))
    assert (tracked.running_mean == 3).all() and (tracked.running_var == 1).all() and tracked.num_batches_tracked == 0


def test_one_pixel_becomes_the_bias_exactly():
    """Its normalised value is 0; torch's own refuse it, or leave rounding errors times 1 / sqrt(eps)."""
    x = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight, bias = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(image_norm(x, weight, bias, 1e-6), bias.view(1, 3, 1, 1).expand(2, -1, -1, -1))
    assert torch.equal(batch_norm(x[:1], weight, bias, 1e-6), bias.view(1, 3, 1, 1))
    assert not torch.equal(batch_norm(x, weight, bias, 1e-6)[:1], bias.view(1, 3, 1, 1))
    image_norm(x, weight, bias, 1e-6).sum().backward()
    assert not x.grad.any()
    assert not image_norm(x, None, None, 1e-6).any()


def test_without_a_counter_a_state_dict_without_one_loads():
    norm = BatchNorm(2, counter=False)
    state = {key: value.clone() + 1 for key, value in norm.state_dict().items()}
    assert list(state) == ["weight", "bias", "running_mean", "running_var"]
    norm.load_state_dict(state)
    assert (norm.running_mean == 1).all()
    x = torch.randn(2, 2, 3, 3)
    expected = (x - 1) / (2 + norm.eps) ** 0.5 * 2 + 1
    assert torch.allclose(norm.eval()(x), expected, atol=1e-5)


def test_dropout_is_off_in_evaluation_unless_it_is_the_noise():
    x = torch.ones(1, 1, 20, 20)
    assert torch.equal(Dropout().eval()(x), x)
    assert not torch.equal(Dropout().train()(x), x) and not torch.equal(Dropout(always=True).eval()(x), x)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="expected norm 'batch', 'instance' or 'instance_tracked', got 'layer'"):
        make_norm("layer", 4)
    with pytest.raises(ValueError, match="expected statistics out of .*, got 'mine'"):
        make_norm("batch", 4, statistics="mine")
