"""The scores file and the statistics made of it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segexp.errors import DataError
from segexp.metrics.scores import (
    COLUMNS,
    bootstrap_interval,
    case_means,
    paired_difference,
    read_scores,
    summary,
    write_scores,
)

text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


def row(case: str = "1", value: float = 0.5, **changes: object) -> dict:
    defined = not math.isnan(value)
    return {"case": case, "group": "", "target": "fast", "structure": "csf", "metric": "dice", "value": value,
            "unit": "1", "defined": defined, "reason": "" if defined else "absent in both", **changes}


@given(st.lists(st.tuples(text, st.one_of(finite, st.just(math.nan)), text), max_size=5))
def test_reading_gives_back_the_same_rows(tmp_path_factory: pytest.TempPathFactory, content: list) -> None:
    file = tmp_path_factory.mktemp("scores") / "scores.csv"
    rows = [row(case, value, group=group) for case, value, group in content]
    write_scores(rows, file)
    read = read_scores(file)
    expected = pd.DataFrame(rows, columns=list(COLUMNS))
    assert read["value"].tolist() == pytest.approx(expected["value"].tolist(), abs=0, rel=0, nan_ok=True)
    for column in ("case", "group", "reason", "defined"):
        assert read[column].tolist() == expected[column].tolist()
    before = file.read_bytes()
    write_scores(read, file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("case", ["0012", "NA", "null", "1e5", 'a,"b"', "ü"])
def test_ids_stay_text(case: str, tmp_path: Path) -> None:
    write_scores([row(case)], tmp_path / "scores.csv")
    assert read_scores(tmp_path / "scores.csv")["case"].tolist() == [case]


def test_undefined_is_an_empty_field(tmp_path: Path) -> None:
    write_scores([row(value=math.nan)], tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "1,,fast,csf,dice,,1,False,absent in both"


def test_a_bad_row_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    write_scores([row()], file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="keys"):
        write_scores([row(), {"case": "2"}], file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("content", "message"), [
    ("", r"has the columns \[\]"),
    ("case,value\n1,2\n", "has the columns"),
    (",".join(COLUMNS) + "\n1,,fast,csf,dice,abc,1,True,\n", "line 2: value is 'abc'"),
    (",".join(COLUMNS) + "\n1,,fast,csf,dice,1,1,True,\n1,,fast,csf,dice,1,1,yes,\n", "line 3: defined is 'yes'"),
    (",".join(COLUMNS) + "\n1,,fast,csf,dice,1,1,True,,,,\n", "line 2: 12 fields, expected 9"),
    (",".join(COLUMNS) + "\n1,,fast,cs", "line 2: 4 fields"),
    (",".join(COLUMNS) + '\n1,"fast', "not a readable scores file"),
])
def test_broken_files_are_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_scores(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_scores(tmp_path / "scores.csv")


def test_case_means_skip_what_is_undefined(tmp_path: Path) -> None:
    rows = [row("b", 0.2), row("b", 0.6, structure="gm"), row("b", math.nan, structure="wm"),
            row("a", 1.0), row("a", 9.0, metric="hd95"), row("c", math.nan)]
    means = case_means(pd.DataFrame(rows), "dice")
    assert means.columns.tolist() == ["case", "group", "target", "value", "defined_structures"]
    assert means["case"].tolist() == ["b", "a", "c"]
    assert means["value"].tolist() == pytest.approx([0.4, 1.0, math.nan], nan_ok=True)
    assert means["defined_structures"].tolist() == [2, 1, 0]
    assert case_means(pd.DataFrame(rows), "assd").empty


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 3))
def test_summary_is_the_papers(values: list[float], undefined: int) -> None:
    found = summary([*values, *[math.nan] * undefined])
    assert found["mean"] == pytest.approx(np.mean(values)) and found["sd"] == pytest.approx(np.std(values, ddof=0))
    assert (found["min"], found["max"]) == (min(values), max(values))
    assert (found["n"], found["of"]) == (len(values), len(values) + undefined)


def test_summary_of_nothing() -> None:
    found = summary([math.nan])
    assert math.isnan(found["mean"]) and (found["n"], found["of"]) == (0, 1)


def test_bootstrap_interval_is_seeded_and_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.1, 400)
    low, high = bootstrap_interval(values, seed=1)
    assert (low, high) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    inner = bootstrap_interval(values, seed=1, level=0.5)
    assert low < inner[0] < inner[1] < high
    assert all(map(math.isnan, bootstrap_interval([0.5])))
    assert bootstrap_interval([0.5, math.nan, 0.5]) == (0.5, 0.5)


def test_paired_difference_joins_on_case() -> None:
    generator = np.random.default_rng(0)
    a = pd.DataFrame({"case": [str(i) for i in range(30)], "value": generator.normal(0.9, 0.05, 30)})
    b = a.assign(value=a["value"] - generator.normal(0.02, 0.01, 30)).sample(frac=1, random_state=0)
    found = paired_difference(a, b)
    difference = (a.set_index("case")["value"] - b.set_index("case")["value"]).to_numpy()
    assert found["mean"] == pytest.approx(difference.mean())
    assert found["low"] < found["mean"] < found["high"]
    assert found["p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert (found["n"], found["unpaired"]) == (30, 0)


def test_seeds_of_a_case_are_no_cases_of_their_own() -> None:
    generator = np.random.default_rng(0)
    a = pd.DataFrame({"case": [str(i) for i in range(12)], "value": generator.normal(0.9, 0.05, 12), "seed": 1})
    b = a.assign(value=a["value"] - generator.normal(0.01, 0.02, 12))
    once = paired_difference(a, b)
    thrice = paired_difference(*(pd.concat([side.assign(seed=seed) for seed in (1, 2, 3)]) for side in (a, b)),
                               on=("case", "seed"))
    assert thrice == {**once, "unpaired": 0} and once["n"] == 12


def test_paired_difference_counts_what_it_leaves_out() -> None:
    a = pd.DataFrame({"case": ["1", "2", "3"], "value": [0.5, 0.7, math.nan]})
    b = pd.DataFrame({"case": ["2", "3", "4"], "value": [0.6, 0.1, 0.1]})
    found = paired_difference(a, b)
    assert found["mean"] == pytest.approx(0.1) and (found["n"], found["unpaired"]) == (1, 3)
    assert math.isnan(found["p"]) and math.isnan(found["low"])


def test_paired_difference_of_equals() -> None:
    a = pd.DataFrame({"case": ["1", "2"], "value": [0.5, 0.7]})
    assert paired_difference(a, a) == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 2, "unpaired": 0}
    with pytest.raises(ValueError, match="occurs twice"):
        paired_difference(pd.concat([a, a]), a)
