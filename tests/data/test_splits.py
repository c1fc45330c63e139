import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segexp.data.splits import SPLITS, split_persons
from segexp.errors import ConfigError, DataError

PAPER = {"train": 5000, "validation": 10, "test": None}


def sizes(train, validation, test):
    return {"train": train, "validation": validation, "test": test}


def test_the_published_split_is_the_first_5000_the_next_10_and_the_last_713():
    persons = [str(1_000_000 + 7 * i) for i in range(5723)]
    dealt = split_persons(persons[::-1], PAPER)
    assert [len(dealt[name]) for name in SPLITS] == [5000, 10, 713]
    assert dealt["train"] + dealt["validation"] + dealt["test"] == persons


def test_ids_are_sorted_as_numbers():
    dealt = split_persons(["10", "9", "100", "2"], sizes(2, 1, 1))
    assert dealt == {"train": ["2", "9"], "validation": ["10"], "test": ["100"]}


@given(
    st.lists(st.integers(1, 9_999_999).map(str), min_size=3, max_size=60),
    st.one_of(
        st.tuples(st.floats(0.2, 0.6), st.floats(0.1, 0.2), st.none()),
        st.tuples(st.integers(1, 20), st.integers(0, 10), st.none()),
        st.tuples(st.none(), st.integers(0, 5), st.floats(0.05, 0.3)),
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
    ),
)
def test_splits_are_disjoint_sorted_and_do_not_depend_on_the_order_or_on_repeats(persons, asked):
    try:
        dealt = split_persons(persons, sizes(*asked))
    except DataError:
        return
    flat = dealt["train"] + dealt["validation"] + dealt["test"]
    assert len(set(flat)) == len(flat) and flat == sorted(set(persons), key=int)[: len(flat)]
    assert dealt == split_persons(persons[::-1] + persons[:2], sizes(*asked))
    if None in asked:
        assert set(flat) == set(persons)
    for name, size in sizes(*asked).items():
        if isinstance(size, int):
            assert len(dealt[name]) == size
        elif isinstance(size, float):
            assert abs(len(dealt[name]) - size * len(set(persons))) <= 0.5


@given(st.integers(6, 300))
def test_fractions_that_sum_to_one_use_everybody(count):
    dealt = split_persons([str(i) for i in range(count)], sizes(0.6, 0.2, 0.2))
    assert sum(map(len, dealt.values())) == count


@given(st.integers(2, 40), st.data())
def test_learning_curves_are_nested(count, data):
    persons = [str(i) for i in range(count + 2)]
    full = split_persons(persons, sizes(None, 1, 1))
    size = data.draw(st.integers(1, count))
    part = split_persons(persons, sizes(None, 1, 1), train_size=size)
    assert part["train"] == full["train"][:size]
    assert (part["validation"], part["test"]) == (full["validation"], full["test"])


def test_too_few_persons_come_with_sizes_that_fit():
    persons = [str(i) for i in range(20)]
    with pytest.raises(DataError, match=r"20 persons .* too few for the split train=5000") as caught:
        split_persons(persons, PAPER)
    words = str(caught.value).split("for example ")[1].split()
    proposed = {word.removeprefix("data.split.").partition("=")[0]: word.partition("=")[2] for word in words}
    dealt = split_persons(persons, {k: None if v == "null" else int(v) for k, v in proposed.items()})
    assert all(dealt.values())
    with pytest.raises(DataError, match="at least 3"):
        split_persons(["1", "2"], PAPER)
    with pytest.raises(DataError, match="train_size=9, but the training split has 2"):
        split_persons(["1", "2", "3", "4"], sizes(2, 1, 1), train_size=9)


@pytest.mark.parametrize("asked", [
    sizes(None, None, 1), sizes(0, 0, 0), sizes(-1, 1, 1), sizes(0.9, 0.2, 0.1), sizes(1.5, 1, 1), sizes(True, 1, 1),
    sizes("5", 1, 1), {"train": 1}, {**sizes(1, 1, 1), "other": 3},
])
def test_senseless_sizes_are_refused(asked):
    with pytest.raises(ConfigError, match=r"data\.split"):
        split_persons([str(i) for i in range(10)], asked)


CENTRES = {str(i): centre for i, centre in enumerate(["Utrecht"] * 20 + ["Singapore"] * 20 + ["GE3T"] * 20)}


def test_strata_give_every_split_the_same_number_of_persons_each():
    dealt = split_persons(list(CENTRES), sizes(48, 6, 6), strata=CENTRES, seed=3)
    for name, count in zip(SPLITS, (16, 2, 2), strict=True):
        found = [CENTRES[person] for person in dealt[name]]
        assert {centre: found.count(centre) for centre in CENTRES.values()} == dict.fromkeys(CENTRES.values(), count)
    assert sorted((person for part in dealt.values() for person in part), key=int) == list(CENTRES)
    # The first training persons take turns over the centres, so that a learning curve mixes them from the start.
    assert len({CENTRES[person] for person in dealt["train"][:3]}) == 3


@given(st.permutations(list(CENTRES)), st.integers(0, 5))
def test_a_seeded_split_depends_on_ids_and_seed_alone(order, seed):
    dealt = split_persons(order, sizes(48, 6, 6), strata=CENTRES, seed=seed)
    assert dealt == split_persons(sorted(order), sizes(48, 6, 6), strata=CENTRES, seed=seed)
    assert dealt != split_persons(order, sizes(48, 6, 6), strata=CENTRES, seed=seed + 1)


def test_a_centre_with_too_few_persons_is_named():
    small = {**CENTRES, **{str(100 + i): "Nowhere" for i in range(2)}}
    with pytest.raises(DataError, match=r"Nowhere: 2 persons .* too few"):
        split_persons(list(small), sizes(48, 6, 6), strata=small)


def test_the_sizes_that_are_proposed_fit_every_centre():
    usable = [person for person in CENTRES if person != "7"]
    with pytest.raises(DataError, match=r"Utrecht: 19 persons") as caught:
        split_persons(usable, sizes(48, 6, 6), strata=CENTRES)
    train, validation = (int(re.search(rf"data.split.{name}=(\d+)", str(caught.value))[1])
                         for name in ("train", "validation"))
    dealt = split_persons(usable, sizes(train, validation, None), strata=CENTRES)
    assert len(dealt["train"]) == train > 30 and sum(map(len, dealt.values())) == 59


def test_data_can_be_for_evaluation_only():
    assert split_persons(["3", "1", "2"], sizes(0, 0, None)) == {"train": [], "validation": [], "test": ["1", "2", "3"]}
