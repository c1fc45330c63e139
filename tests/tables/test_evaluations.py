"""Tables of runs that are also scored on other data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.files import write_json
from segexp.metrics.scores import write_scores
from segexp.tables.claims import judged, names_of, published_says
from segexp.tables.declaration import read_declaration
from segexp.tables.measure import Scores, measure
from segexp.tables.plan import plan
from tests.tables.conftest import overrides, row

TABLE = """
title: Here and there
source: Nobody et al. 2026, Table 1
runs:
  tissue: {overrides: [experiment=neuronet/nn_tissue], evaluate: {there: ['data.root=${paths.outputs}/there']}}
cell: {run: tissue, metric: dice, target: fsl_fast, statistic: mean, digits: 2, spread: true}
rows:
  here: {}
  there: {evaluation: there}
columns:
  all: {}
  second: {structure: b}
published:
  here: {all: {mean: 0.9, sd: 0.05}}
claims:
  above:
    text: The structure b is above 0.2 there.
    kind: bound
    runs: [tissue]
    evaluation: there
    metric: dice
    target: [fsl_fast]
    structure: b
    above: 0.2
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    (folder / "table").mkdir(parents=True)
    (folder / "table" / "elsewhere.yaml").write_text(TABLE)
    return folder


def two_structures(values: tuple[float, ...]) -> list[dict]:
    return [row(f"c{k}", "fsl_fast", value + shift, structure=name)
            for k, value in enumerate(values) for name, shift in (("a", 0.1), ("b", -0.1))]


def planned(conf: Path, tmp_path: Path, *more: str):
    declaration = read_declaration("elsewhere", [str(conf)])
    return declaration, plan(declaration, overrides(tmp_path, *more), config_dirs=[str(conf)])


