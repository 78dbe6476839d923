"""What of a generator would spoil a fine-tuning is said in one sentence before it begins, and a sound one passes."""

from __future__ import annotations

import re
import sys
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from malp_disc.data.faces import ProceduralFaces
from malp_disc.generator_objective import check_losses
from malp_disc.training.generator_checks.interface import check_generator, require_usable
from tests.test_manipulate import batch_of
from tests.tiny import sample_images

IMAGES = torch.stack([ProceduralFaces(3, image_size=16)[i][0] for i in range(3)])
TARGET = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)

    def manipulate(self, images, target):
        return self.finish((images + 0.5 * torch.tanh(self.last(torch.tanh(self.first(images))))).clamp(-1, 1), images)

    def finish(self, edited, images):
        return edited


def sick(finish=None, **methods):
    """A sound generator but for what is done to its result, or for other methods."""
    return type("Sick", (Sound,), {**methods, **({"finish": lambda self, y, x: finish(y, x)} if finish else {})})()


def closing_over() -> nn.Module:
    generator = Sound()
    generator.manipulate = lambda images, target: Sound.manipulate(generator, images, target)
    return generator


def hooked() -> nn.Module:
    """A hook that keeps the original's weight in the game."""
    generator = Sound()
    generator.last.register_forward_hook(lambda module, inputs, output: output + generator.first.bias.sum())
    return generator


def unregistered() -> nn.Module:
    generator = Sound()
    generator.parts = [generator.first, generator.last]
    del generator._modules["first"], generator._modules["last"]
    generator.__dict__.update(first=generator.parts[0], last=generator.parts[1])
    return generator


def wrapped() -> nn.Module:
    generator = Sound()
    generator.last = nn.DataParallel(generator.last)
    return generator


def lazy() -> nn.Module:
    generator = Sound()
    generator.last = nn.LazyConv2d(3, 1)
    return generator


def with_file() -> nn.Module:
    generator = Sound()
    generator.log = open(__file__)
    return generator


def inside(context):
    def manipulate(self, images, target):
        with context():
            return Sound.manipulate(self, images, target)

    return sick(manipulate=manipulate)


def checkpointed(reentrant: bool) -> nn.Module:
    def manipulate(self, images, target):
        inner = checkpoint(lambda x: torch.tanh(self.first(x)), images, use_reentrant=reentrant)
        return (images + 0.5 * torch.tanh(self.last(inner))).clamp(-1, 1)

    return sick(manipulate=manipulate)


def changing_itself() -> nn.Module:
    def manipulate(self, images, target):
        self.last.bias.data += 0.01
        return Sound.manipulate(self, images, target)

    return sick(manipulate=manipulate)


def declared_beside_a_function() -> nn.Module:
    generator = sick(target_kind="none")
    generator.manipulate = lambda images, target: images
    return generator


def around_an_stgan(**declared: str) -> nn.Module:
    """A sound generator that has a part which takes the change of the labels, and may or may not say that it takes it too."""
    generator = sick(**declared)
    generator.add_module("editor", type("Inner", (nn.Identity,), {"target_kind": "change"})())
    return generator


def with_buffer(value: torch.Tensor) -> nn.Module:
    generator = Sound()
    generator.register_buffer("mask", value)
    return generator


