"""A MaLP whose second branch has a backbone with weights of a file: commands that only localize and detect don't need that file, the others take it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from malp_disc import MaLP, MaLPConfig
from malp_disc.commands.finetune import Config
from malp_disc.commands.loading import load_malp
from malp_disc.experiment.given_malp import load_learned_malp
from tests.commands.conftest import levels
from tests.tiny import SIZE

BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "own.pth"
    torch.manual_seed(4)
    torch.save(timm.create_model(BACKBONE, pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def malp(weights, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    torch.manual_seed(5)
    MaLP(MaLPConfig(image_size=SIZE, width=8, branch=BACKBONE, branch_side=32), backbone_weights=weights).save_pretrained(tmp_path / "malp")
    return tmp_path / "malp"


def test_without_its_second_branch_a_malp_localizes_alike_and_has_the_same_fingerprint(malp, weights):
    with pytest.raises(ValueError, match="weights can't be downloaded"):
        MaLP.from_pretrained(malp)
    whole, part = MaLP.from_pretrained(malp, backbone_weights=weights), load_malp(malp, device="cpu")
    assert part.branch is None and part.detector_fingerprint == whole.detector_fingerprint
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(part(images).map, whole(images).map) and torch.equal(part(images).score, whole(images).score)
    with pytest.raises(ValueError, match="loaded without its second branch"):
        part.save_pretrained(malp)
    assert MaLP.from_pretrained(malp, backbone_weights=weights).branch is not None


def test_localizing_detecting_and_protecting_need_no_backbone_and_a_threshold_serves_the_whole_malp(malp, weights, command, photos, tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    for seed in range(6):
        Image.fromarray(levels(SIZE, SIZE, seed=seed)).save(real / f"{seed}.png")
    on = ("--malp", malp, "--device", "cpu")
    assert command("detect", *on, "--calibrate", real, "--false-alarm-rate", "0.2") is None
    assert command("detect", photos, *on) is None
    assert command("localize", photos, tmp_path / "maps", *on) is None
    assert command("protect", photos, tmp_path / "protected", *on) is None
    assert MaLP.from_pretrained(malp, backbone_weights=weights).detection is not None


def test_export_needs_no_backbone(malp, command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("malp_disc.commands.onnx_file.check_packages", lambda: None)
    monkeypatch.setattr("malp_disc.commands.onnx_file.export_onnx", lambda malp, path: seen.append(malp.branch) or {})
    assert command("export", malp, tmp_path / "m.onnx") is None and seen == [None]


@pytest.mark.parametrize("flags", [{"malp_backbone_weights": True}, {"backbone_weights": True}, {"malp_backbone_weights": True, "content_weight": 1.0}])
def test_a_finetuning_takes_the_backbones_weights_from_its_flags(malp, weights, flags):
    config = Config(malp=malp, **{name: weights if value is True else value for name, value in flags.items()})
    assert load_learned_malp(malp, backbone_weights=config.given_backbone_weights).branch is not None


def test_weights_for_the_content_loss_are_not_the_given_malps(weights):
    assert Config(backbone_weights=weights, content_weight=1.0).given_backbone_weights is None


def test_the_doctor_takes_the_backbones_weights(malp, weights, command, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_with_backbone.py").write_text("from tests.test_doctor import Healthy\ndef good():\n    return Healthy()\n")
    monkeypatch.chdir(tmp_path)
    arguments = ("doctor", "mine_with_backbone:good", "--image-size", "32", "--batch-size", "3", "--malp", malp)
    assert "weights can't be downloaded" in command(*arguments)
    assert command(*arguments, "--backbone-weights", weights) is None
    assert f" finetune --generator mine_with_backbone:good --malp {malp} --backbone-weights {weights} --data folder" in capsys.readouterr().out.splitlines()[-1]
