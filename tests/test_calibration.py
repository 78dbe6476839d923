"""The threshold for a false-alarm rate: what it promises, and that it goes where its MaLP goes."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from malp_disc import MaLP
from malp_disc.calibration import CALIBRATION_FILE, Calibration, conservative_threshold, least_images
from malp_disc.commands import pretrain as pretrain_malp
from malp_disc.evaluation.eval_set import EvalSet
from tests.tiny import sample_images, tiny_malp


def test_the_threshold_is_an_order_statistic():
    scores = np.arange(1, 100) / 100
    assert conservative_threshold(scores, 0.01) == 0.99, "with 99 images and 1 % only the highest will do"
    assert conservative_threshold(scores[::-1], 0.1) == 0.90
    assert conservative_threshold([0.3], 0.5) == 0.3


def test_rounding_of_the_rate_takes_neither_a_higher_threshold_nor_an_image_more():
    assert 9 * (1 - 1 / 3) > 6 and conservative_threshold(np.arange(1, 9), 1 / 3) == 6
    assert 1 / (1 / 49) > 49 and least_images(1 / 49) == 48


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (25, 0.1), (120, 0.03)])
def test_a_further_image_exceeds_it_no_oftener_than_promised(n, rate):
    """Whatever the distribution: with n + 1 exchangeable scores, the mean over which one is the further one."""
    scores = np.random.default_rng(n).exponential(size=n + 1)
    exceeding = np.mean([scores[i] > conservative_threshold(np.delete(scores, i), rate) for i in range(n + 1)])
    assert rate - 2 / (n + 1) < exceeding <= rate


def test_ties_give_no_false_alarms():
    assert (np.zeros(50) > conservative_threshold(np.zeros(99), 0.01)).mean() == 0


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        (np.zeros(98), 0.01, "a false-alarm rate of 0.01 needs at least 99 real images, got 98"),
        ([], 0.5, "at least 1 real images, got 0"),
        ([0.1], 0.0, "between 0 and 1, got 0.0"),
        ([0.1], 1, "between 0 and 1, got 1"),
        ([np.nan, 1], 0.5, "1 of 2 scores are not finite"),
    ],
)
def test_promises_that_can_not_be_kept_are_refused(scores, rate, message):
    with pytest.raises(ValueError, match=message):
        conservative_threshold(scores, rate)


def test_every_kind_of_real_image_keeps_the_rate_and_misses_are_counted():
    fitted = Calibration.fit([np.full(9, 0.1), np.full(12, 0.4)], 0.1, manipulated=[0.2, 0.4, 0.5, 0.9])
    assert (fitted.threshold, fitted.n, fitted.detection_rate, fitted.n_manipulated) == (0.4, 9, 0.5, 4)


def calibrated(**config) -> MaLP:
    malp = tiny_malp(**config).eval()
    malp.detection = Calibration(threshold=1 / 3, false_alarm_rate=0.01, n=99, images="faces", detector=malp.detector_fingerprint)
    return malp


def test_it_is_saved_and_loaded_with_its_malp_to_the_last_bit(tmp_path):
    malp = calibrated()
    malp.save_pretrained(tmp_path / "malp")
    assert MaLP.from_pretrained(tmp_path / "malp").detection == malp.detection
    MaLP.from_pretrained(tmp_path / "malp").save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / CALIBRATION_FILE).read_text())["threshold"] == 1 / 3


def test_other_weights_leave_it_behind(tmp_path, caplog):
    malp = calibrated()
    malp.save_pretrained(tmp_path)
    with torch.no_grad():
        malp.cnn.map_head.bias += 1
    malp.save_pretrained(tmp_path)
    assert not (tmp_path / CALIBRATION_FILE).exists()
    malp.detection.write(tmp_path / CALIBRATION_FILE)
    with caplog.at_level(logging.WARNING):
        assert MaLP.from_pretrained(tmp_path).detection is None
    assert "other weights" in caplog.text


def test_it_is_uploaded(monkeypatch):
    uploads = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Url", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, *, folder_path, **_: uploads.extend(path.name for path in folder_path.iterdir()))
    calibrated().push_to_hub("somebody/malp")
    assert CALIBRATION_FILE in uploads


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"threshold": "high", "false_alarm_rate": 0.01, "n": 9}', '{"threshold": 1, "false_alarm_rate": 0.01, "n": 9, "x": 1}'])
def test_a_damaged_file_is_named(tmp_path, content):
    tiny_malp().save_pretrained(tmp_path)
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(ValueError, match=CALIBRATION_FILE):
        MaLP.from_pretrained(tmp_path)


class Process:
    device = torch.device("cpu")


class Inverting(torch.nn.Module):
    def manipulate(self, images, target):
        return -images


@pytest.mark.parametrize(("dropout", "kinds"), [(0.0, "encrypted,"), (0.5, "encrypted and unprotected,")])
def test_pretraining_sets_it_on_held_out_images(tmp_path, dropout, kinds):
    malp = tiny_malp().eval()
    malp.save_pretrained(tmp_path / "malp")
    inputs = EvalSet(sample_images(30), torch.zeros(30, 0), torch.zeros(30, 0), torch.full((30,), -1), ())
    config = pretrain_malp.Config(output_dir=tmp_path, detection_false_alarm_rate=0.1, malp_template_dropout=dropout, image_size=32)
    pretrain_malp.calibrate(Inverting(), malp, inputs, config, Process())
    fitted = MaLP.from_pretrained(tmp_path / "malp").detection
    assert fitted.n == fitted.n_manipulated == 30 and kinds in fitted.images
    with torch.no_grad():
        scores = malp(pretrain_malp.to_8bit(malp.encrypt(inputs.images)[0])).score
    assert (scores > fitted.threshold).float().mean() <= 0.1


def test_pretraining_with_few_images_says_that_there_is_no_threshold(tmp_path, capsys):
    malp = tiny_malp().eval()
    inputs = EvalSet(sample_images(5), torch.zeros(5, 0), torch.zeros(5, 0), torch.full((5,), -1), ())
    pretrain_malp.calibrate(Inverting(), malp, inputs, pretrain_malp.Config(output_dir=tmp_path), Process())
    said = capsys.readouterr().out
    assert "no threshold for malp-disc detect" in said and malp.detection is None
    assert "--test-size 99 " in said and "--detection-false-alarm-rate" in said


@pytest.mark.parametrize(("count", "rate", "said"), [(98, 0.01, "give --test-size 99 or a higher"), (99, 0.01, None), (512, 0.001, "no more than 512 held-out ones are used")])
def test_too_few_held_out_images_for_a_threshold_are_warned_of_before_the_training(tmp_path, caplog, count, rate, said):
    pretrain_malp.warn_of_no_threshold(count, pretrain_malp.Config(output_dir=tmp_path, detection_false_alarm_rate=rate))
    assert said in caplog.text if said else not caplog.records


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"n": "40"}, "n: expected a whole number, got '40'"),
        ({"false_alarm_rate": None}, "false_alarm_rate: expected a number, got None"),
        ({"threshold": True}, "threshold: expected a number, got True"),
        ({"threshold": float("nan")}, "expected a finite threshold, got nan"),
        ({"statistic": "median"}, "statistic: expected one of image, window, got 'median'"),
    ],
)
def test_an_entry_of_a_wrong_type_is_named_with_its_file(tmp_path, entry, said):
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps({**Calibration(threshold=0.4, false_alarm_rate=0.01, n=40).as_json(), **entry}))
    with pytest.raises(ValueError, match=f"{path} is damaged.*{said}; delete it, and calibrate again"):
        Calibration.read(path)
