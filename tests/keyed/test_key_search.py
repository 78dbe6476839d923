"""How little a keyed template hides from an attacker who knows how it is made: what the documentation warns of."""

from __future__ import annotations

import torch

from malp_disc.evaluation.key_search import filter_basis, search_key
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.evidence import evidence
from malp_disc.keyed.template import carrier, content_filter
from malp_disc.metrics.degradations import to_8bit
from tests.keyed.conftest import natural_images

SECRET = bytes(range(32))


def test_the_filters_of_all_keys_nearly_lie_in_nine_dimensions():
    basis, _ = filter_basis()
    filters = content_filter.__wrapped__(b"\xff" * 32).flatten(1)  # of a key that the basis wasn't made of
    kept = (filters @ basis.flatten(1).T).square().sum() / filters.square().sum()
    assert 0.95 < kept <= 1 + 1e-5


def test_a_few_published_images_suffice_to_forge():
    malp = KeyedMaLP(KeyedConfig(image_size=128), secret=SECRET).eval()
    with torch.no_grad():
        published = to_8bit(malp.encrypt(natural_images(100, 128, 128, seed=1))[0])
        found = search_key(published)
        pattern = torch.complex(*carrier(SECRET, 128)[:, :128, :128])
        cosines = [(one.conj() * pattern).sum().abs() / (one.abs().square().sum() * pattern.abs().square().sum()).sqrt() for one in (found.carrier, found.carrier.conj())]
        assert max(cosines) > 0.5
        victims = natural_images(8, 128, 128, seed=2)
        forged = (victims + found.template(victims, malp.config.psnr)).clamp(-1, 1)
        before, after = (evidence(to_8bit(images).mean(1, keepdim=True), SECRET, 128).presence for images in (victims, forged))
        assert (before < 4).all() and after.median() > malp.config.present_above
