"""The contract of a localizer: ten lines of a user's are enough, what they return is checked, and their images stay as they are."""

from __future__ import annotations

import ast
import textwrap
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from malp_disc.benchmark import localizer as contract
from malp_disc.benchmark.localizer import Localization, family_of, import_localizer, name_of, predict, protect, ready, thresholds_of
from tests.tiny import sample_images


def documented_example() -> str:
    """The code in the module's docstring."""
    lines = ast.get_docstring(ast.parse(open(contract.__file__, encoding="utf-8").read())).splitlines()
    start, end = (next(i for i, line in enumerate(lines) if line.startswith(words)) for words in ("    class", "A proactive method"))
    return textwrap.dedent("\n".join(lines[start:end]))


def test_the_documented_example_has_ten_lines_and_joins_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = documented_example()
    (tmp_path / "my_brightness.py").write_text(code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    found = import_localizer("my_brightness:make")
    images = sample_images(3)
    map_, score = predict(found, images)
    assert (name_of(found), family_of(found)) == ("brightness", "passive")
    torch.testing.assert_close(map_, (images.mean(1, keepdim=True) + 1) / 2)
    torch.testing.assert_close(score, map_.mean((1, 2, 3)))
    assert torch.equal(protect(found, images), images)


def returning(value: object) -> object:
    class Fixed:
        def localize(self, images):
            return value

    return Fixed()


ONE = torch.ones(2)
MAP = torch.rand(2, 1, 32, 32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (MAP, "returned Tensor; expected a pair"),
        ((MAP, ONE, ONE), "returned tuple; expected a pair"),
        ((MAP[..., :16], ONE), r"expected a floating-point tensor \(2, 1, 32, 32\)"),
        ((MAP.long(), ONE), "torch.int64"),
        ((MAP * 255, ONE), r"expected them in \[0, 1\]"),
        ((MAP - 0.5, ONE), r"expected them in \[0, 1\]"),
        ((MAP * torch.nan, ONE), "values from nan"),
        ((MAP, ONE[:1]), r"expected a tensor \(2,\)"),
        ((MAP, 0.5), "score of Fixed is float"),
        ((None, ONE * torch.nan), "isn't finite for 2 of 2"),
    ],
)
def test_results_other_than_the_contract_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        predict(returning(value), sample_images(2))


def test_a_detector_has_no_map_and_results_are_float32():
    assert predict(returning((None, ONE)), sample_images(2)).map is None
    found = predict(returning((MAP.half(), ONE.double())), sample_images(2))
    assert isinstance(found, Localization) and found.map.dtype == found.score.dtype == torch.float32


class InPlace:
    """Writes into what it gets."""

    def protect(self, images):
        return images.mul_(0.5)

    def localize(self, images):
        images.zero_()
        return None, images.mean((1, 2, 3))


def test_the_callers_images_survive_a_localizer_that_writes_into_them():
    images = sample_images(2)
    before = images.clone()
    assert torch.equal(protect(InPlace(), images), before * 0.5)
    predict(InPlace(), images)
    assert torch.equal(images, before) and family_of(InPlace()) == "proactive"


def test_protected_images_of_another_shape_or_range_are_refused():
    class Enlarging(InPlace):
        def protect(self, images):
            return nn.functional.interpolate(images, scale_factor=2)

    class OtherRange(InPlace):
        def protect(self, images):
            return (images + 1) * 127.5

    for method, message in ((Enlarging(), "of one shape"), (OtherRange(), r"in \[-1, 1\]")):
        with pytest.raises(ValueError, match=f"protect of .*{message}"):
            protect(method, sample_images(2))


def test_an_object_without_localize_or_with_an_unknown_family_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_objects.py").write_text(
        "class A:\n    pass\n\nclass B:\n    family = 'magic'\n    def localize(self, images): ...\n\ndef a(): return A()\n\ndef b(): return B()\n"
    )
    with pytest.raises(ValueError, match="my_objects:a is no localizer: A has no method localize"):
        import_localizer("my_objects:a")
    with pytest.raises(ValueError, match="passive or proactive, got 'magic'"):
        import_localizer("my_objects:b")


def test_modules_go_to_evaluation_mode_and_other_objects_stay():
    class Net(nn.Dropout):
        def localize(self, images):
            return None, self(images).mean((1, 2, 3))

    plain = InPlace()
    assert not ready(Net()).training and ready(plain) is plain


def test_thresholds_are_the_localizers_own_also_one_of_0():
    assert thresholds_of(SimpleNamespace(threshold=0.1, score_threshold=0.0)) == (0.1, 0.0)
    assert thresholds_of(SimpleNamespace()) == (0.5, 0.5)