def test_cells_read_the_evaluation_one_structure_and_show_the_spread(
    finished: Callable, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    finished("nn_tissue", two_structures((0.6, 0.8)), resources={"checkpoint_sha256": "abc"})
    declaration, items = planned(conf, tmp_path)
    assert measure(declaration, Scores(items))["there", "all"].reason == "not evaluated on there"
    evaluation = items[0].evaluations["there"]
    assert evaluation.changes == (f"data.root={tmp_path}/there",)
    write_scores(two_structures((0.3, 0.5)), evaluation.scores_file)
    write_json(evaluation.folder / "evaluation.json", {"checkpoint_sha256": "of other weights"})
    assert measure(declaration, Scores(items))["there", "all"].value is None
    write_json(evaluation.folder / "evaluation.json", {"checkpoint_sha256": "abc"})
    cells = measure(declaration, Scores(items))
    assert cells["here", "all"].value == pytest.approx(0.7) and cells["here", "all"].sd == pytest.approx(0.1)
    assert cells["here", "second"].value == pytest.approx(0.6)
    assert cells["there", "second"].value == pytest.approx(0.3)
    assert main(["table", "show", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "0.90 (0.05)" in text and "0.70 (0.10)" in text
    assert main(["table", "check", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]) == 0
    assert "fails     above" in capsys.readouterr().out  # the lowest case of b has 0.2


def test_an_evaluations_own_overrides_go_to_it_alone(conf: Path, tmp_path: Path) -> None:
    _, items = planned(conf, tmp_path, "evaluate.there.data.root=/elsewhere", "steps=3")
    assert items[0].evaluations["there"].changes[-1] == "data.root=/elsewhere"
    assert items[0].config.steps == 3 and items[0].config.data.root != "/elsewhere"


def test_nothing_is_trained_before_the_data_of_every_evaluation_are_there(conf: Path, tmp_path: Path, capsys) -> None:
    words = ["elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]
    assert main(["table", "run", *words]) == 3
    assert "also evaluated on there, but there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["table", "plan", *words]) == 0
    assert "evaluated on there" in capsys.readouterr().out


def test_differences_are_taken_to_comparable_rows_of_real_data_alone(
    finished: Callable, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    finished("nn_tissue", two_structures((0.6, 0.8)), phantom=False, resources={"checkpoint_sha256": "abc"})
    words = ["elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]
    file = conf / "table" / "elsewhere.yaml"

    def shown() -> str:
        assert main(["table", "show", *words]) == 0
        return capsys.readouterr().out

    assert "-0.20" in shown()
    file.write_text(TABLE.replace("here: {}", "here: {comparable: false}"))
    assert "-0.20" not in shown()
    file.write_text(TABLE)
    _, items = planned(conf, tmp_path)
    folder = items[0].evaluations["there"].folder
    write_scores(two_structures((0.3, 0.5)), folder / "scores.csv")
    write_json(folder / "evaluation.json", {"checkpoint_sha256": "abc", "phantom": True})
    text = shown()
    assert "synthetic phantoms" in text and "-0.20" not in text


@pytest.mark.parametrize(("change", "message"), [
    ("evaluate.ther.data.root=/x", "no evaluation 'ther'"),
])
def test_an_unknown_evaluation_is_answered_with_the_nearest(conf, tmp_path, capsys, change, message) -> None:
    assert main(["table", "plan", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path, change)]) == 2
    found = capsys.readouterr()
    assert message in found.out + found.err and "there" in found.out + found.err


def test_a_cell_of_an_unknown_evaluation_is_refused(conf: Path, tmp_path: Path, capsys) -> None:
    file = conf / "table" / "elsewhere.yaml"
    file.write_text(TABLE.replace("there: {evaluation: there}", "there: {evaluation: thera}"))
    assert main(["table", "plan", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]) == 2
    found = capsys.readouterr()
    assert "no evaluation 'thera'" in found.out + found.err


@pytest.mark.parametrize(("low", "high", "pair", "expected"), [
    (0.1, 0.2, {"expect": "higher"}, "holds"), (-0.2, -0.1, {"expect": "higher"}, "fails"),
    (-0.1, 0.2, {"expect": "lower"}, "undecided"), (-0.2, -0.1, {"expect": "lower"}, "holds"),
    (-0.02, 0.04, {"expect": "similar", "within": 0.05}, "holds"),
    (-0.02, 0.06, {"expect": "similar", "within": 0.05}, "undecided"),
    (0.06, 0.2, {"expect": "similar", "within": 0.05}, "fails"),
    (-0.3, -0.07, {"expect": "similar", "within": 0.05}, "fails"),
])
def test_intervals_are_judged_by_what_is_expected(low, high, pair, expected) -> None:
    assert judged(low, high, pair) == expected


def test_pairs_of_one_target_are_told_apart_and_carry_their_own_published_values() -> None:
    pairs = [{"left": "a", "right": right, "target": "wmh", "metric": "avd", "expect": "lower", "published": values}
             for right, values in (("b", [1, 2]), ("c", [3, 2]))]
    assert names_of({"pairs": pairs}) == ["wmh avd, a - b:", "wmh avd, a - c:"]
    assert published_says({"pairs": pairs}) == ("wmh avd, a - b: 1 against 2 (holds); "
                                                "wmh avd, a - c: 3 against 2 (fails)")


def test_a_row_without_a_run_shows_what_is_published_and_why(conf: Path, tmp_path: Path, capsys) -> None:
    text = TABLE.replace("columns:\n", "  best: {run: null, reason: not ours}\ncolumns:\n")
    text = text.replace("published:\n", "published:\n  best: {all: 0.99}\n")
    (conf / "table" / "elsewhere.yaml").write_text(text)
    assert main(["table", "show", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0.99" in shown and "not ours" in shown


def test_what_readers_have_to_know_stands_below_the_table(
    finished: Callable, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [*two_structures((0.6, 0.8)), {**row("c2", "fsl_fast", float("nan"), structure="a"), "defined": False}]
    finished("nn_tissue", rows, resources={"checkpoint_sha256": "abc"}, cautions=["the training collapsed"])
    _, (item,) = planned(conf, tmp_path)
    write_scores(two_structures((0.3, 0.5)), item.evaluations["there"].scores_file)
    write_json(item.evaluations["there"].folder / "evaluation.json", {"checkpoint_sha256": "abc"})
    assert main(["table", "show", "elsewhere", "--config-dir", str(conf), *overrides(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Cases with a defined value: all 2; all of here: 2 of 3. [low, high]" in text
    assert "- tissue (seed 1): the training collapsed.\n" in text
