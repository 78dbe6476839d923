"""Scores of a MaLP: what happens to images happens to both classes, the truth is what the generator did, and nothing rides on the 8-bit grid."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from malp_disc import MaLP, MaLPConfig
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.localize import measure_malp, predict, score_malp, score_predictions, through_generator
from malp_disc.fakeness import fakeness_map
from malp_disc.metrics.psnr import mean_psnr
from tests.tiny import sample_images, tiny_malp, with_rectangles

NAMES = ("Black_Hair", "Blond_Hair", "Smiling")


@pytest.fixture
def inputs() -> EvalSet:
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]])
    return EvalSet(sample_images(4), labels, 1 - labels, torch.zeros(4, dtype=torch.long), NAMES)


def edit(images, targets):
    return with_rectangles(images)


class Sees:
    """In the place of a trained MaLP's network: the map is the rectangle itself, found by what was not there before."""

    def __init__(self, malp, truth):
        self.malp, self.truth, self.seen = malp, truth, []

    def __call__(self, images):
        self.seen.append(images)
        out = self.malp(images)
        out.map = self.truth[: len(images)]
        return out

    def __getattr__(self, name):
        return getattr(self.malp, name)


def test_a_map_that_is_the_truth_scores_one(inputs):
    malp = tiny_malp().eval()
    seen = through_generator(edit, inputs, malp)
    truth = fakeness_map(seen.images, seen.manipulated)
    scores = score_malp(seen, Sees(malp, truth)).localization
    assert scores.cs == pytest.approx(1) and scores.pearson == pytest.approx(1) and scores.ssim == pytest.approx(1)
    assert scores.cs_constant < 0.95


def test_the_mean_map_is_that_of_the_other_images(inputs):
    """If every image is changed alike, the others tell all; if an image is changed elsewhere than all others, they tell nothing of it."""

    def in_the_corner(images, targets, corners=((0, 0), (0, 0), (0, 0), (16, 16))):
        changed = images.clone()
        for image, (top, left) in zip(changed, corners):
            image[:, top : top + 16, left : left + 16] = -image[:, top : top + 16, left : left + 16].sign()
        return changed

    malp = tiny_malp(strength=0.0).eval()
    alike = measure_malp(lambda images, targets: (images + 0.2 * (torch.arange(32) > 15)).clamp(-1, 1), inputs, malp).localization
    assert alike.cs_mean_map == pytest.approx(1, abs=1e-3) and alike.pearson_mean_map == pytest.approx(1, abs=1e-3)
    apart = measure_malp(in_the_corner, inputs, malp).localization
    assert apart.cs_mean_map < 0.75, "three of four tell a third of each other wrongly, and nothing of the fourth"


def test_images_that_the_generator_left_alone_count_in_no_score_and_in_no_baseline(inputs):
    """Otherwise the baseline of an uninformed map would be halved by them, and the scores beside it wouldn't."""

    def every_second(images, targets):
        changed = (images + 0.2 * (torch.arange(32) > 15)).clamp(-1, 1)
        return torch.where((torch.arange(len(images)) % 2 == 0).view(-1, 1, 1, 1), changed, images)

    malp = tiny_malp(strength=0.0).eval()
    found = measure_malp(every_second, inputs, malp).localization
    assert found.cs_mean_map == pytest.approx(1, abs=1e-3) and found.pearson_mean_map == pytest.approx(1, abs=1e-3)
    none = measure_malp(lambda images, targets: images, inputs, malp).localization
    assert none.cs_mean_map is None and none.pearson_mean_map is None and none.cs_encrypted is None and none.cs is None


def test_the_generator_gets_the_encrypted_images_and_the_truth_is_against_the_originals(inputs):
    malp = tiny_malp(strength=0.3).eval()
    given = []
    seen = through_generator(lambda images, targets: given.append((images, targets)) or images, inputs, malp)
    assert torch.equal(given[0][1], inputs.targets)
    assert torch.equal(given[0][0], malp.encrypt(inputs.images, torch.zeros(4, dtype=torch.long))[0])
    truth = fakeness_map(seen.images, seen.manipulated)
    assert truth.mean() > 0.01, "a generator that copies leaves the template, and Eq. 5 counts it"


def test_the_templates_are_used_in_turn(inputs):
    assert through_generator(edit, inputs, tiny_malp(set_size=3)).index.tolist() == [0, 1, 2, 0]


def test_both_classes_are_sent_alike_and_on_the_8_bit_grid(inputs):
    malp = tiny_malp().eval()
    seen = through_generator(edit, inputs, malp)
    looking = Sees(malp, fakeness_map(seen.images, seen.manipulated))
    score_malp(seen, looking)
    for images in looking.seen:
        levels = (images + 1) * 127.5
        assert torch.allclose(levels, levels.round(), atol=1e-3)
    sent = []
    score_malp(seen, malp, degradation=lambda images: sent.append(images) or images.flip(-1))
    assert torch.equal(sent[0], seen.published) and torch.equal(sent[1], seen.manipulated)


def test_what_is_published_goes_into_the_generator_and_counts_as_untouched(inputs):
    malp = tiny_malp().eval()
    given = []
    seen = through_generator(lambda images, _: given.append(images) or images, inputs, malp, publish=lambda images: images * 0)
    assert not seen.published.any() and not given[0].any()
    assert torch.equal(seen.images, inputs.images)


def test_a_passive_malp_has_no_template_scores(inputs):
    scores = measure_malp(edit, inputs, tiny_malp(strength=0.0).eval())
    assert scores.template is None and scores.encrypted_psnr is None
    scores = measure_malp(edit, inputs, tiny_malp(set_size=2).eval())
    assert -1 <= scores.template.between <= 1 and None not in dataclasses.astuple(scores.template)


