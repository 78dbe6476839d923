"""What cannot work is reported before any work, by a dry run as well."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.evaluation_models import EvaluationConfig
from malp_disc.evaluation.evaluator import evaluation_sets
from malp_disc.run_folder.experiment import experiment_of
from malp_disc.run_folder.lock import LOCK_FILE
from malp_disc.shipped import FACES_GENERATOR, FACES_MALP
from malp_disc.training.launch import check_images_per_step
from malp_disc.training.output_folder import write_experiment
from malp_disc.training.preflight import check_forward_pass, two_items
from malp_disc.training.train_options import TrainOptions
from recipes import evaluate, finetune, finetune_stargan
from tests.recipes.in_process import ROOT
from tests.recipes.small_runs import SMALL, options
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import tiny_malp

SURVIVE = ROOT / "weights" / "survive"
pytestmark = pytest.mark.usefixtures("release_all_locks")


def test_a_step_that_needs_more_images_than_there_are(tmp_path):
    two = TrainOptions(output_dir=tmp_path, max_train_steps=1, train_batch_size=4, gradient_accumulation_steps=2)
    check_images_per_step(two, 8, 1)
    with pytest.raises(ValueError, match="4 x 2 x 2 images, but the data set has 8"):
        check_images_per_step(two, 8, 2)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--train-batch-size", 41], "41 x 1 images, but the data set has 40"),
        (["--arms", "control", "no_template", "--passive-malp", "nowhere"], "no folder nowhere"),
        (["--arms", "control", "no_template", "--passive-malp", FACES_MALP], "adds a template"),
        (["--arms", "vision_aided", "--backbone-weights", "nowhere.pth"], "nowhere.pth"),
        (["--arms", "vision_aided", "--backbone", "resnettt"], "no backbone 'resnettt'"),
        (["--malp", "./nowhere"], "no folder nowhere"),
        (["--malp", SURVIVE], f"--malp {SURVIVE} is a MaLP of the preset survive, and no generator can be fine-tuned against those"),
        (["--arms", "control", "no_template", "--passive-malp", SURVIVE], f"--passive-malp {SURVIVE} is a MaLP of the preset survive"),
        (["--generator-checkpoint", "G.pth", "--discriminator-checkpoint", "D.pth"], "G.pth"),
        (["--generator-checkpoint", FACES_GENERATOR, "--discriminator-checkpoint", "D.pth"], "D.pth"),
        (["--second-extractor", "squeezenet", "--second-weights", "nowhere.pth"], "nowhere.pth"),
        (["--fid-weights", "nowhere.pth"], "nowhere.pth"),
        (["--attribute-classifier", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--face-embedding", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--eval-size", 1], "--eval-size of at least 2 images, got 1 of 12"),
        (["--reference-size", 3], "--reference-size of at least 4 images"),
        (["--seeds", -1], "seeds from 0 to"),
        (["--resume-from-checkpoint", "checkpoint-5"], "no complete checkpoint checkpoint-5"),
        (["--report-to", "nobody"], "'nobody'"),
        (["--fresh-malp-steps", 5, "--malp-width", 2], "width of at least 4"),
        (["--fresh-malp-steps", 5, "--malp-attribute", "Halo"], "--malp-attribute out of"),
        (["--fresh-malp-steps", 5, "--malp-least-psnr", -1], "--malp-least-psnr of 0 or more"),
        (["--learning-rate", "inf"], "finite number for --learning-rate"),
        (["--cotrain-weight", "nan"], "finite number for --cotrain-weight"),
        (["--max-train-steps", 0], "expected --max-train-steps of at least 1, got 0"),
        (["--checkpoints-total-limit", 0], "--checkpoints-total-limit of at least 1"),
        (["--dataloader-num-workers", -1], "--dataloader-num-workers of 0 or more"),
        (["--image-size", 36], "image_size is 64 in the file and 36 was asked for"),
    ],
)
def test_it_is_said_before_work_and_by_a_dry_run(monkeypatch, tmp_path, dry, wrong, words):
    assert words in message_of(monkeypatch, finetune_stargan, *SMALL, "--output-dir", tmp_path / "run", *wrong, *dry)
    left = {path.name for path in (tmp_path / "run").rglob("*")} if (tmp_path / "run").exists() else set()
    assert left <= {"config.json", "environment.json", "experiment.json", LOCK_FILE} and not (dry and left), "nothing was measured or trained"


def test_missing_references_are_said_by_their_own_flag(monkeypatch, tmp_path):
    assert "--reference-root must name" in message_of(monkeypatch, finetune, *SMALL, "--output-dir", tmp_path / "run", "--reference-root", "nowhere", "--dry-run")


def test_a_dry_run_refuses_a_folder_with_another_experiment_and_leaves_it_alone(monkeypatch, tmp_path):
    write_experiment(tmp_path, experiment_of(finetune_stargan.Config(mixed_precision="no")))
    (tmp_path / "measurements.jsonl").write_text("{}\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    message = message_of(monkeypatch, finetune_stargan, *SMALL, "--output-dir", tmp_path, "--dry-run", "--malp", FACES_MALP)
    assert "--train-size was not given, is 40" in message and {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_fewer_images_than_asked_for_are_told(caplog):
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        sets = evaluation_sets(EvaluationConfig(eval_size=30, reference_size=40, image_size=32, train_size=40, test_size=12))
    assert len(sets.held_out) == 12 and "--eval-size 30: there are only 12 images" in caplog.text and "reference-size" not in caplog.text


class Halver(nn.Module):
    """Takes sides that are multiples of 8, as a network with skip connections does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.learns = True

    def manipulate(self, images, target):
        small = nn.functional.max_pool2d(images, 8)
        edited = self.weight * images + nn.functional.interpolate(small, scale_factor=8)
        return edited if self.learns else edited.detach()


