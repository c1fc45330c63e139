"""Who trains and who tests: by patient, in the paper's proportion, as a file says, the same everywhere."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segexp.data.kidney_splits import in_proportion
from segexp.data.regions import LabelRegions
from segexp.data.splits import split_persons
from segexp.errors import DataError
from tests.data.kidneys import Folder, abdomen

PAPER = {"train": 90, "validation": 0, "test": 50}


@pytest.fixture
def native(tmp_path):
    return Folder(tmp_path)


def dealt(persons, seed=0):
    return split_persons(persons, in_proportion(PAPER, len(set(persons))), seed=seed)


@settings(deadline=None)
@given(st.sets(st.integers(0, 999), min_size=2, max_size=200), st.randoms(use_true_random=False), st.integers(0, 9))
def test_nobody_trains_and_tests(numbers, random, seed):
    persons = [f"case_{number:05d}" for number in sorted(numbers)]
    found = dealt(persons, seed)
    train, test = set(found["train"]), set(found["test"])
    assert train and test and not train & test and not found["validation"]
    if len(persons) >= 140:
        assert (len(train), len(test)) == (90, 50)
    else:
        assert train | test == set(persons) and abs(len(test) - len(persons) * 50 / 140) < 1
    shuffled = random.sample(persons, len(persons))
    assert dealt(shuffled + shuffled[:1], seed) == found


def test_a_seed_gives_the_same_lists_on_every_machine():
    found = dealt([f"case_{number:05d}" for number in range(14)])
    assert found["test"] == [f"case_{number:05d}" for number in (1, 6, 8, 9, 12)]


def test_the_mean_is_not_taken_of_those_who_validate(native):
    for number in range(5):
        image, labels = abdomen({"left": 3}, seed=number)
        native.add(f"p{number}", image + 90 * number, labels)
    module = native.module(split={"train": 4, "validation": 0, "test": 1}, val_fraction=0.5)
    assert [len(module.cases(name)) for name in ("train", "validation", "test")] == [2, 2, 1]
    voxels = np.concatenate([case.image.array().ravel() for case in module.cases("train")]).astype(np.float64)
    assert module.intensity.mean == pytest.approx(((voxels.clip(-200, 500) + 200) / 700).mean(), abs=1e-6)


def test_patients_are_dealt_nine_to_five_or_as_many_as_asked(native):
    native.fill(14)
    module = native.module()
    sizes = {name: len(module.cases(name)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 9, "validation": 0, "test": 5}
    again = native.module(cache=str(native.base / "another"))
    assert again.split_table() == module.split_table()
    assert native.module(split_seed=1).split_table() != module.split_table()
    ids = [case.id for case in module.cases("train")]
    assert ids != sorted(ids) or [case.id for case in module.cases("test")] != sorted(ids)
    asked = native.module(split={"train": 4, "validation": 1, "test": 2})
    assert [len(asked.cases(name)) for name in ("train", "validation", "test")] == [4, 1, 2]
    part = native.module(val_fraction=0.3, train_size=5)
    assert [len(part.cases(name)) for name in ("train", "validation", "test")] == [5, 3, 5]
    assert {case.id for case in part.cases("test")} == {case.id for case in module.cases("test")}
    assert {case.id for name in ("train", "validation") for case in native.module(val_fraction=0.3).cases(name)} == {
        case.id for case in module.cases("train")}


def test_a_file_of_splits_is_honoured(native):
    native.fill(5)
    path = native.root / "splits.json"
    path.write_text(json.dumps({"train": ["p03", "p01"], "test": ["p00"]}))
    module = native.module()
    assert {name: [case.id for case in module.cases(name)] for name in ("train", "validation", "test")} == {
        "train": ["p01", "p03"], "validation": [], "test": ["p00"]}
    assert len(native.module(splits_file=None).cases("train")) == 3
    for content, words in (({"train": ["p9"]}, "names p9"), ({"train": ["p01"], "test": ["p01"]}, "patient p01"),
                           ({"dev": []}, "expected lists of cases named train")):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=words):
            native.module().setup()


def test_two_kidneys_of_a_patient_stay_together(native):
    for number in range(6):
        native.add(f"p{number}", *abdomen({"left": 3, "right": 2}, seed=number))
    module = native.module(roi=LabelRegions(size=24, every_kidney=True))
    table = module.split_table()
    assert len(table) == 12
    for person in {person for _, person, _ in table}:
        rows = [(case, split) for case, one, split in table if one == person]
        assert [case for case, _ in rows] == [f"{person}_left", f"{person}_right"]
        assert len({split for _, split in rows}) == 1