PROBLEMS = {
    "a sparse buffer": (lambda: with_buffer(torch.eye(3).to_sparse()), "mask is a sparse tensor.*to_dense"),
    "state that isn't a tensor": (lambda: sick(get_extra_state=lambda self: {"epoch": 3}), "state_dict\\(\\) has a dict with epoch as '_extra_state', and a checkpoint holds tensors only"),
    "a state_dict that fails": (lambda: sick(state_dict=lambda self, **options: 1 / 0), "state_dict\\(\\) fails: ZeroDivisionError"),
    "a rounded result": (lambda: sick(lambda y, x: (127.5 * y).round() / 127.5), "all 4 gradients are zero.*rounded to 8 bits.*Remove the rounding"),
    "bytes and back": (lambda: sick(lambda y, x: (127.5 * y + 127.5).byte().float() / 127.5 - 1), "depend on its.*rounding to 8 bits"),
    "detached beside its input": (lambda: sick(lambda y, x: 0.5 * x + 0.5 * y.detach()), "depend on its parameters.*detach"),
    "through numpy": (lambda: sick(lambda y, x: torch.from_numpy(y.detach().numpy())), "no gradient passes manipulate.*numpy"),
    "no_grad": (lambda: inside(torch.no_grad), "no gradient passes manipulate.*no_grad"),
    "inference_mode": (lambda: inside(torch.inference_mode), "no gradient passes manipulate.*inference_mode"),
    "reentrant checkpoint": (lambda: checkpointed(True), "use_reentrant=True.*use_reentrant=False"),
    "nothing requires a gradient": (lambda: Sound().requires_grad_(False), "none of its 4 parameters requires a gradient"),
    "no parameters": (unregistered, "has no parameters.*ModuleList"),
    "half precision": (lambda: Sound().half(), "weights are float16.*float32"),
    "lambda over the original": (closing_over, "a copy of it still computes with the weights of the original"),
    "hook over the original": (hooked, r"weights of the original \(first.bias\)"),
    "an open file": (with_file, "its attribute log is a TextIOWrapper"),
    "DataParallel inside": (wrapped, "last is wrapped in DataParallel.*self.last.module"),
    "lazy": (lazy, "lazy layer that has seen no image yet"),
    "meta": (lambda: Sound().to("meta"), "meta device"),
    "in 0..1": (lambda: sick(lambda y, x: (y + 1) / 2), r"looks like \[0, 1\]"),
    "in 0..255": (lambda: sick(lambda y, x: 127.5 * (y + 1)), "looks like 0..255"),
    "NaN": (lambda: sick(lambda y, x: y / 0 * 0), "NaN"),
    "a tuple": (lambda: sick(lambda y, x: (y, x[:, :1])), r"returns a tuple.*result\[0\]"),
    "squeezed": (lambda: sick(lambda y, x: y.squeeze(0)), "a batch of one image.*squeeze"),
    "one argument": (lambda: sick(manipulate=lambda self, images: images), r"manipulate\(images\) can't be called with two arguments"),
    "no manipulate": (lambda: nn.Conv2d(3, 3, 1), "a Conv2d without manipulate"),
    "wrapped as a whole": (lambda: nn.DataParallel(Sound()), "a DataParallel without manipulate.*its .module"),
    "not a module": (lambda: (Sound(), None), "a tuple .*without manipulate"),
    "an error of its own": (lambda: sick(lambda y, x: y @ torch.zeros(3, 3)), "failed on .*RuntimeError.*test_generator_checks.py, line"),
    "ending the program": (lambda: sick(lambda y, x: sys.exit(3)), "failed on .*SystemExit: 3.*test_generator_checks.py, line"),
    "changing its weights": (changing_itself, r"changes its own weights \(last.bias\)"),
    "an eval of its own": (lambda: sick(eval=lambda self: 1 / 0), "eval.* fails: ZeroDivisionError"),
    "training mode": (lambda: sick(manipulate=lambda self, images, target: Sound.manipulate(self.train(), images, target)), "into training mode"),
    "freezing itself": (lambda: sick(manipulate=lambda self, images, target: Sound.manipulate(self.requires_grad_(False), images, target)), "sets requires_grad"),
    "an unknown kind of target": (lambda: sick(target_kind="changes"), r"target_kind = 'changes' \(did you mean 'change'\?\); expected one of 'labels', 'change'"),
    "a change without the current labels": (lambda: sick(target_kind="change"), "can't be told from the desired labels alone; pass the current ones"),
    "several labels for a domain": (lambda: sick(target_kind="domain"), "exactly one label of every image must be 1.*one sub-folder per domain"),
    "a kind that its function doesn't know of": (declared_beside_a_function, "declares target_kind = 'none', and its manipulate is a function.*make manipulate a method"),
    "NaN gradients": (lambda: sick(lambda y, x: torch.where(y > 9, y, 0.9 * y + 0 * (y - y).abs().sqrt())), "not finite in"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_said_before_any_work(name):
    make, words = PROBLEMS[name]
    with pytest.raises(ValueError, match=f"(?s)^mine: .*{words}"):
        require_usable(make(), IMAGES, TARGET, source="mine")


def with_lock() -> nn.Module:
    generator = Sound()
    generator.lock = threading.Lock()
    generator.last = torch.nn.utils.spectral_norm(generator.last)
    generator.manipulate(IMAGES, TARGET)
    return generator


def with_dead_weight() -> nn.Module:
    generator = Sound()
    generator.idle = nn.Linear(2, 2)
    return generator


@pytest.mark.parametrize(
    "make",
    [Sound, with_lock, lambda: around_an_stgan(target_kind="labels"), lambda: checkpointed(False), lambda: sick(lambda y, x: y.half()), lambda: sick(lambda y, x: y + (y.round() - y).detach() * 0.01)],
)
def test_a_sound_generator_passes_without_a_word_and_is_left_as_it_was(make):
    generator = make().train()
    before, state, told = {key: value.clone() for key, value in generator.state_dict().items()}, torch.get_rng_state(), []
    require_usable(generator, IMAGES, TARGET, source="mine", tell=told.append)
    assert told == [] and generator.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items()) and all(p.grad is None for p in generator.parameters())


def noisy(y, x):
    return (y + 0.1 * torch.rand_like(y)).clamp(-1, 1)


def counting() -> nn.Module:
    generator = sick(manipulate=lambda self, images, target: (self.calls.add_(1), Sound.manipulate(self, images, target))[1])
    generator.register_buffer("calls", torch.zeros(()))
    return generator


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sick(noisy), "another result the second time"),
        (lambda: sick(lambda y, x: (y - 0.3 * y.mean(0, keepdim=True)).clamp(-1, 1)), "depends on what stands beside it"),
        (with_dead_weight, "reach 4 of 6 weights; idle.weight, idle.bias: no part"),
        (counting, r"changes its buffers in evaluation mode \(calls\)"),
        (lambda: sick(lambda y, x: x + 0 * y + 1e-6 * y), "copies its input"),
        (around_an_stgan, "given the desired labels.*but its part editor declares target_kind = 'change'; declare it too if manipulate passes its target on"),
    ],
)
def test_what_is_worth_knowing_is_told_and_doesnt_stop_the_run(make, words):
    told = []
    require_usable(make(), IMAGES, TARGET, source="mine", tell=told.append)
    assert any(re.search(words, line) for line in told), told


