"""The authors' checkpoints in every packing, and files that are refused."""

from __future__ import annotations

import dataclasses
import os
import warnings

import pytest
import torch
from torch import Tensor, nn

from malp_disc import MaLP, MaLPConfig
from malp_disc.official.networks import OfficialEncoder, read_official
from malp_disc.official.vit import OfficialViT
from tests.official import OPTIONAL, packed, saved, seeded_network, seeded_state
from tests.tiny import sample_images, tiny_malp


def test_every_entry_goes_where_it_belongs(tmp_path):
    content = packed("current", count=3)
    malp = MaLP.from_official(saved(tmp_path, content), strength=0.3)
    assert dataclasses.asdict(malp.config) == {
        **dataclasses.asdict(MaLPConfig()),
        "architecture": "official",
        "set_size": 3,
        "strength": 0.3,
        "vit_generation": "current",
    }
    assert torch.equal(malp.encryption.templates, content["state_dict_signal"]["A"])
    for part, entry in ((malp.cnn, "encoder"), (malp.branch, "transformer"), (malp.classifier, "class")):
        state, theirs = part.state_dict(), content[f"state_dict_{entry}"]
        assert set(state) == set(theirs) and all(torch.equal(state[key], theirs[key]) for key in theirs)


def test_strength_is_the_authors_default():
    """Their --template_strength; the file doesn't tell, and the paper says 0.3."""
    assert MaLP.from_official.__kwdefaults__ == {"strength": 0.1}


def test_a_checkpoint_of_the_localization_alone_loads(tmp_path):
    """What train_loc.py resumes from. Its classifier can't answer: 0, and score says what the template says."""
    content = {key: value for key, value in packed().items() if key not in OPTIONAL}
    with pytest.warns(UserWarning, match="model.pickle holds no classifier: logit will be 0"):
        malp = MaLP.from_official(saved(tmp_path, content))
    assert malp.branch is None and not malp.config.branch
    with torch.no_grad():
        out = malp(sample_images(2, 128, 128))
    assert torch.equal(out.logit, torch.zeros(2)) and torch.allclose(out.score, (1.5 - out.similarity) / 2)


def test_one_optional_entry_may_be_there_without_the_other(tmp_path):
    content = packed("foldednorm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = saved(tmp_path, {key: value for key, value in content.items() if key != "state_dict_transformer"})
        assert MaLP.from_official(path).branch is None
    with pytest.warns(UserWarning, match="no classifier"):
        path = saved(tmp_path, {key: value for key, value in content.items() if key != "state_dict_class"})
        assert MaLP.from_official(path).config.vit_generation == "foldednorm"


@pytest.mark.parametrize("legacy", [False, True])
def test_parallel_prefixes_and_old_torch_files_load(tmp_path, legacy):
    """DataParallel's prefix; no batch counters; torch's file format before 1.6."""

    def old(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}

    content = {key: old(value) if key.startswith("state_dict_") else value for key, value in packed("dualpatchnorm").items()}
    torch.save(content, tmp_path / "1_model.pickle", _use_new_zipfile_serialization=not legacy)
    malp = MaLP.from_official(str(tmp_path / "1_model.pickle"))
    assert malp.config.vit_generation == "dualpatchnorm"
    assert torch.equal(malp.cnn.layers_6[0].weight, seeded_network(OfficialEncoder).layers_6[0].weight)


def test_an_official_malp_is_saved_and_comes_back_with_the_same_outputs_by_bytes(tmp_path):
    malp = MaLP.from_official(saved(tmp_path, packed("current", count=2)), strength=0.2)
    malp.save_pretrained(tmp_path / "malp")
    again = MaLP.from_pretrained(tmp_path / "malp").eval()
    (tmp_path / "malp" / "model.safetensors").unlink()  # 140 MB
    assert again.config == malp.config
    images = sample_images(2, 128, 128)
    with torch.no_grad():
        ours, theirs = malp(images, branch=True), again(images, branch=True)
        for field in ("map", "template", "logit", "similarity", "score", "branch_map"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field)), field
        assert torch.equal(malp.encrypt(images, torch.tensor([0, 1]))[0], again.encrypt(images, torch.tensor([0, 1]))[0])


# --- refused -----------------------------------------------------------------------------------------------------------------------------------


