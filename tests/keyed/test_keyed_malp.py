"""`KeyedMaLP`: its outputs, what its losses teach, and that weights and key are saved apart."""

from __future__ import annotations

import json
import stat

import pytest
import torch
import torch.nn.functional as F

from malp_disc.calibration import Calibration
from malp_disc.data.local_edits import local_edit, random_masks
from malp_disc.fakeness import fakeness_map
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.config import SCHEME
from malp_disc.keyed.secret import load_secret, save_secret, secret_fingerprint, secret_noise
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.serialization.state_dicts import load_tensors, save_tensors
from malp_disc.training.surviving import with_change_net
from tests.keyed.conftest import natural_images


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (150, 100)])
def test_outputs_have_the_images_size_and_their_ranges(size, malp):
    out = malp(natural_images(2, *size), 0)
    assert out.map.shape == out.edited.shape == (2, 1, *size)
    assert all(0 <= part.min() and part.max() <= 1 for part in (out.map, out.edited, out.score))
    assert out.logit.shape == out.similarity.shape == out.presence.shape == (2,)


def test_an_images_prediction_doesnt_depend_on_its_batch(malp, images):
    together, alone = malp(images, torch.arange(6)), malp(images[2:3], 2)
    torch.testing.assert_close(together.edited[2:3], alone.edited, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.presence[2:3], alone.presence, atol=1e-3, rtol=1e-3)


def test_autocast_leaves_its_arithmetic_in_float32():
    malp, images = KeyedMaLP(KeyedConfig(image_size=32, width=4, change_width=8), secret=bytes(32)).eval(), natural_images(2, 40, 40)
    truth = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    expected = malp(images, 0).map, malp.change_loss(images, truth), malp.identify(images[:1], range(3)).presence
    with torch.autocast("cpu", torch.bfloat16):
        found = malp(images, 0).map, malp.change_loss(images, truth), malp.identify(images[:1], range(3)).presence
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1]) and found[2] == expected[2]


@pytest.mark.parametrize(("index", "said"), [([0], "index of 2 whole numbers"), ([0, -7], r"template numbers 0 … 9007199254740991 \(or -1 for none\), got -7 … 0"), ([0.0, 0.0], "whole numbers")])
def test_an_index_that_means_nothing_is_refused(malp, images, index, said):
    with pytest.raises(ValueError, match=said):
        malp.encrypt(images[:2], torch.tensor(index))


def test_examining_an_image_takes_the_number_of_its_template(malp, images):
    with pytest.raises(ValueError, match="a template number of 0 … 9007199254740991, got -1"):
        malp(images, -1)
    with pytest.raises(ValueError, match="index of 6 whole numbers"):
        malp(images, torch.arange(5))
    with pytest.raises(ValueError, match="template numbers 0 … 9007199254740991, got -1 … 4"):
        malp(images, torch.arange(-1, 5))
    for numbers, shown in (([-1], "-1"), ([1.0], "1.0")):
        with pytest.raises(ValueError, match=f"expected template numbers 0 … 9007199254740991, got {shown}"):
            malp.identify(images[:1], numbers)
    for call in (malp.encrypt, lambda none: malp(none, 0)):
        with pytest.raises(ValueError, match="image"):
            call(images[:0])
    assert torch.equal(malp(images, 4).presence, malp(images, torch.full((6,), 4)).presence)


def test_another_key_takes_the_place_of_its_own_in_protecting_and_examining(malp, images):
    other, images, index = KeyedMaLP(malp.config, secret=b"o" * 32), images[:2], torch.arange(2)
    other.load_state_dict(malp.state_dict())
    protected = malp.encrypt(images, index, secret=other.secret)[0]
    assert torch.equal(protected, other.encrypt(images, index)[0])
    found = malp(protected, index, secret=other.secret)
    assert torch.equal(found.presence, other.eval()(protected, index).presence) and found.presence.min() > malp(protected, index).presence.max()


def test_black_and_white_are_protected_within_the_range_of_images(malp, images):
    protected = malp.encrypt(images.sign(), torch.arange(6))[0]
    assert protected.abs().max() == 1 and not torch.equal(protected, images.sign())