def test_measuring_asks_for_no_gradients():
    require_usable(Sound().requires_grad_(False), IMAGES, TARGET, source="mine", training=False)
    findings, subject = check_generator(sick(lambda y, x: (127.5 * y).round() / 127.5), IMAGES, TARGET, training=False)
    assert {finding.level for finding in findings} == {"ok"} and subject is not None


class Losses(nn.Module):
    def __init__(self, result=None, learns: bool = False) -> None:
        super().__init__()
        self.weight, self.result = nn.Parameter(torch.ones(()), requires_grad=learns), result

    def generator_loss(self, fake, batch, edit):
        return {"own": fake.mean()} if self.result is None else {"own": self.result(fake)}


class Learning(Losses):
    def forward(self, fake, batch):
        return {"own": self.result(self.weight)}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(1, 1), "mine: got a Linear; expected an nn.Module with generator_loss"),
        (lambda: Losses(lambda fake: fake.detach().mean()), "terms of generator_loss have no gradient"),
        (lambda: Losses(lambda fake: fake @ torch.zeros(3, 3)), r"generator_loss failed: RuntimeError.*test_generator_checks.py, line"),
        (lambda: Losses(lambda fake: sys.exit(3)), "generator_loss failed: SystemExit"),
        (lambda: Losses(learns=True), "forward is missing"),
        (lambda: Learning(lambda x: x.detach().mean(), learns=True), "gradient"),
        (lambda: Losses(lambda fake: fake.mean() * torch.nan), "mine: generator_loss: 'own' is nan for the first images"),
        (lambda: Learning(lambda x: x.mean() if x.ndim else x * torch.nan, learns=True), "mine: forward: 'own' is nan"),
    ],
)
def test_losses_are_tried_before_any_work(make, words):
    with pytest.raises(ValueError, match=words):
        check_losses(make(), batch_of(sample_images(2)), lambda images, target, current=None: images, source="mine")


def test_sound_losses_pass():
    check_losses(Losses(), batch_of(sample_images(2)), lambda images, target: images, source="mine")


def test_a_loss_that_is_infinite_for_unchanged_images_alone_passes():
    images = sample_images(2)
    check_losses(Losses(lambda fake: (fake - images).square().mean().log()), batch_of(images), lambda images, target, current=None: 0.5 * images, source="mine")
