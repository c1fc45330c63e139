"""From score rows to pages, drift and claims."""

import csv
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segexp.cli import main
from segexp.tables.claims import check_claim
from segexp.tables.declaration import read_declaration
from segexp.tables.measure import Scores, measure
from segexp.tables.plan import plan
from tests.tables.conftest import overrides, row

TISSUES = ("fsl_fast", "spm_tissue", "malp_em_tissue")
VALUES = (0.5, 0.7, 0.9)


def tissue_rows(shift: float = 0.0) -> list[dict]:
    """Return three cases per tissue target; each case has two structures around its value."""
    return [row(f"c{k}", target, value + shift + side, structure=f"s{side}")
            for target in TISSUES for k, value in enumerate(VALUES) for side in (-0.05, 0.05)]


def show(outputs: Path, *words: str) -> int:
    return main(["table", *words, *overrides(outputs)])


def cells(outputs: Path, name: str) -> dict[tuple[str, str], dict[str, str]]:
    with (outputs / "tables" / f"{name}-smoke" / "table.csv").open(newline="") as file:
        return {(line["row"], line["column"]): line for line in csv.DictReader(file)}


def test_statistics_are_over_cases_with_the_population_sd(finished: Callable, tmp_path: Path) -> None:
    finished("nn_tissue", tissue_rows())
    assert show(tmp_path, "show", "neuronet_2") == 0
    found = cells(tmp_path, "neuronet_2")
    expected = {"mean": np.mean(VALUES), "sd": np.std(VALUES), "min": min(VALUES), "max": max(VALUES)}
    for statistic, value in expected.items():
        assert float(found[statistic, "fsl_fast"]["measured"]) == pytest.approx(100 * value)
    assert (found["mean", "fsl_fast"]["defined"], found["mean", "fsl_fast"]["cases"]) == ("3", "3")
    low, high = (float(found["mean", "fsl_fast"][end]) for end in ("low", "high"))
    assert 50 <= low < 70 < high <= 90


def test_several_seeds_are_averaged(finished: Callable, tmp_path: Path) -> None:
    finished("nn_tissue", tissue_rows(), seed=1)
    finished("nn_tissue", tissue_rows(0.1), seed=2)
    assert show(tmp_path, "show", "neuronet_2", "seeds=[1,2]") == 0
    assert float(cells(tmp_path, "neuronet_2")["mean", "fsl_fast"]["measured"]) == pytest.approx(75)


def test_undefined_cases_are_counted_not_averaged(finished: Callable, tmp_path: Path) -> None:
    undefined = {**row("c9", "fsl_fast", float("nan")), "defined": False, "reason": "absent in both"}
    finished("nn_tissue", [*tissue_rows(), undefined])
    assert show(tmp_path, "show", "neuronet_2") == 0
    found = cells(tmp_path, "neuronet_2")["mean", "fsl_fast"]
    assert (found["defined"], found["cases"]) == ("3", "4")
    assert float(found["measured"]) == pytest.approx(70)


def test_a_missing_run_is_said_in_every_cell(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert show(tmp_path, "show", "neuronet_2") == 0
    assert {cell["reason"] for cell in cells(tmp_path, "neuronet_2").values()} == {"missing"}
    assert "nn_tissue (seed 1) is missing" in capsys.readouterr().out


def test_phantoms_are_named_and_not_compared_real_data_are(finished: Callable, tmp_path: Path) -> None:
    for phantom in (True, False):
        finished("nn_tissue", tissue_rows(), phantom=phantom)
        assert show(tmp_path, "show", "neuronet_2") == 0
        for file in (tmp_path / "tables" / "neuronet_2-smoke").glob("table.[mht]*"):
            text = file.read_text()
            assert ("synthetic phantoms" in text) is phantom, file
            assert bool(re.search(r"-22\.8", text)) is not phantom, file  # 70.0 measured, 92.8 published


def test_pages_are_well_formed_and_repeat_to_the_byte(finished: Callable, tmp_path: Path) -> None:
    finished("nn_tissue", tissue_rows())
    folder = tmp_path / "tables" / "neuronet_2-smoke"
    contents = []
    for _ in range(2):
        assert show(tmp_path, "show", "neuronet_2") == 0
        contents.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert contents[0] == contents[1]
    latex = (folder / "table.tex").read_text()
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_%#]", body)
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r"\\")} == {4}
    markdown = (folder / "table.md").read_text()
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    check_html((folder / "table.html").read_text())


def check_html(text: str) -> None:
    """Assert that every element is closed in order and nothing is fetched from elsewhere."""
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list) -> None:
            assert not {"src", "href"} & {key for key, _ in attributes}
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(text)
    assert not open_tags and "Content-Security-Policy" in text