class Answers(Sees):
    """Says of untouched images, which it is shown first, and of edited ones what is given: maps (N, 1, H, W) and scores."""

    def __init__(self, malp, maps, scores):
        super().__init__(malp, None)
        self.answers = list(zip(maps, scores))

    def __call__(self, images):
        out = self.malp(images)
        out.map, out.score = self.answers[len(self.seen)]
        self.seen.append(images)
        return out


def test_untouched_and_edited_images_are_not_taken_for_each_other(inputs):
    """Of one kind the map is dark and even, of the other bright and of the truth's form."""
    malp = tiny_malp().eval()
    seen = through_generator(edit, inputs, malp)
    truth = fakeness_map(seen.images, seen.manipulated)
    dark, bright = torch.full_like(truth, 0.125), 0.5 + 0.5 * (truth > 0.5)
    scores = score_malp(seen, Answers(malp, (dark, bright), (torch.full((4,), 0.2), torch.full((4,), 0.9))))
    found = scores.localization
    assert scores.detection.auc == scores.detection.accuracy == 1
    assert found.mean_encrypted == 0.125 and found.mean_manipulated == pytest.approx(bright.mean().item()) and found.spread == pytest.approx(bright.std().item())
    assert found.cs_encrypted == pytest.approx(torch.cosine_similarity(dark.flatten(1), truth.flatten(1)).mean().item(), rel=1e-4) != found.cs
    assert scores.encrypted_psnr == pytest.approx(mean_psnr(seen.published, seen.images))


def test_the_template_that_counts_is_the_images_own_and_that_of_an_edited_image_apart(inputs):
    malp = tiny_malp(set_size=3).eval()
    images = malp.encrypt(inputs.images, torch.tensor([0, 1, 2, 0]))[0]
    templates, index = malp.encryption.at((32, 32)), torch.tensor([2, 1, 0, 1])
    expected = malp.similarities(malp(images).template, templates)
    similarity = predict(malp, images, index).similarity
    torch.testing.assert_close(similarity, expected[torch.arange(4), index])
    seen = through_generator(edit, inputs, malp)
    published, manipulated = (predict(malp, batch, seen.index) for batch in (seen.published, seen.manipulated))
    found = score_predictions(seen, malp, published, manipulated).template
    assert (found.encrypted, found.manipulated) == pytest.approx((published.similarity.mean().item(), manipulated.similarity.mean().item()))
    rows = torch.nn.functional.normalize(malp.encryption.templates.detach().flatten(1), dim=1)
    assert found.between == pytest.approx(((rows @ rows.T)[[0, 0, 1], [1, 2, 2]]).mean().item(), rel=1e-3)


def test_a_dead_head_shows_as_no_spread(inputs):
    malp = tiny_malp().eval()
    torch.nn.init.zeros_(malp.cnn.map_head.weight)
    scores = measure_malp(edit, inputs, malp).localization
    assert scores.spread == pytest.approx(0, abs=1e-6) and scores.pearson == pytest.approx(0, abs=1e-6)


def test_psnr_by_hand():
    """An error of 0.2 everywhere on a range of 2: 20 log10(2 / 0.2) = 20 dB."""
    assert mean_psnr(torch.full((2, 3, 4, 4), 0.2), torch.zeros(2, 3, 4, 4)) == pytest.approx(20)
    assert mean_psnr(torch.tensor([0.2, 0.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)) == pytest.approx(60), "an unchanged image counts as 100 dB"
    assert mean_psnr(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)) == float("inf")


def test_one_attribute_at_a_time_leaves_out_those_who_have_it(inputs):
    blond = inputs.of_one_attribute("Blond_Hair")
    assert blond.targets.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert torch.equal(blond.images, inputs.images[[0, 3]]) and blond.edited.tolist() == [1, 1]
    smiling = inputs.of_one_attribute("Smiling")
    assert smiling.targets[:, 2].tolist() == [1, 0, 1, 0] and torch.equal(smiling.targets[:, :2], inputs.labels[:, :2])
    with pytest.raises(ValueError, match="unknown attribute 'Bald'"):
        inputs.of_one_attribute("Bald")


def test_the_similarity_of_a_template_is_the_architectures_own(monkeypatch):
    torch.manual_seed(0)
    malp = MaLP(MaLPConfig(architecture="official", branch=None)).eval()
    images, recovered = sample_images(2, 128, 128), 1 + torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        out = dataclasses.replace(malp(images), template=recovered)
    monkeypatch.setattr(malp, "forward", lambda part: out)
    similarity = predict(malp, images, torch.zeros(2, dtype=torch.long)).similarity
    assert torch.equal(similarity, malp.similarities(recovered, malp.encryption.at((128, 128)))[:, 0])
    normalized = ((recovered - recovered.amin((1, 2, 3), keepdim=True)) / (recovered.amax((1, 2, 3), keepdim=True) - recovered.amin((1, 2, 3), keepdim=True))).flatten(1)
    torch.testing.assert_close(similarity, torch.cosine_similarity(normalized, malp.encryption.templates.flatten(1)), rtol=1e-4, atol=1e-5)


def test_the_mean_map_of_equal_faint_edits_agrees_perfectly(inputs):
    """One pixel by one level of 255. An epsilon in the cosine gave 0.9."""

    def faint(images, targets):
        changed = images.clone()
        changed[:, :, 3, 3] += 2 / 255
        return changed

    malp = tiny_malp(strength=0.0).eval()
    scores = score_malp(through_generator(faint, dataclasses.replace(inputs, images=0.5 * inputs.images), malp), malp).localization
    assert scores.cs_mean_map == pytest.approx(1, abs=1e-3) and scores.pearson_mean_map == pytest.approx(1, abs=1e-3)
