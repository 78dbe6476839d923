"""The template set is a file of its own: it has to be there, to be the right one, and not to travel by mistake."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from malp_disc import MaLP, MaLPDiscriminator
from malp_disc.keyed.secret import save_secret
from malp_disc.serialization.key import KEY_FILE, key_fingerprint, load_key, save_key
from tests.tiny import tiny_malp


def test_the_weights_hold_no_template_and_the_key_holds_nothing_else(tmp_path):
    malp = tiny_malp(set_size=3)
    malp.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "template" in name]
    assert {name: tuple(value.shape) for name, value in load_file(tmp_path / KEY_FILE).items()} == {"templates": (3, 32, 32)}
    size = malp.encryption.templates.numel()
    assert not any(value.numel() == size for value in load_file(tmp_path / "model.safetensors").values())


def test_only_the_owner_may_read_the_key(tmp_path):
    tiny_malp().save_pretrained(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("save", [lambda path: save_key(path, torch.zeros(1, 8, 8)), lambda path: save_secret(path, b"k" * 32)], ids=["templates", "secret"])
def test_a_key_is_never_readable_by_others_not_even_for_a_moment(tmp_path, monkeypatch, save):
    """Whatever is done to the file system, the key's name and the temporary file beside it have mode 600 before and after."""
    seen, umask = [], os.umask(0)

    def watched(function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
            return result

        return call

    for name in ("chmod", "replace", "fsync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    try:
        save(tmp_path / "key.safetensors")
        save(tmp_path / "key.safetensors")  # over an earlier one
    finally:
        os.umask(umask)
    assert len(seen) >= 6 and set(seen) == {0o600}, list(map(oct, seen))


def test_a_key_kept_elsewhere_is_given_by_its_path(tmp_path):
    malp = tiny_malp()
    malp.save_pretrained(tmp_path / "malp", key=tmp_path / "vault" / "key.safetensors")
    assert not (tmp_path / "malp" / KEY_FILE).exists()
    with pytest.raises(FileNotFoundError, match="comes without its key templates.safetensors; give its path: --key FILE on the command line, key=… in Python"):
        MaLP.from_pretrained(tmp_path / "malp")
    again = MaLP.from_pretrained(tmp_path / "malp", key=tmp_path / "vault" / "key.safetensors")
    assert torch.equal(again.encryption.templates, malp.encryption.templates)
    disc = MaLPDiscriminator.from_pretrained(tmp_path / "malp", key=tmp_path / "vault" / "key.safetensors")
    assert torch.equal(disc.malp.encryption.templates, malp.encryption.templates)


def test_the_public_fingerprint_is_in_the_config_and_another_key_is_refused_by_it(tmp_path):
    mine, other = tiny_malp(0), tiny_malp(1)
    mine.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["key_fingerprint"] == mine.key_fingerprint
    save_key(tmp_path / KEY_FILE, other.encryption.templates)
    with pytest.raises(ValueError, match=f"is the key {other.key_fingerprint}, but this detector was trained with the key {mine.key_fingerprint}"):
        MaLP.from_pretrained(tmp_path)


def test_a_fingerprint_changes_with_every_value_and_survives_saving(tmp_path):
    templates = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    nudged = templates.clone()
    nudged[1, 7, 7] += 1e-6
    assert key_fingerprint(templates) != key_fingerprint(nudged) != key_fingerprint(templates[:1])
    assert save_key(tmp_path / "key.safetensors", templates) == key_fingerprint(templates)
    assert torch.equal(load_key(tmp_path / "key.safetensors", shape=(2, 8, 8), expected=key_fingerprint(templates)), templates)


def test_what_is_no_key_or_of_another_size_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"is not a key file: expected one entry 'templates', found \['weight'\]"):
        load_key(tmp_path / "other.safetensors", shape=(1, 8, 8))
    save_key(tmp_path / "key.safetensors", torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"holds templates of shape \(1, 8, 8\), the detector needs \(2, 8, 8\)"):
        load_key(tmp_path / "key.safetensors", shape=(2, 8, 8))


@pytest.mark.parametrize("include_key", [False, True])
def test_the_key_stays_at_home_when_a_detector_is_uploaded(monkeypatch, include_key):
    uploads = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id}))

    def upload_folder(self, *, folder_path, ignore_patterns=None, **_):
        uploads.append({path.name for path in folder_path.iterdir()} - set(ignore_patterns or ()))

    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    tiny_malp().push_to_hub("somebody/malp", include_key=include_key, ignore_patterns="README.md")
    assert uploads == [{"config.json", "model.safetensors"} | ({KEY_FILE} if include_key else set())]
