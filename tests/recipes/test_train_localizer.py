"""Training a localizer: one step by its parts, a resumed run by its bytes, the recipe as a user runs it, and what it refuses."""

from __future__ import annotations

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from malp_disc.benchmark.loading import load_localizer
from malp_disc.benchmark.localizer import Localization, predict
from malp_disc.benchmark.methods import create_method
from malp_disc.data.faces import ProceduralFaces
from malp_disc.degradations import to_8bit
from malp_disc.fakeness import fakeness_map
from malp_disc.training import localizer_step
from malp_disc.training.batches import steps
from malp_disc.training.localizer import check_terms, freeze_unused, make_optimizer, train_localizer
from malp_disc.training.localizer_options import LocalizerOptions, build_method, learning_rate_of
from malp_disc.training.localizer_step import LocalizerStep, LossOf, as_file
from recipes import train_localizer as recipe
from tests.recipes.conftest import TINY
from tests.recipes.engine import ToyGenerator
from tests.recipes.test_bad_input import run
from tests.tiny import Snapshot, sample_images

MODULE = """
import torch
from torch import nn

class Mine(nn.Module):
    name = "mine"
    learning_rate = 0.01

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 1, 5, padding=2)
        self.register_buffer("seen", torch.zeros(()))

    def localize(self, images):
        maps = self.net(images).sigmoid()
        return maps, maps.mean((1, 2, 3))

    def losses(self, real, manipulated, truth):
        return {"map": (self.localize(manipulated)[0] - truth).square().mean(), "real": self.localize(real)[0].square().mean()}

    def prepare(self, real, manipulated, truth):
        self.seen += len(truth)

def make():
    return Mine()

class NoGradient(Mine):
    def losses(self, real, manipulated, truth):
        return {"map": self.localize(real)[0].detach().mean()}

class Unreduced(Mine):
    def losses(self, real, manipulated, truth):
        return {"map": self.localize(real)[0]}
"""


class Learner(nn.Module):
    """A localizer of one convolution; with templates it is proactive."""

    def __init__(self, set_size: int = 0) -> None:
        super().__init__()
        self.net, self.unused, self.set_size = nn.Conv2d(3, 1, 3, padding=1), nn.Linear(2, 2), set_size
        if set_size:
            self.templates = nn.Parameter(0.1 * torch.randn(set_size, 1, 16, 16))

    def encrypt(self, images, index):
        return (images + self.templates[index]).clamp(-1, 1)

    def localize(self, images):
        maps = self.net(images).sigmoid()
        return Localization(maps, maps.mean((1, 2, 3)))

    def losses(self, real, manipulated, truth, index=None):
        assert (index is None) == (self.set_size == 0)
        return {"map": (self.localize(manipulated).map - truth).square().mean(), "real": self.localize(real).map.square().mean()}


def make_step(tmp_path, method: nn.Module | None = None, *, batch_size: int = 4, accumulation: int = 1, optimizer=torch.optim.Adam, **flags):
    config = LocalizerOptions(output_dir=tmp_path, train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_train_steps=10, mixed_precision="no", **flags)
    torch.manual_seed(0)
    method, generator = method or Learner(), ToyGenerator().eval().requires_grad_(False)
    accelerator, faces = Accelerator(cpu=True), ProceduralFaces(16, image_size=16)
    step = LocalizerStep(method, LossOf(method), optimizer(method.parameters(), lr=1.0), generator, config, accelerator, base_rate=1.0, attribute_names=faces.attribute_names)
    return step, next(steps(faces, config, accelerator, start=0))[1]


def test_a_step_moves_the_method_and_neither_the_generator_nor_the_batch(tmp_path):
    step, batches = make_step(tmp_path)
    method, generator, images = Snapshot(step.method), Snapshot(step.generator), batches[0].images.clone()
    terms = step(1, batches)
    assert set(terms) == {"localizer/total", "localizer/map", "localizer/real"}
    assert terms["localizer/total"] == pytest.approx(float(terms["localizer/map"] + terms["localizer/real"]))
    assert method.moved() == {"net.weight", "net.bias"} and generator.moved() == set() and torch.equal(batches[0].images, images)
    assert not any(p.grad is not None and p.grad.any() for p in step.method.parameters())


def test_pairs_are_the_image_its_edit_and_eq_2(tmp_path):
    step, (batch,) = make_step(tmp_path)
    pairs = step.pairs(batch)
    images = batch.images.clamp(-1, 1)
    assert torch.equal(pairs.real, images) and pairs.index is None
    torch.testing.assert_close(pairs.manipulated, step.generator.manipulate(images, batch.target))
    torch.testing.assert_close(pairs.truth, fakeness_map(images, pairs.manipulated))