def test_without_a_number_every_image_gets_another_one_at_every_call_whatever_the_seed(malp, images):
    """Two published images must not share one."""
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append(malp.encrypt(images)[1])
    assert len(torch.cat(drawn).unique()) == 12 and torch.cat(drawn).max() < 2**53
    first, again = (malp.encrypt(images, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first[1], again[1]) and torch.equal(first[0], again[0])
    assert malp(first[0], first[1]).presence.mean() > 5


def test_protected_images_count_as_untouched_and_edited_ones_as_edited_in_their_region(malp, images):
    """The terms of the loss restated, from two separate passes."""
    real, manipulated, index = images[:2], images[2:4], torch.arange(2)
    edited, truth = torch.zeros(2, 1, 64, 64, dtype=torch.bool), torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    edited[:, :, 10:50, 20:40] = True
    found = malp.losses(real, manipulated, truth, edited, index)
    before, after = malp(real, index), malp(manipulated, index)
    assert found["classification"].item() == pytest.approx((F.softplus(before.logit).mean() + F.softplus(-after.logit).mean()).item() / 2, rel=1e-4)
    region = (F.binary_cross_entropy(before.edited, torch.zeros(2, 1, 64, 64)) + F.binary_cross_entropy(after.edited, edited.float())) / 2
    shared, both = (after.edited * edited).sum((1, 2, 3)), (after.edited + edited).sum((1, 2, 3))
    assert found["edited"].item() == pytest.approx((3 * region + (1 - (2 * shared + 1) / (both + 1)).mean()).item(), rel=1e-4)
    localization = localization_loss_encrypted(before.map, truth, LossWeights()) + localization_loss_manipulated(after.map, truth, LossWeights())
    assert found["map"].item() == pytest.approx(localization.item(), rel=1e-4)


def test_the_losses_teach_to_find_a_pasted_region():
    torch.manual_seed(0)
    malp = KeyedMaLP(KeyedConfig(image_size=64, width=4), secret=b"s" * 32)
    originals = natural_images(4, seed=2)
    protected, index = malp.encrypt(originals, torch.arange(4))
    regions = random_masks(protected, [[i] for i in range(4)])
    edited = local_edit(protected, regions, "splice", sources=originals.roll(1, 0))
    truth = fakeness_map(originals, edited)
    optimizer = torch.optim.Adam(malp.parameters(), 4e-3)
    first = None
    for _ in range(40):
        terms = malp.losses(protected, edited, truth, regions, index)
        assert set(terms) == {"map", "edited", "classification"}
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        first = first or {name: value.item() for name, value in terms.items()}
    assert terms["edited"] < 0.9 * first["edited"]
    found = malp(edited, index).edited
    assert found[regions].mean() > found[~regions].mean()


def test_every_weight_gets_a_gradient(malp, images):
    truth, regions = torch.zeros(6, 1, 64, 64), torch.ones(6, 1, 64, 64, dtype=torch.bool)
    sum(malp.losses(images, images.flip(0), truth, regions, 0).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in malp.parameters())
    malp.zero_grad()


def test_with_a_change_net_the_map_is_how_much_the_pixels_of_the_edited_region_were_changed(malp, images, tmp_path):
    torch.manual_seed(0)
    refined = with_change_net(malp, 4).eval()
    coarse, truth = malp(images, 0), torch.rand(6, 1, 64, 64)
    optimizer = torch.optim.Adam(refined.change.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(refined.change_loss(images, truth))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    refined.save_pretrained(tmp_path)
    back = KeyedMaLP.from_pretrained(tmp_path).eval()
    out = back(images, 0)
    assert back.config.change_width == 4 and torch.equal(out.map, refined(images, 0).map)
    torch.testing.assert_close(out.map, (coarse.edited / 0.25).clamp(max=1) * torch.sigmoid(refined.change(images)))
    assert torch.equal(back(images, 0, coarse=True).map, coarse.map) and not torch.allclose(out.map, coarse.map, atol=1e-3)
    for name in ("edited", "logit", "presence"):
        assert torch.equal(getattr(out, name), getattr(coarse, name))


def test_a_change_net_sees_single_pixels(malp, images):
    """The detector's own network halves the resolution first, so its map is smooth from pixel to pixel."""
    refined = with_change_net(malp, 4).eval()
    with torch.no_grad():
        refined.change.head.weight.normal_(std=3, generator=torch.Generator().manual_seed(0))
    fine, coarse = (part(images, 0).map.diff(dim=3).abs().mean() for part in (refined, malp))
    assert fine > 3 * coarse


def test_a_saved_malp_is_the_same_and_its_key_is_a_file_of_its_own(malp, images, tmp_path):
    malp.detection = Calibration(threshold=0.5, false_alarm_rate=0.01, n=99, detector=malp.detector_fingerprint)
    malp.save_pretrained(tmp_path / "malp")
    malp.detection = None
    back = KeyedMaLP.from_pretrained(tmp_path / "malp").eval()
    assert back.detection is not None and back.detection.threshold == 0.5
    assert back.key_fingerprint == malp.key_fingerprint and back.detector_fingerprint == malp.detector_fingerprint
    assert torch.equal(back(images, 0).map, malp(images, 0).map)
    key = tmp_path / "malp" / "secret.safetensors"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = (tmp_path / "malp" / "model.safetensors").read_bytes() + (tmp_path / "malp" / "config.json").read_bytes()
    assert malp.secret not in public and malp.key_fingerprint.encode() not in public


def test_a_published_detector_works_with_another_owners_key(malp, images, tmp_path):
    malp.save_pretrained(tmp_path / "malp", key=tmp_path / "mine.safetensors")
    with pytest.raises(FileNotFoundError, match=r"comes without a key .*--key FILE on the command line, key=… in Python"):
        KeyedMaLP.from_pretrained(tmp_path / "malp")
    save_secret(tmp_path / "theirs.safetensors", b"t" * 32)
    theirs = KeyedMaLP.from_pretrained(tmp_path / "malp", key=tmp_path / "theirs.safetensors").eval()
    protected, index = theirs.encrypt(images)
    assert theirs(protected, index).presence.mean() > 5 > malp(protected, index).presence.max()


def test_a_key_works_on_the_grid_that_its_templates_lie_on(malp, tmp_path):
    malp.save_pretrained(tmp_path / "malp")
    key = tmp_path / "malp" / "secret.safetensors"
    other = KeyedMaLP(KeyedConfig(image_size=128, width=malp.config.width))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="lie on a reference grid of 64x64, and this detector has one of 128x128"):
        KeyedMaLP.from_pretrained(tmp_path / "other", key=key)
    save_secret(key, malp.secret)  # without the grid
    assert KeyedMaLP.from_pretrained(tmp_path / "other", key=key).secret == malp.secret


def test_a_key_of_an_earlier_scheme_is_refused(malp, tmp_path):
    """Its templates would silently not be found, and its filter may be known."""
    malp.save_pretrained(tmp_path / "malp")
    for metadata in ({"fingerprint": malp.key_fingerprint}, {"fingerprint": malp.key_fingerprint, "scheme": "2"}):
        save_tensors(tmp_path / "old.safetensors", {"secret": torch.tensor(list(malp.secret), dtype=torch.uint8)}, metadata)
        with pytest.raises(ValueError, match="is a key of scheme 2.*make a new key with malp-disc key"):
            KeyedMaLP.from_pretrained(tmp_path / "malp", key=tmp_path / "old.safetensors")


def test_every_key_of_a_detector_has_a_threshold_of_its_own(malp, tmp_path, caplog):
    malp.save_pretrained(tmp_path)
    save_secret(tmp_path / "theirs.safetensors", b"t" * 32)
    theirs = KeyedMaLP.from_pretrained(tmp_path, key=tmp_path / "theirs.safetensors")
    for owner, own, threshold in ((malp, True, 0.2), (theirs, False, 0.7)):
        calibration = Calibration(threshold=threshold, false_alarm_rate=0.01, n=99, images="faces", detector=owner.detector_fingerprint)
        calibration.write(tmp_path / owner.calibration_file(own_key=own))
    assert KeyedMaLP.from_pretrained(tmp_path).detection.threshold == 0.2
    assert KeyedMaLP.from_pretrained(tmp_path, key=tmp_path / "theirs.safetensors").detection.threshold == 0.7
    assert not caplog.records
    assert KeyedMaLP.from_pretrained(tmp_path, key=b"n" * 32).detection is None and "another key" in caplog.text


@pytest.mark.parametrize(("height", "width"), [(16, 5000), (3, 4000), (600, 32)])
def test_elongated_images_are_examined(malp, height, width):
    image = natural_images(1, height, width)
    protected = malp.encrypt(image, torch.tensor([7]))[0]
    out = malp(protected, 7)
    assert out.map.shape == (1, 1, height, width) and torch.isfinite(out.score).all()
    found, without = malp.identify(protected, [3, 7, 9]), malp.identify(image, [3, 7, 9])
    assert found.number == 7 and found.protected and not without.protected
    assert not malp.identify(torch.zeros(1, 3, height, width), range(3)).protected


def test_key_files_and_settings_are_checked(tmp_path):
    save_secret(tmp_path / "key.safetensors", b"k" * 32)
    assert load_secret(tmp_path / "key.safetensors") == b"k" * 32
    assert secret_fingerprint(bytes(32)) == "cba93f1ec5c94da4", "lists and thresholds name the key by it, for all time"
    with pytest.raises(ValueError, match="is needed; give the file"):
        load_secret(tmp_path / "key.safetensors", expected="0" * 16)
    for call, message in (
        (lambda: save_secret(tmp_path / "x", b"short"), "32 bytes, got 5 bytes"),
        (lambda: KeyedMaLP(secret="0" * 32), "got str"),
        (lambda: KeyedConfig(image_size=16), "at least 32"),
        (lambda: KeyedConfig(psnr=90), "20 to 60 dB"),
        (lambda: KeyedConfig(edited_above=1.0), "edited_above in"),
        (lambda: KeyedConfig(width=2), "width of at least 4"),
        (lambda: KeyedConfig(present_above=30), "present_above of 3 to 20"),
        (lambda: KeyedConfig(change_width=2), "change_width of at least 4, or 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "malp"}))
    with pytest.raises(ValueError, match="model_type is 'malp'"):
        KeyedMaLP.from_pretrained(tmp_path)


def test_settings_of_a_newer_version_are_named(malp, tmp_path):
    malp.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "turns": 7}))
    with pytest.raises(ValueError, match="doesn't know, turns; update malp-disc"):
        KeyedMaLP.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"width": 4.0}, "width: expected a whole number, got 4.0"),
        ({"psnr": "38"}, "psnr: expected a number, got '38'"),
        ({"present_above": None}, "present_above: expected a number, got None"),
        ({"edited_above": 2}, r"edited_above in \(0, 1\), got 2"),
    ],
)
def test_a_setting_that_cant_be_is_named_with_its_file(malp, tmp_path, entry, said):
    malp.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, **entry}))
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json is damaged or of another version: .*{said}"):
        KeyedMaLP.from_pretrained(tmp_path)


