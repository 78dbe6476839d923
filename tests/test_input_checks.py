"""`without_value_checks` changes no result, leaves out the checks that a GPU would have to be waited for, and no others; a training step has few of them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from malp_disc import MaLPDiscriminator, without_value_checks
from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.finetune import FineTuning
from malp_disc.training.options import FinetuneOptions
from tests.recipes.engine import ToyGenerator, ToyLosses, setups_of_each_kind
from tests.tiny import sample_images, tiny_malp, with_rectangles

IMAGES = sample_images(3, 16, 16)
FAKE, INDEX = with_rectangles(IMAGES), torch.tensor([0, -1, 0])
TOO_LARGE, NO_TEMPLATE_OF_THE_SET = 300 * FAKE, torch.tensor([0, 5, 0])
OWN_FILES = (Path(__file__).resolve().parents[1] / "malp_disc").as_posix()


def losses(disc: MaLPDiscriminator, fake: torch.Tensor, index: torch.Tensor) -> list[torch.Tensor]:
    """Both losses and their gradients."""
    fake = fake.clone().requires_grad_(True)
    told = disc.generator_loss(fake, index)
    own = disc.discriminator_loss(IMAGES, IMAGES, fake, index)
    (told.total + own.total).backward()
    found = [told.total, own.total, fake.grad, *(p.grad for p in disc.parameters() if p.grad is not None)]
    disc.zero_grad()
    return [value.detach().clone() for value in found]


def make_discriminator() -> MaLPDiscriminator:
    return MaLPDiscriminator(tiny_malp(image_size=16), trainable=True, classifier_weight=1.0, template_weight=1.0)


def test_results_are_the_same_without_the_checks():
    expected = losses(make_discriminator(), FAKE, INDEX)
    with without_value_checks():
        found = losses(make_discriminator(), FAKE, INDEX)
    assert len(found) > 10 and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_values_are_checked_outside_of_it_and_shapes_everywhere():
    disc = make_discriminator()
    with without_value_checks():
        assert disc.generator_loss(TOO_LARGE, INDEX).total.isfinite()
        for fake, index in ((FAKE[:, :1], INDEX), (FAKE, INDEX[:2]), (FAKE.double().long(), INDEX)):
            with pytest.raises(ValueError, match="expected"):
                disc.generator_loss(fake, index)
    for fake, index in ((TOO_LARGE, INDEX), (FAKE, NO_TEMPLATE_OF_THE_SET)):
        with pytest.raises(ValueError, match="expected"):
            disc.generator_loss(fake, index)


def test_it_ends_with_an_error_and_only_with_the_outermost():
    disc = make_discriminator()
    with without_value_checks():
        with pytest.raises(ZeroDivisionError), without_value_checks():
            raise ZeroDivisionError
        disc.generator_loss(TOO_LARGE, INDEX)
    with pytest.raises(ValueError, match="expected fake in"):
        disc.generator_loss(TOO_LARGE, INDEX)


class _ByPython(TorchFunctionMode):
    """Counts the values that this library's own code asks a tensor for, by the line. On a GPU each is a wait."""

    ASKING = {"tolist", "item", "__bool__", "__float__", "__int__", "nonzero", "numpy"}

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in self.ASKING:
            self.lines[caller()] += 1
        return function(*args, **(kwargs or {}))


class _ByTorch(TorchDispatchMode):
    """The same for values that functions of torch ask for (``torch.where(mask)``, an index by a mask), and tensors that are made of Python's numbers."""

    ASKING = {"nonzero.default", "masked_select.default", "equal.default", "lift_fresh.default"}

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).removeprefix("aten.") in self.ASKING:
            self.lines[caller()] += 1
        return function(*args, **(kwargs or {}))


def caller() -> str:
    """The line that asks; of torch's optimizers only in so far as they work on the GPU, which their step counts don't."""
    frame = sys._getframe(2)
    while frame is not None and OWN_FILES not in Path(frame.f_code.co_filename).as_posix():
        if "/torch/optim/" in Path(frame.f_code.co_filename).as_posix():
            return "optimizer"
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@pytest.mark.parametrize("arm", ["control", "frozen", "cotrain", "joint"])
def test_a_training_step_waits_for_its_images_and_each_gradient_norm_alone(arm, tmp_path):
    config = FinetuneOptions(output_dir=tmp_path, train_batch_size=2, max_train_steps=3, log_steps=10, mixed_precision="no")
    training = FineTuning(arm, setups_of_each_kind()[arm], ToyGenerator().eval(), ToyLosses(), ProceduralFaces(16, image_size=16), config, Accelerator(cpu=True))
    plain, waits = training.train_step, Counter()

    def counted(number, batches, more=None):
        if number < 3:  # the first sets the scale, the second finds it set
            return plain(number, batches, more)
        with _ByTorch() as by_torch, _ByPython() as by_python:
            terms = plain(number, batches, more)
        waits.update(by_torch.lines + by_python.lines)
        return terms

    training.train_step = counted
    training.run()
    del waits["optimizer"]
    own = {line: count for line, count in waits.items() if line.startswith("finetune_step.py")}
    assert sum(own.values()) == 1 + len(training.networks.trained), waits
    weights = {line: count for line, count in waits.items() if line.startswith("discriminator.py")}
    assert sum(weights.values()) <= 1, "the weights of the terms, which go to the GPU without a wait"
    assert set(waits) == set(own) | set(weights), waits