def test_a_proactive_methods_truth_is_eq_5_and_gradients_reach_its_templates(tmp_path):
    step, (batch,) = make_step(tmp_path, Learner(set_size=2))
    pairs = step.pairs(batch)
    images = batch.images.clamp(-1, 1)
    torch.testing.assert_close(pairs.real, step.method.encrypt(images, pairs.index))
    torch.testing.assert_close(pairs.truth, fakeness_map(images, step.generator.manipulate(pairs.real.detach(), batch.target)))
    sum(step.losses(batch).values()).backward()
    assert step.method.templates.grad.any()


def test_accumulated_micro_batches_are_one_large_batch(tmp_path):
    whole, batches = make_step(tmp_path, batch_size=8, optimizer=torch.optim.SGD)
    parts, micro = make_step(tmp_path, batch_size=4, accumulation=2, optimizer=torch.optim.SGD)
    whole(1, batches), parts(1, micro)
    for a, b in zip(whole.method.parameters(), parts.method.parameters()):
        torch.testing.assert_close(a, b)


def test_the_method_sees_files_of_8_bits_and_gradients_pass(tmp_path):
    images = sample_images(2).requires_grad_()
    seen = as_file(images, to_8bit)
    torch.testing.assert_close(seen, to_8bit(images.detach()), rtol=0, atol=1e-6)
    seen.square().sum().backward()
    torch.testing.assert_close(images.grad, 2 * seen.detach())


def test_edits_of_one_attribute_and_degraded_images(tmp_path):
    step, (batch,) = make_step(tmp_path, edit_attribute="Smiling")
    column = step.attribute_names.index("Smiling")
    target = batch.labels.clone()
    target[:, column] = 1 - target[:, column]
    torch.testing.assert_close(step.edit(batch.images, batch), step.generator.manipulate(batch.images, target))
    plain, degraded = (make_step(tmp_path, degradation=share) for share in (0.0, 1.0))
    terms = [sum(step.losses(batch).values()).item() for step, (batch,) in (plain, degraded)]
    assert terms[0] != terms[1]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_chain_degrades_a_pair_before_the_edit_or_after_it_and_m_gt_is_the_edit_from_the_original(tmp_path, monkeypatch, share):
    """In place of the chain, the image's negative."""
    monkeypatch.setattr(localizer_step, "through_chains", lambda images, chains, used: torch.where(used[:, None, None, None], -images, images))
    step, (batch,) = make_step(tmp_path, batch_size=16, degradation=share, degradation_chain=True)
    step.generator = SimpleNamespace(manipulate=lambda images, target: images + 0.25)
    batch.images *= 0.5
    pairs, x = step.pairs(batch), batch.images
    kinds = {"none": (x, x + 0.25, x + 0.25), "before": (-x, -x + 0.25, -x + 0.25), "after": (-x, -x - 0.25, x + 0.25)}
    found = [
        next(name for name, (real, manipulated, edited) in kinds.items() if torch.allclose(pairs.real[i], real[i]) and torch.allclose(pairs.manipulated[i], manipulated[i], atol=1e-6)
             and torch.allclose(pairs.truth[i], fakeness_map(x, edited)[i], atol=1e-6))
        for i in range(16)
    ]  # fmt: skip
    assert set(found) == ({"none"} if not share else {"before", "after"} if share == 1 else {"none", "before", "after"})


def test_a_step_uses_all_templates_shows_files_of_8_bits_and_seeds_dropout_by_the_micro_batch(tmp_path):
    step, batches = make_step(tmp_path, Learner(set_size=2), batch_size=8, accumulation=2)
    seen = []
    step.loss_of = lambda real, manipulated, pairs: seen.append((real, manipulated, pairs.index, torch.initial_seed()))
    for batch in (*batches, *batches):
        torch.manual_seed(5)
        step.losses(batch)
    for images in (part for real, manipulated, *_ in seen for part in (real, manipulated)):
        assert ((images + 1) * 127.5 - ((images + 1) * 127.5).round()).abs().max() < 1e-3
    *_, indices, seeds = zip(*seen)
    assert {number for index in indices for number in index.tolist()} == {0, 1}
    assert seeds[:2] == seeds[2:] and len({5, *seeds}) == 3


def test_the_rate_falls_to_zero_over_the_second_half_of_the_steps(tmp_path):
    step, batches = make_step(tmp_path)
    rates = []
    for number in (1, 6, 9, 10):
        step(number, batches)
        rates.append(step.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 0.4, 0.2])


def test_unused_parameters_are_frozen_and_the_weights_stay(tmp_path):
    step, _ = make_step(tmp_path)
    before = copy.deepcopy(step.method.state_dict())
    freeze_unused(step.method, step.generator, ProceduralFaces(4, image_size=16), step.config, step.accelerator)
    assert {name for name, p in step.method.named_parameters() if not p.requires_grad} == {"unused.weight", "unused.bias"}
    assert all(torch.equal(value, before[name]) for name, value in step.method.state_dict().items())


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([1], "returned list"),
        ({}, "returned {}"),
        ({"map": torch.ones(2)}, r"{'map': \(2,\)}; expected .* scalar"),
        ({"map": torch.tensor(torch.nan)}, "map isn't finite"),
        ({"map": torch.tensor(1.0)}, "no gradient reaches"),
    ],
)
def test_losses_other_than_named_scalars_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        check_terms(terms, "mine")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a user's module, as that user's own file."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_localizer.py").write_text(MODULE)
    return folder