def test_a_malp_of_another_scheme_is_refused(malp, tmp_path):
    """Its templates would silently not be found."""
    malp.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for content in ({name: value for name, value in saved.items() if name != "scheme"}, {**saved, "scheme": 5}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="templates of scheme"):
            KeyedMaLP.from_pretrained(tmp_path)
    for scheme in (2, 3):
        (tmp_path / "config.json").write_text(json.dumps({**saved, "scheme": scheme}))
        with pytest.raises(ValueError, match=f'templates of scheme {scheme} .* set "scheme": {SCHEME} in its config.json and take a new key'):
            KeyedMaLP.from_pretrained(tmp_path)


EXPECTED = torch.tensor([[-1.1417756, -0.1008054], [0.1154675, -0.889823]])


def test_a_network_of_an_earlier_version_is_refused_with_what_to_do(malp, tmp_path):
    malp.save_pretrained(tmp_path)
    weights = load_tensors(tmp_path / "model.safetensors")
    weights["cnn.classifier.0.weight"] = weights["cnn.classifier.0.weight"][:4, :18].contiguous()
    save_tensors(tmp_path / "model.safetensors", weights)
    with pytest.raises(ValueError, match="trained by an earlier version.*pretrain again into a folder that has the key"):
        KeyedMaLP.from_pretrained(tmp_path)


def test_the_keys_noise_is_standard_normal_and_fixed_for_all_time():
    noise = secret_noise(bytes(32), "a", (40001,))
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    assert not torch.equal(noise, secret_noise(bytes(32), "b", (40001,)))
    torch.testing.assert_close(secret_noise(bytes(32), "a", (2, 2)), EXPECTED, atol=1e-6, rtol=0)
