"""Why every image has a template of its own: from a few with the same one, an attacker who knows how it is made finds the key's filter."""

from __future__ import annotations

import torch

from malp_disc.evaluation.key_search import FoundKey, filter_basis, responses, search_key, turn
from malp_disc.keyed import KeyedConfig, KeyedMaLP
from malp_disc.keyed.template import content_filter, filter_turn, level_weights
from malp_disc.metrics.degradations import to_8bit
from tests.keyed.conftest import natural_images

SECRET = bytes(range(32))


def test_the_filters_of_all_keys_nearly_lie_in_nine_dimensions():
    basis, _ = filter_basis()
    filters = content_filter.__wrapped__(b"\xff" * 32).flatten(1)  # of a key that the basis wasn't made of
    kept = (filters @ basis.flatten(1).T).square().sum() / filters.square().sum()
    assert 0.95 < kept <= 1 + 1e-5


def known(malp: KeyedMaLP, found: FoundKey) -> float:
    """How well the filter that was found tells φ of other images: 1 if it is the key's or its mirror image, about 0.1 by chance."""
    grey = natural_images(8, 128, 128, seed=2).mean(1, keepdim=True)
    true, guess = filter_turn(grey, malp.secret)[:, 0], turn(responses(grey), found.weights)
    return max((guess * other).mean((1, 2)).abs().mean().item() for other in (true, true.conj()))


@torch.no_grad()
def test_a_few_images_with_the_same_template_suffice_to_forge_and_with_their_own_they_dont():
    malp, victims = KeyedMaLP(KeyedConfig(image_size=128), secret=SECRET).eval(), natural_images(8, 128, 128, seed=2)
    originals = natural_images(100, 128, 128, seed=1)
    presence = {}
    for name, index in (("same", torch.full((100,), 7)), ("own", torch.arange(100))):
        found = search_key(to_8bit(malp.encrypt(originals, index)[0]), level_weights(malp.secret))
        forged = to_8bit((victims + found.template(victims, malp.config.psnr)).clamp(-1, 1))
        presence[name] = max((malp(forged, number).presence.median() for number in index.unique().tolist()), key=float), known(malp, found)
    assert (malp(victims, 7).presence < 4).all()
    assert presence["same"][0] > 4 and presence["same"][1] > 0.5
    assert presence["own"][0] < 2.5 and presence["own"][1] < 0.3