def train(launch, own, stargan, folder, *more, **options):
    return launch("train_localizer.py", *TINY, "--method", f"{own / 'my_localizer.py'}:make", "--generator-checkpoint", stargan / "G.safetensors", "--test-size", 8,
                  "--max-train-steps", 4, "--checkpointing-steps", 2, "--output-dir", folder, *more, **options)  # fmt: skip


@pytest.fixture(scope="module")
def trained(launch, own, stargan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    result = train(launch, own, stargan, folder)
    assert "held-out images: CS" in result.stdout and "detection AUC" in result.stdout
    return folder


def test_a_users_localizer_is_trained_measured_and_loaded_again(trained, own):
    localizer = load_localizer(f"{own / 'my_localizer.py'}:make={trained / 'localizer'}")
    assert type(localizer).__name__ == "Mine" and predict(localizer, sample_images(2)).map.shape == (2, 1, 32, 32)
    assert localizer.seen == 64, "prepare looked at the first pairs, once"
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["n"] == 8
    for name in ("cs", "pearson", "f1", "pixel_auc", "auc", "average_precision"):
        value, low, high = metrics["scores"][name]  # an interval over 8 images need not contain the value
        assert low <= high and -1 <= value <= 1, name
    lines = [json.loads(line) for line in (trained / "curves" / "localizer.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and lines[0]["localizer/map"] > 0


def test_four_steps_are_two_and_two_by_bytes(launch, own, stargan, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "localizer-training" / "checkpoint-4")
    (tmp_path / "run" / "localizer" / "model.safetensors").unlink()
    train(launch, own, stargan, tmp_path / "run", "--resume-from-checkpoint", "latest")
    for name in ("localizer/model.safetensors", "localizer-training/checkpoint-4/localizer.safetensors", "localizer-training/checkpoint-4/optimizers.pt",
                 "curves/localizer.jsonl", "metrics.json"):  # fmt: skip
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_run_with_other_settings_is_refused(launch, own, stargan, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    refused = train(launch, own, stargan, tmp_path / "run", "--learning-rate", 0.5, check=False)
    assert refused.returncode == 1 and "--learning-rate was not given, is 0.5" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method", "fdd_reg"], "did you mean ffd_reg?"),
        (["--method", "nataraj", "--method-side", 64], "nataraj doesn't take side"),
        (["--learning-rate", 0], "--learning-rate above 0"),
        (["--degradation", 2], "--degradation in [0, 1]"),
        (["--edit-attribute", "Bald"], "--edit-attribute out of Black_Hair"),
        (["--method", "FILE:NoGradient"], "no gradient reaches the parameters of"),
        (["--method", "FILE:Unreduced"], "{'map': (2, 1, 32, 32)}; expected the terms of the loss by name"),
        (["--method", "FILE:make", "--initial-weights", "FILE"], "leave --initial-weights out"),
    ],
)
def test_mistakes_end_before_the_first_step(monkeypatch, own, stargan, tmp_path, flags, words):
    flags = [str(flag).replace("FILE", str(own / "my_localizer.py")) for flag in flags]
    message = run(monkeypatch, recipe, *TINY, "--generator-checkpoint", stargan / "G.safetensors", "--test-size", 8, "--output-dir", tmp_path / "run", *flags)
    assert words in message and not list(tmp_path.glob("run/localizer-training/*")), message


def test_methods_keep_their_authors_optimizer_and_rate(tmp_path):
    config = LocalizerOptions(output_dir=tmp_path, method="patch_forensics_widenet_kw7_d1")
    method = build_method(config)
    assert learning_rate_of(method, config) == 1e-3 and learning_rate_of(method, LocalizerOptions(learning_rate=0.5)) == 0.5
    assert isinstance(make_optimizer(method, 1e-3), torch.optim.Adam) and isinstance(make_optimizer(Learner(), 1e-3), torch.optim.Adam)
    assert make_optimizer(create_method("autogan"), 0.01).defaults["momentum"] == 0.9


def test_the_loop_returns_the_method_in_evaluation_mode(tmp_path):
    step, _ = make_step(tmp_path)
    config = LocalizerOptions(output_dir=tmp_path, train_batch_size=4, max_train_steps=1, mixed_precision="no", method="mine")
    trained = train_localizer(step.method, step.generator, ProceduralFaces(8, image_size=16), config, step.accelerator)
    assert trained is step.method and not trained.training and (tmp_path / "localizer-training" / "checkpoint-1" / "localizer.safetensors").is_file()
