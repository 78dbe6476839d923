"""MaLPs with templates made by attacks, as users train them, at toy size."""

from __future__ import annotations

import pytest
import torch

from malp_disc import MaLP
from malp_disc.runtime.random_state import random_state_kept
from recipes.research import attack_templates
from tests.recipes.conftest import TINY
from tests.recipes.in_process import forget_accelerator
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import tiny_malp

SMALL = [*TINY, "--malp-width", 4, "--malp-branch", "none", "--max-train-steps", 2, "--attack-batches", 2]


def test_the_attacks_template_stays_fixed_while_malp_is_trained(launch, stargan, tmp_path):
    launch(
        "attack_templates.py", *SMALL, "--attacks", "fgsm", "--generator-checkpoint", stargan / "G.safetensors", "--output-dir", tmp_path
    )
    target, malp = MaLP.from_pretrained(tmp_path / "target"), MaLP.from_pretrained(tmp_path / "fgsm")
    assert target.passive and not malp.passive
    added = malp.config.strength * malp.encryption.templates.detach()
    assert torch.allclose(added.abs(), torch.full_like(added, 2 * 10 ** (-30.1 / 20)), rtol=1e-4), "every pixel has ±ε"
    assert added.min() < 0 < added.max()


@pytest.mark.parametrize("given", [True, False], ids=["target given", "target pretrained"])
def test_all_attacks_begin_with_the_same_weights(monkeypatch, tmp_path, release_all_locks, given):
    """The rows of Table 7 differ in the template alone. A target that is given, or was pretrained before an interruption, draws no random weights."""
    target, started = tiny_malp(image_size=32, strength=0.0), []

    def trained(name: str, malp: MaLP, *more) -> MaLP:
        torch.rand(1)  # a training leaves the random numbers elsewhere
        started.append(malp.state_dict())
        return malp if name != "target" else target

    monkeypatch.setattr(attack_templates, "trained", trained)
    monkeypatch.setattr(attack_templates, "make_template", lambda *more: torch.zeros(32, 32))
    target.save_pretrained(tmp_path / "target")
    sizes = {"image_size": 32, "train_size": 16, "train_batch_size": 4, "malp_width": 4, "malp_branch": "none"}
    forget_accelerator()
    attack_templates.main(attack_templates.Config(**sizes, attacks=("fgsm", "pgd"), target=tmp_path / "target" if given else None, output_dir=tmp_path / "run"))
    with random_state_kept(seed=0):
        expected = attack_templates.build_malp(attack_templates.Config(**sizes)).cnn.state_dict()
    for weights in started[-2:]:
        assert all(torch.equal(weights[f"cnn.{name}"], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--template-psnr", 25], "--malp-least-psnr 30 would weaken templates of --template-psnr 25"),
        (["--attack-batches", 0], "expected --attack-batches of at least 1"),
        (["--malp-strength", 0], "--malp-strength 0 leaves no place for an attack's template"),
        (["--preset", "survive"], "an attack's template takes the place of a learned one, and --preset survive has none"),
    ],
)
def test_contradicting_flags_are_refused(monkeypatch, tmp_path, flags, said):
    assert said in message_of(monkeypatch, attack_templates, *SMALL, *flags, "--output-dir", tmp_path)
