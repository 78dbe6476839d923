from __future__ import annotations

import pytest
import torch

from malp_disc.metrics.attribute_leakage import leakage


def test_only_entries_that_nobody_asked_for_count_and_only_if_the_reading_changed():
    """Two images, three attributes. Asked: a in the first, b in the second. Changed: a and b in the first, nothing in the second; c
    never."""
    before = torch.tensor([[1.0, 2.0, -3.0], [1.0, -2.0, -3.0]])
    after = torch.tensor([[-1.0, -2.0, -0.1], [0.1, -2.0, -9.0]])
    asked = torch.tensor([[True, False, False], [False, True, False]])
    found = leakage(before, after, asked, attribute_names=("a", "b", "c"))
    assert found.share == pytest.approx(1 / 4)
    assert found.per_attribute == {"a": 0.0, "b": 1.0, "c": 0.0}


def test_a_classifier_that_is_wrong_both_times_reports_no_leak():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert leakage(logits, logits * 0.5, torch.zeros(20, 4, dtype=torch.bool), attribute_names="abcd").share == 0


def test_where_everything_was_asked_for_nothing_can_leak():
    logits = torch.ones(2, 1)
    found = leakage(logits, -logits, torch.ones(2, 1, dtype=torch.bool), attribute_names=("a",))
    assert (found.share, found.per_attribute) == (None, {"a": None})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"got \(2, 1\), \(2, 1\), \(2, 1\) and 2 names"):
        leakage(torch.ones(2, 1), torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), attribute_names=("a", "b"))
    with pytest.raises(ValueError, match="not finite"):
        leakage(torch.full((2, 1), torch.nan), torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), attribute_names=("a",))