def drop_the_encoder(content):
    del content["state_dict_encoder"]


def drop_the_signal(content):
    del content["state_dict_signal"]


def empty_the_encoder(content):
    content["state_dict_encoder"] = {}


def rename_a_key(content):
    state = content["state_dict_encoder"]
    state["layers_4.0.0.weight"] = state.pop("layers_3.0.0.weight")


def widen_a_layer(content):
    content["state_dict_encoder"]["layers_5.0.weight"] = torch.zeros(3, 64, 3, 3)


def flatten_the_signal(content):
    content["state_dict_signal"] = {"A": torch.zeros(128, 128)}


def enlarge_the_signal(content):
    content["state_dict_signal"] = {"A": torch.zeros(1, 256, 256)}


def rename_the_signal(content):
    content["state_dict_signal"] = {"B": torch.zeros(1, 128, 128)}


def exchange_the_transformer(content):
    content["state_dict_transformer"] = nn.Linear(2, 2).state_dict()


def mix_the_generations(content):
    content["state_dict_transformer"] |= {key: value for key, value in seeded_state(OfficialViT, "foldednorm").items() if "mlp_head" in key}


def exchange_the_classifier(content):
    content["state_dict_class"] = nn.Linear(2, 2).state_dict()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop_the_encoder, r"is not a MaLP checkpoint of the authors: expected the entries \['state_dict_encoder', 'state_dict_signal'\], found \['state_dict_signal', "),
        (drop_the_signal, r"is not a MaLP checkpoint of the authors: expected the entries .*found \['state_dict_encoder', 'state_dict_transformer', "),
        (empty_the_encoder, r"its state_dict_encoder is no state dict, expected tensors by name, found \[\]"),
        (rename_a_key, r"OfficialEncoder: 1 missing, first \['layers_3.0.0.weight'\]; 1 unknown, first \['layers_4.0.0.weight'\]"),
        (widen_a_layer, r"OfficialEncoder: layers_5.0.weight is \(3, 64, 3, 3\) in the file and \(1, 64, 3, 3\) here"),
        (flatten_the_signal, r"state_dict_signal of .* is not a template set: expected one entry A of shape \(set_size, 128, 128\), found \{'A': \(128, 128\)\}"),
        (enlarge_the_signal, r"expected one entry A of shape \(set_size, 128, 128\), found \{'A': \(1, 256, 256\)\}"),
        (rename_the_signal, r"expected one entry A of shape \(set_size, 128, 128\), found \{'B': \(1, 128, 128\)\}"),
        (exchange_the_transformer, r"holds no ViT of vit-pytorch: expected to_patch_embedding.1.weight, cls_token …, found \['weight', 'bias'\]"),
        (mix_the_generations, r"OfficialViT: \d+ missing, first \['to_patch_embedding.2.weight'"),
        (exchange_the_classifier, r"OfficialClassifier: \d+ missing, first \['layers.0.0.weight'.*unknown, first \['weight', 'bias'\]"),
    ],
)
def test_another_file_is_refused_and_the_difference_named(tmp_path, edit, message):
    content = packed()
    edit(content)
    with pytest.raises(ValueError, match=message):
        MaLP.from_official(saved(tmp_path, content))


def test_files_of_other_kinds_are_refused(tmp_path):
    torch.save(seeded_state(OfficialEncoder), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match=r"bare.pth is not a MaLP checkpoint of the authors: expected the entries .*found \['layers_0.0.0.weight', "):
        MaLP.from_official(tmp_path / "bare.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="expected the entries .*found list"):
        MaLP.from_official(tmp_path / "list.pth")
    tiny_malp().save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="model.safetensors is not a MaLP checkpoint of the authors"):
        MaLP.from_official(tmp_path / "ours" / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*absent.pickle"):
        MaLP.from_official(tmp_path / "absent.pickle")


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_has_to_be_unpickled_is_refused_and_nothing_of_it_runs(tmp_path):
    path = saved(tmp_path, {**packed(), "optimizer_1": Bomb(str(tmp_path / "exploded"))})
    with pytest.raises(ValueError, match=r"model.pickle can't be read as plain tensors.*weights_only=True"):
        read_official(path)
    assert not (tmp_path / "exploded").exists()
