"""An extractor is never the teacher: what makes two networks the same, what a fine-tuning learned from, and the refusals before and after the work."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.backbones import create_backbone
from malp_disc.evaluation.evaluation_models import EvaluationOptions
from malp_disc.evaluation.feature_views import EvaluationModels
from malp_disc.evaluation.teachers import check_extractors, teachers_of, without_automatic_teacher
from malp_disc.feature_branch import FeatureBranch
from malp_disc.metrics.features import create_extractor
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.run_folder.measurement import Measurement, Network
from malp_disc.run_folder.teachers import is_teacher
from malp_disc.serialization.state_dicts import save_tensors, values_fingerprint
from malp_disc.serialization.typed_json import from_json
from tests.report.typed import arm_verdict, run_verdict

SQUEEZENET = {"backbone": "squeezenet1_0", "fingerprint": "0123456789abcdef"}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return squeezenet1_0(weights=None).state_dict()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("squeezenet") / "weights.safetensors"
    save_tensors(path, weights)
    return path


def test_a_fingerprint_is_of_the_values_and_not_of_names_order_or_precision(weights):
    print_ = values_fingerprint(weights.values())
    assert values_fingerprint(reversed(list(weights.values()))) == print_
    assert values_fingerprint([value.half().float() for value in weights.values()]) == values_fingerprint([value.double() for value in weights.values()]) == print_
    assert values_fingerprint([*weights.values(), torch.tensor(7)]) == print_  # a batch counter
    nudged = [value.clone() for value in weights.values()]
    nudged[0].view(-1)[0] += 0.01
    assert values_fingerprint(nudged) != print_
    assert values_fingerprint([nudged[0].reshape(-1), *nudged[1:]]) != values_fingerprint(nudged)


def test_a_value_beyond_half_precision_has_one_fingerprint_in_either_file():
    large = torch.tensor([1e6, -1e6])
    assert values_fingerprint([large]) == values_fingerprint([large.half()])


def test_every_extractor_says_what_it_is(file, shared):
    inception = "weights/fid_inception_2015_12_05/fid_inception_to_mixed_7a.safetensors"
    made = [create_extractor("faces"), create_extractor("squeezenet", weights=file), RandomExtractor()]
    made += [create_extractor("inception-64", weights=shared(inception)), create_extractor("clean-64", weights=shared(inception))]
    assert [extractor.backbone for extractor in made] == ["attribute_net", "squeezenet1_0", "untrained_convolutions", "inception_v3", "inception_v3"]
    prints = [extractor.fingerprint for extractor in made]
    assert all(len(print_) == 16 for print_ in prints) and len(set(prints)) == 4 and prints[3] == prints[4]


def test_teachers_are_found_in_any_nesting_and_only_once(file):
    backbone = create_backbone("squeezenet1_0", file)
    (teacher,) = teachers_of(None, nn.Sequential(nn.Linear(1, 1), nn.ModuleList([FeatureBranch(backbone), backbone])))
    assert teacher == Network("squeezenet1_0", create_extractor("squeezenet", weights=file).fingerprint)
    holder = nn.Module()
    holder.backbone = nn.Linear(1, 1)  # a module of that name is no declaration
    assert teachers_of(holder, None) == ()


@pytest.mark.parametrize(
    ("extractor", "same"),
    [
        (SQUEEZENET, True),
        ({**SQUEEZENET, "fingerprint": "f" * 16}, True),  # other weights of the same architecture
        ({**SQUEEZENET, "backbone": "somebody's extractor"}, True),  # the same weights under another name
        ({"backbone": "squeezenet1_1", "fingerprint": "f" * 16}, False),
        ({"backbone": None, "fingerprint": None}, False),  # a measurement of before extractors said what they are
        ({"backbone": "", "fingerprint": ""}, False),
        ({}, False),
    ],
)
def test_same_architecture_or_same_weights_is_the_teacher(extractor, same):
    assert is_teacher(Network(**extractor), [Network("resnet18", "a" * 16), Network(**SQUEEZENET)]) == same
    assert not is_teacher(Network(**extractor), [])


def test_the_origin_of_a_backbones_weights_is_no_part_of_its_architecture():
    assert is_teacher(Network("inception_v3", "1"), [Network("inception_v3.tf_in1k", "2")])
    assert is_teacher(Network("efficientnet_lite0", "1"), [Network("tf_efficientnet_lite0.in1k", "2")])


@pytest.mark.parametrize(("view", "words"), [("frechet", "is the extractor as well"), ("second", "is the second extractor as well"), ("third", "is the third extractor as well")])
def test_the_verdict_is_refused_where_an_extractor_is_the_arms_backbone(arms, comparison, view, words):
    assert arm_verdict("cotrain", arms, comparison).outcome == "improved"
    arms["cotrain"]["teachers"] = [SQUEEZENET]
    assert arm_verdict("cotrain", arms, comparison).outcome == "improved"  # measured by another network
    arms["cotrain"][view] = {**arms["cotrain"]["frechet"], **SQUEEZENET}
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "not decided"
    assert "not decided: cotrain was fine-tuned on the features of squeezenet1_0" in verdict.reason and words in verdict.reason
    assert run_verdict(arms, comparison)[0].startswith("No improvement shown: ")


def test_a_run_is_refused_before_its_work_by_the_flag_that_names_the_teacher(file):
    squeezenet, faces = create_extractor("squeezenet", weights=file), create_extractor("faces")
    teachers = {"control": [], "vision_aided": teachers_of(create_backbone("squeezenet1_0", file))}
    models = EvaluationModels(faces, None, None, squeezenet)
    with pytest.raises(ValueError, match="--second-extractor is SqueezeNet.*, the backbone of vision_aided"):
        check_extractors(models, teachers)
    with pytest.raises(ValueError, match="--extractor is SqueezeNet"):
        check_extractors(dataclasses.replace(models, extractor=squeezenet, second=None), teachers)
    models = dataclasses.replace(models, second=RandomExtractor())
    check_extractors(models, teachers)
    with pytest.raises(ValueError, match="--third-extractor is SqueezeNet"):
        check_extractors(dataclasses.replace(models, third=squeezenet), teachers)
    check_extractors(models, {"control": []})


def test_a_third_extractor_that_teaches_an_arm_is_left_out_unless_somebody_chose_it(file):
    squeezenet = create_extractor("squeezenet", weights=file)
    models = EvaluationModels(create_extractor("faces"), None, None, None, squeezenet)
    taught = {"control": (), "vision_aided": teachers_of(create_backbone("squeezenet1_0", file))}
    assert without_automatic_teacher(models, EvaluationOptions(), taught).third is None
    assert without_automatic_teacher(models, EvaluationOptions(), {"control": ()}) is models
    assert without_automatic_teacher(models, EvaluationOptions(third_extractor="squeezenet"), taught) is models


def test_a_line_without_teachers_has_none_and_a_damaged_entry_is_named():
    assert from_json(Measurement, {}, "line 1").teachers == ()
    assert from_json(Measurement, {"teachers": [SQUEEZENET]}, "line 1").teachers == (Network(**SQUEEZENET),)
    with pytest.raises(ValueError, match="line 1, teachers, backbone: expected text or null, got 3"):
        from_json(Measurement, {"teachers": [{"backbone": 3}]}, "line 1")
    with pytest.raises(ValueError, match="teachers: expected a list, got 'squeezenet1_0'"):
        from_json(Measurement, {"teachers": "squeezenet1_0"}, "line 1")
