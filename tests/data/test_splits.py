from __future__ import annotations

import logging

import pytest

from malp_disc.data.splits import split_indices

NAMES = [f"{i:06d}.jpg" for i in range(1000)]


def chosen(names, split, **options) -> set[str]:
    return {names[index] for index in split_indices(names, split, **options)}


def test_train_and_test_part_the_images_and_the_test_size_is_exact():
    train, test = chosen(NAMES, "train", test_size=137), chosen(NAMES, "test", test_size=137)
    assert len(test) == 137
    assert train | test == set(NAMES)
    assert not train & test


def test_the_split_does_not_depend_on_the_order_of_the_names():
    assert chosen(NAMES, "test", test_size=100) == chosen(NAMES[::-1], "test", test_size=100)


def test_the_held_out_are_spread_over_the_sorted_names():
    """Not the last hundred: of sorted names each tenth holds 10 on average, binomial standard deviation 3."""
    counts = [0] * 10
    for index in split_indices(NAMES, "test", test_size=100):
        counts[index // 100] += 1
    assert all(1 <= count <= 22 for count in counts)


def test_k_more_images_move_at_most_k_images():
    more = NAMES + [f"new{i}.jpg" for i in range(20)]
    before, after = chosen(NAMES, "test", test_size=100), chosen(more, "test", test_size=100)
    assert len(before - after) <= 20
    assert len(after) == 100


def test_a_smaller_training_size_takes_a_subset_of_a_larger_one():
    small = chosen(NAMES, "train", test_size=10, train_size=50)
    large = chosen(NAMES, "train", test_size=10, train_size=200)
    assert len(small) == 50
    assert len(large) == 200
    assert small < large
    assert max(small) > NAMES[800]  # spread over the names, not cut off: of domains in order, none gets lost
    assert min(small) < NAMES[200]


def test_a_training_size_beyond_the_images_takes_all_and_leaves_the_test_set_alone():
    assert len(chosen(NAMES, "train", test_size=10, train_size=10**6)) == 990
    assert len(chosen(NAMES, "test", test_size=10, train_size=1)) == 10


def test_a_given_split_overrules_the_test_size():
    given = ["train"] * 600 + ["valid"] * 100 + ["test"] * 300
    assert sorted(split_indices(NAMES, "train", given=given, test_size=5)) == list(range(600))
    assert sorted(split_indices(NAMES, "valid", given=given, test_size=5, train_size=10)) == list(range(600, 700))
    assert sorted(split_indices(NAMES, "test", given=given, test_size=5)) == list(range(700, 1000))


def test_valid_images_stand_in_for_missing_test_images():
    given = ["train"] * 600 + ["valid"] * 400
    assert sorted(split_indices(NAMES, "test", given=given)) == list(range(600, 1000))
    assert sorted(split_indices(NAMES, "train", given=given)) == list(range(600))


def test_the_first_images_of_a_split_are_a_sample_of_all():
    """Names often have a meaningful order, and an evaluation reads the first images."""
    for split, size in (("train", 500), ("test", 500)):
        first = split_indices(NAMES, split, test_size=size)[:100]
        assert 30 < sum(index < 500 for index in first) < 70


def test_a_given_split_of_training_images_only_is_split_by_name():
    assert chosen(NAMES, "test", given=["train"] * 1000, test_size=100) == chosen(NAMES, "test", test_size=100)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("train", {"test_size": 1000}, "--test-size 1000 leaves nothing to train on: there are 1000 images"),
        ("test", {"test_size": 0}, "--test-size is 0"),
        ("test", {"test_size": -1}, "at least 0, got -1"),
        ("train", {"train_size": 0, "test_size": 1}, "at least 1, got 0"),
        ("valid", {"test_size": 10}, "no valid images"),
        ("train", {"given": ["test"] * 1000}, "no train images.*1000 test"),
        ("both", {}, "'both'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(split, options, message):
    with pytest.raises(ValueError, match=message):
        split_indices(NAMES, split, **options)


def test_holding_back_more_than_half_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        split_indices(NAMES, "train", test_size=500)
        assert not caplog.records
        split_indices(NAMES, "train", test_size=501)
    assert "501 of only 1000" in caplog.text


def test_several_splits_in_several_processes_warn_once(caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        for rank in ("1", "0", "0"):
            monkeypatch.setenv("RANK", rank)
            split_indices(NAMES, "train", test_size=777)
    assert caplog.text.count("777 of only 1000") == 1
