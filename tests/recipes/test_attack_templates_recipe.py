"""MaLPs with templates made by attacks, as users train them, at toy size."""

from __future__ import annotations

import pytest
import torch

from malp_disc import MaLP
from recipes.research import attack_templates
from tests.recipes.conftest import TINY
from tests.recipes.test_bad_input import run as message_of

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


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--template-psnr", 25], "--malp-least-psnr 30 would weaken templates of --template-psnr 25"),
        (["--attack-batches", 0], "expected --attack-batches of at least 1"),
    ],
)
def test_contradicting_flags_are_refused(monkeypatch, tmp_path, flags, said):
    assert said in message_of(monkeypatch, attack_templates, *SMALL, *flags, "--output-dir", tmp_path)
