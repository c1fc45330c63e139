"""Jobs that die: the others are done, the dead one is named, and only that one starts again."""

import json
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.runs import list_runs
from tests.sweeps.faults import fault_words, starts

REASONS = {"raise": "the loss is not a number any more", "exit": "exit(3)", "kill": "killed by SIGKILL"}


@pytest.mark.parametrize("how", REASONS)
def test_one_of_four_jobs_dies(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, how: str) -> None:
    line = ["train", "-m", *words, "seed=1,2,3,4", *fault_words(tmp_path, how)]
    assert main(line) == 4
    said = capsys.readouterr()
    assert "1 of 4 jobs are not done" in said.err and "seed=1: failed" in said.err and REASONS[how] in said.err
    log = Path(said.err.partition("log: ")[2].splitlines()[0])
    assert log.is_file()
    done = {run.info["seed"]: run.status for run in list_runs(tmp_path)}
    assert [done[seed] for seed in (2, 3, 4)] == ["done"] * 3 and done[1] in ("failed", "interrupted")
    assert sorted(starts(tmp_path)) == [1, 2, 3, 4]
    assert main(line) == 0
    assert "3 of 4 jobs are done already" in capsys.readouterr().out
    assert sorted(starts(tmp_path)) == [1, 1, 2, 3, 4]
    assert {run.status for run in list_runs(tmp_path)} == {"done"}
    assert main(line) == 0
    assert "4 of 4 jobs are done already" in capsys.readouterr().out


def test_a_folder_that_is_not_there(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The only job's exit code is the sweep's; a run that could not read its data says so."""
    line = ["train", "-m", *words, "seed=8", "data.root=/nowhere"]
    assert main(line) == 3
    assert "/nowhere" in capsys.readouterr().err
    run = list_runs(tmp_path)[0]
    assert json.loads((run.path / "run.json").read_text())["status"] == "failed"
