"""MaLP joins the benchmark in three forms; proactive ones protect, and the numbers are MaLP's own."""

from __future__ import annotations

import pytest
import torch

from malp_disc.benchmark.loading import load_localizer
from malp_disc.benchmark.localizer import family_of, name_of, predict, protect
from malp_disc.benchmark.malp_localizer import MaLPLocalizer
from malp_disc.benchmark.template_choice import template_of
from tests.official import packed, saved, signal
from tests.tiny import sample_images, tiny_malp


def test_e_c_alone_gives_malps_map_and_score():
    malp, images = tiny_malp(), sample_images(3)
    found, own = predict(MaLPLocalizer(malp), images), malp(images)
    torch.testing.assert_close(found.map, own.map)
    torch.testing.assert_close(found.score, own.score)


def test_both_branches_give_the_mean_of_their_maps():
    malp, images = tiny_malp(branch="vit").eval(), sample_images(3)
    own = malp(images, branch=True)
    torch.testing.assert_close(predict(MaLPLocalizer(malp, "malp_both"), images).map, (own.map + own.branch_map) / 2)


class Unbounded(torch.nn.Module):
    """As the authors' transformer, whose last layer has no activation."""

    def forward(self, images):
        return 5 * images[:, :1]


def test_a_second_branch_without_bounds_is_clamped_before_the_mean():
    malp, images = tiny_malp(), sample_images(2)
    malp.branch = Unbounded()
    torch.testing.assert_close(predict(MaLPLocalizer(malp, "malp_both"), images).map, (malp(images).map + (5 * images[:, :1]).clamp(0, 1)) / 2)


def test_the_detection_module_alone_scores_the_template():
    malp, images = tiny_malp(), sample_images(3)
    found = predict(MaLPLocalizer(malp, "malp_dm"), images)
    assert found.map is None
    torch.testing.assert_close(found.score, 1 - malp(images).similarity)


def test_images_are_protected_with_the_template_of_their_content():
    malp, images = tiny_malp(set_size=3), sample_images(6)
    index = template_of(images, 3)
    assert len(set(index.tolist())) > 1
    torch.testing.assert_close(protect(MaLPLocalizer(malp), images), malp.encrypt(images, index)[0])


def test_a_passive_malp_is_passive():
    localizer, images = MaLPLocalizer(tiny_malp(strength=0.0)), sample_images(2)
    assert family_of(localizer) == "passive" and torch.equal(protect(localizer, images), images)
    with pytest.raises(ValueError, match="passive one"):
        MaLPLocalizer(tiny_malp(strength=0.0), "malp_dm")
    with pytest.raises(ValueError, match="no second branch"):
        MaLPLocalizer(tiny_malp(), "malp_both")


def test_a_saved_malp_and_the_authors_checkpoint_load_by_name(tmp_path):
    malp, images = tiny_malp(), sample_images(2)
    malp.save_pretrained(tmp_path / "malp")
    for spec, name in ((str(tmp_path / "malp"), "malp"), (f"malp_dm={tmp_path / 'malp'}", "malp_dm")):
        localizer = load_localizer(spec)
        assert name_of(localizer) == name and family_of(localizer) == "proactive"
        assert torch.equal(predict(localizer, images).score, predict(MaLPLocalizer(malp, name), images).score)
    official = load_localizer(f"malp={saved(tmp_path, packed())}").malp
    assert official.config.architecture == "official" and torch.equal(official.encryption.templates, signal())