def test_drift_is_noticed(finished: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = finished("nn_tissue", tissue_rows())
    assert show(tmp_path, "show", "neuronet_2") == 0
    assert show(tmp_path, "check", "neuronet_2") == 0
    file = run.path / "scores.csv"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace("0.45", "0.35")
    file.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert show(tmp_path, "check", "neuronet_2") == 1
    assert "no longer give" in capsys.readouterr().out


def test_planning_tells_done_from_missing_and_what_it_takes(finished: Callable, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    finished("nn_tissue", tissue_rows())
    assert show(tmp_path, "plan", "neuronet_2", "neuronet_3") == 0
    out = capsys.readouterr().out
    assert re.search(r"done +nn_tissue", out) and re.search(r"missing +nn_all.*time unknown", out)
    assert show(tmp_path, "plan", "neuronet_2", "seeds=[1,2]") == 0
    assert re.search(r"missing +nn_tissue, seed 2.*1 min 01 s", capsys.readouterr().out)


def judged(claim: dict, tmp_path: Path) -> str:
    """Return the status of a claim on the runs that were written."""
    declaration = read_declaration("neuronet_claims")
    return check_claim("x", {"text": "t", **claim}, Scores(plan(declaration, overrides(tmp_path)))).status


def test_comparing_runs(finished: Callable, tmp_path: Path) -> None:
    claim = {"kind": "compare_runs", "pairs": [{"left": "nn_all", "right": "nn_tissue", "target": "fsl_fast",
                                                "expect": "higher"}]}
    finished("nn_tissue", tissue_rows())
    assert judged(claim, tmp_path) == "undecided"  # nn_all is missing
    finished("nn_all", tissue_rows(0.02))
    assert judged(claim, tmp_path) == "holds"
    finished("nn_all", tissue_rows(-0.02))
    assert judged(claim, tmp_path) == "fails"


def test_low_cases_must_be_failures_of_the_tool(finished: Callable, tmp_path: Path) -> None:
    claim = {"kind": "low_cases_are_tool_failures", "run": "nn_all", "below": 0.6}
    rows = tissue_rows()
    finished("nn_all", rows)
    assert judged(claim, tmp_path) == "undecided"  # low cases, but no truth
    for tool, status in ((0.1, "holds"), (0.95, "fails")):
        truth = [row("c0", target, tool, metric="tool_dice_truth") for target in TISSUES]
        finished("nn_all", [*rows, *truth])
        assert judged(claim, tmp_path) == status
    finished("nn_all", tissue_rows(0.3))
    assert judged(claim, tmp_path) == "holds"


def test_metrics_within_a_run_by_group(finished: Callable, tmp_path: Path) -> None:
    claim = {"kind": "compare_metrics", "run": "nn_all", "target": "spm_tissue", "group": "failed_spm_tissue",
             "left": "dice_truth", "right": "tool_dice_truth"}
    for better, status in ((0.8, "holds"), (0.1, "fails")):
        rows = [row(f"c{k}", "spm_tissue", value + k / 100, metric=metric, group=group)
                for k, group in enumerate(["clean", *["rotated+failed_spm_tissue"] * 3])
                for metric, value in (("dice_truth", better), ("tool_dice_truth", 0.4 if k else 0.99))]
        finished("nn_all", rows)
        assert judged(claim, tmp_path) == status


def test_bounds_scales_and_devices(finished: Callable, tmp_path: Path) -> None:
    bound = {"kind": "bound", "runs": ["nn_all"], "metric": "predict_seconds", "below": 90}
    resource = {"kind": "resource", "runs": ["nn_all"], "resource": "peak_memory_gb", "below": 12, "device": "gpu"}
    times = [row("c0", "", 10.0, metric="predict_seconds", structure=""),
             row("c1", "", 95.0, metric="predict_seconds", structure="")]
    finished("nn_all", times[:1], resources={"peak_memory_gb": 1.0, "device": "cpu: x"})
    assert judged(bound, tmp_path) == "holds"
    assert judged({**bound, "scale": "paper"}, tmp_path) == "undecided"
    assert judged(resource, tmp_path) == "undecided"
    finished("nn_all", times, resources={"peak_memory_gb": 13.0, "device": "a GPU"})
    assert judged(bound, tmp_path) == "fails"
    assert judged(resource, tmp_path) == "fails"


def test_the_papers_own_numbers_decide_r1_and_r2(tmp_path: Path) -> None:
    claims = read_declaration("neuronet_claims").claims
    scores = Scores(plan(read_declaration("neuronet_claims"), overrides(tmp_path)))
    said = {name: check_claim(name, claims[name], scores).published for name in ("R1_all", "R1_tissue", "R2")}
    assert said["R1_all"].count("holds") == 5 and said["R1_tissue"].count("holds") == 3
    assert said["R2"].count("holds") == 2 and "spm_tissue 93.4 against 93.4 (equal)" in said["R2"]


def test_measuring_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, segexp.tables.page, segexp.tables.claims, segexp.tables.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cells_without_runs_are_measured_as_missing(tmp_path: Path) -> None:
    declaration = read_declaration("neuronet_3")
    measured = measure(declaration, Scores(plan(declaration, overrides(tmp_path))))
    assert all(cell.value is None and cell.reason == "missing" for cell in measured.values())


def test_patterns_name_several_tables_each_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert show(tmp_path, "plan", "neuronet_[23]*", "neuronet_2") == 0
    said = capsys.readouterr().out
    assert said.count("neuronet_2:") == 1 and said.count("neuronet_3:") == 1 and "neuronet_1:" not in said
    assert show(tmp_path, "plan", "nothing_*") == 2
    assert "no table fits nothing_*" in capsys.readouterr().err
