"""A MaLP is saved and loaded, and files that hold none are refused."""

from __future__ import annotations

import json

import pytest
import torch

from malp_disc import KeyedConfig, KeyedMaLP, MaLP, MaLPConfig, MaLPDiscriminator
from tests.tiny import OUTPUTS, sample_images, tiny_malp


def test_a_saved_malp_comes_back_with_the_same_outputs_by_bytes(tmp_path):
    malp = tiny_malp(set_size=2, strength=0.2, branch="vit").eval()
    malp.save_pretrained(tmp_path / "malp")
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "malp").iterdir()}
    again = MaLP.from_pretrained(tmp_path / "malp").eval()
    assert again.config == malp.config
    images = sample_images(2)
    for field in OUTPUTS:
        assert torch.equal(getattr(malp(images, branch=True), field), getattr(again(images, branch=True), field))
    assert torch.equal(malp.encrypt(images, torch.tensor([0, 1]))[0], again.encrypt(images, torch.tensor([0, 1]))[0])


@pytest.mark.parametrize("config", [{"architecture": "official", "branch": None}, {"branch": "vit"}])
def test_a_loaded_malp_is_in_evaluation_mode_so_that_images_do_not_depend_on_each_other(tmp_path, config):
    malp = MaLP(MaLPConfig(**config)) if "architecture" in config else tiny_malp(**config)
    malp.save_pretrained(tmp_path)
    loaded = MaLP.from_pretrained(tmp_path)
    assert not any(part.training for part in loaded.modules())
    images = sample_images(2, loaded.config.image_size, loaded.config.image_size)
    state = {name: value.clone() for name, value in loaded.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).map[:1], loaded(images[:1]).map, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_a_path_as_text_works_too(tmp_path):
    tiny_malp().save_pretrained(str(tmp_path))
    assert MaLP.from_pretrained(str(tmp_path)).config.width == 8


def test_saving_over_an_older_one_replaces_it(tmp_path):
    tiny_malp(0).save_pretrained(tmp_path)
    newer = tiny_malp(1)
    newer.save_pretrained(tmp_path)
    assert torch.equal(MaLP.from_pretrained(tmp_path).encryption.templates, newer.encryption.templates)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unknown_entries_of_a_config_are_refused(tmp_path):
    tiny_malp().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "wings": 2}))
    with pytest.raises(ValueError, match=r"unknown entries \['wings'\]"):
        MaLP.from_pretrained(tmp_path)


def test_a_config_of_another_model_is_refused(tmp_path):
    tiny_malp().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is not a MaLP of this version"):
        MaLP.from_pretrained(tmp_path)


@pytest.mark.parametrize("missing", [("config.json", "model.safetensors"), ("model.safetensors",)])
def test_a_folder_without_a_model_is_named(tmp_path, missing, caplog):
    tiny_malp().save_pretrained(tmp_path)
    for name in missing:
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no saved MaLP: expected config.json and model.safetensors"):
        MaLP.from_pretrained(tmp_path)
    assert not caplog.records, "said once"


@pytest.mark.parametrize("keep", [0, 7, 500])
def test_a_damaged_weights_file_is_named(tmp_path, keep):
    tiny_malp().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors can't be read as plain tensors"):
        MaLP.from_pretrained(tmp_path)


def test_weights_of_another_width_are_refused_by_name(tmp_path):
    tiny_malp(width=16).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "width": 8}))
    with pytest.raises(ValueError, match=r"not a checkpoint of this MaLP: cnn.trunk.0.weight is \(16, 3, 3, 3\) in the file and \(8, 3, 3, 3\) here"):
        MaLP.from_pretrained(tmp_path)


@pytest.mark.parametrize("name, said", [("runs/malp", "no folder runs/malp in"), ("./malp", "no folder"), ("a/b/c", "no folder"), ("file.txt", "is a file"), ("", "empty name"), ("run", "did you mean run.malp")])
def test_a_folder_that_is_not_there_is_named_first(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "file.txt").write_text("")
    MaLP(MaLPConfig(image_size=16, width=4, branch=None)).save_pretrained(tmp_path / "run" / "malp")
    (tmp_path / "run" / "config.json").write_text('{"command": "malp-disc pretrain", "image_size": 16, "malp_width": 4}')  # as a run describes itself
    for model in (MaLP, MaLPDiscriminator):
        with pytest.raises(FileNotFoundError, match=said):
            model.from_pretrained(name)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_config_is_named(tmp_path, content):
    MaLP(MaLPConfig(image_size=16, width=4, branch=None)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json"):
        MaLP.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image_size": "128"}, "image_size: expected a whole number, got '128'"),
        ({"strength": None}, "strength: expected a number, got None"),
        ({"width": 4.0}, "width: expected a whole number, got 4.0"),
        ({"branch": ["vit"]}, r"branch: expected text or null, got \['vit'\]"),
        ({"set_size": True}, "set_size: expected a whole number, got True"),
        ({"template_size": -3}, "a template size of at least 1, .* got -3"),
        ({"image_size": 4}, "an image size of at least 16, got 4"),
    ],
)
def test_a_setting_that_cant_be_is_named_with_its_file(tmp_path, entry, said):
    tiny_malp().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, **entry}))
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json is damaged or of another version: .*{said}"):
        MaLP.from_pretrained(tmp_path)


def test_the_model_card_names_no_licence_but_the_one_that_is_given(tmp_path):
    """What a MaLP may be used for depends on the images that it was trained on: weights/survive, for research only, was saved again as MIT."""
    malp = tiny_malp()
    malp.save_pretrained(tmp_path / "plain")
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "license:" not in card
    assert "More Information Needed" not in card
    assert 'MaLP.from_pretrained("FOLDER_OR_HUB_ID", key="templates.safetensors")' in card
    malp.save_pretrained(tmp_path / "named", model_card_kwargs={"license": "cc-by-4.0"})
    assert "license: cc-by-4.0" in (tmp_path / "named" / "README.md").read_text()
    malp.save_pretrained(tmp_path / "named")
    assert "license: cc-by-4.0" in (tmp_path / "named" / "README.md").read_text()  # a card that is there is kept
    KeyedMaLP(KeyedConfig(width=8)).save_pretrained(tmp_path / "keyed")
    assert "license:" not in (tmp_path / "keyed" / "README.md").read_text()


@pytest.mark.parametrize("model", [MaLP, KeyedMaLP])
def test_unknown_options_of_loading_are_refused(tmp_path, model):
    (tiny_malp() if model is MaLP else KeyedMaLP(KeyedConfig(width=8))).save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=rf"{model.__name__}.from_pretrained got strength; expected options out of key, backbone_weights, branch, cache_dir"):
        model.from_pretrained(tmp_path, strength=0.9)
    model.from_pretrained(tmp_path, local_files_only=True)