def test_networks_are_tried_on_images_of_the_size(tmp_path):
    generator, config, cpu = Halver(), options(output_dir=tmp_path), torch.device("cpu")
    state = torch.get_rng_state()
    check_forward_pass(generator, None, [tiny_malp()], ProceduralFaces(4, image_size=32), config, cpu)
    with pytest.raises(ValueError, match="the generator can't work with images of 36x36 .*--image-size"):
        check_forward_pass(generator, None, [], ProceduralFaces(4, image_size=36), config, cpu)
    generator.learns = False
    with pytest.raises(ValueError, match="no gradient reaches the generator"):
        check_forward_pass(generator, None, [], ProceduralFaces(4, image_size=32), config, cpu)
    assert torch.equal(torch.get_rng_state(), state), "a run draws the same numbers with and without"


def test_a_single_training_image_is_enough(tmp_path):
    one, cpu = ProceduralFaces(1, image_size=32), torch.device("cpu")
    images, labels = two_items(one, options(output_dir=tmp_path), cpu)
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], one[0][0]) and len(labels) == 2
    check_forward_pass(Halver(), None, [tiny_malp()], one, options(output_dir=tmp_path), cpu)


def test_an_arm_measured_from_another_file_is_refused(tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    old.write_bytes(b"old"), new.write_bytes(b"new")
    lines = [{"seed": 0, "arm": arm, "weights": {"file": old.name, "sha256": evaluate.file_sha256(old)}} for arm in ("control", "cotrain")]
    (tmp_path / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluate.check_measured(tmp_path, 0, {"control": old, "frozen": new})
    evaluate.check_measured(tmp_path, 0, {"control": new, "cotrain": new})
    evaluate.check_measured(tmp_path, 1, {"control": new})
    with pytest.raises(ValueError, match="has the control of .*old.safetensors as seed 0 already: a seed is a fine-tuning of its own"):
        evaluate.check_measured(tmp_path, 1, {"before": old, "control": old})
    with pytest.raises(ValueError, match="has control of seed 0 from another file than .*new.safetensors, and beside it cotrain"):
        evaluate.check_measured(tmp_path, 0, {"control": new, "frozen": new})


def test_the_network_that_teaches_an_arm_is_refused_as_its_extractor_before_work(monkeypatch, tmp_path):
    torch.save(squeezenet1_0(weights=None).state_dict(), tmp_path / "teacher.pth")
    torch.save(squeezenet1_0(weights=None).half().state_dict(), tmp_path / "extractor.pth")  # another training of the same architecture
    arms = ["--arms", "control", "vision_aided", "--backbone", "squeezenet1_0", "--backbone-weights", tmp_path / "teacher.pth", "--extractor", "faces", "--second-extractor", "squeezenet", "--second-weights", tmp_path / "extractor.pth"]
    message = message_of(monkeypatch, finetune_stargan, *SMALL[:8], *SMALL[10:], "--output-dir", tmp_path / "run", *arms, "--dry-run")
    assert "--second-extractor is SqueezeNet" in message and "the backbone of vision_aided" in message
