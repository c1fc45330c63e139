"""Real studies at smoke scale: searched, killed, gone on with, shared by processes, pruned."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from segexp.cli import main
from segexp.runs import get_run, list_runs
from segexp.search.space import split_space
from segexp.search.study import Trials, study_folder

BASE = ["experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "data.split.test=1"]
SPACE = ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "loss=choice(dice_cross_entropy,cross_entropy)"]
PATIENCE = 240.0


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    return folder


def words(outputs: Path, study: str, *more: str) -> list[str]:
    return ["tune", f"study={study}", f"paths.outputs={outputs}", *more]


def start(outputs: Path, study: str, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "segexp", *words(outputs, study, *more)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def rows(outputs: Path, study: str) -> list[dict[str, str]]:
    with (outputs / "studies" / study / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def trials_of(outputs: Path, study: str) -> Trials:
    folder = study_folder(outputs, study)
    return Trials(folder, folder.definition())


def wait_for(what: Any, process: subprocess.Popen | None = None) -> Any:
    """Return the first true answer of ``what``."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"it ended with {process.returncode}:\n{process.stdout.read()}")
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def trained(outputs: Path, study: str) -> Counter:
    """Return how often each run was given to a process."""
    found: Counter = Counter()
    for file in (outputs / "studies" / study / "workers").glob("*/events.jsonl"):
        found.update(line.split('"job": "')[1][:8] for line in file.read_text().splitlines())
    return found


def test_a_study_ends_with_the_line_that_trains_its_best(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(words(outputs, "small", *BASE, *SPACE, "trials=2", "startup=5")) == 0
    out = capsys.readouterr().out
    assert "2 keys are searched; 3 combinations" in out and "test cases are never looked at" in out
    table = rows(outputs, "small")
    assert [row["state"] for row in table] == ["done", "done"]
    best = max(table, key=lambda row: float(row["value"]))
    line = out.split("\n  segexp train ")[1].splitlines()[0]
    assert f"optimizer.lr={best['optimizer.lr']}" in line and f"loss={best['loss']}" in line
    # The value is that of the run's last validation, and the line means just this run.
    run = get_run(outputs, best["run"])
    with (run.path / "metrics" / "metrics.csv").open(newline="") as file:
        last = [row["val/dice"] for row in csv.DictReader(file) if row["val/dice"]][-1]
    assert float(best["value"]) == float(last)
    assert main(["train", *line.split()]) == 0
    assert f"{run.id} is done already" in capsys.readouterr().out
    # Again: nothing is left to do; more trials go on with the same study.
    assert main(words(outputs, "small")) == 0
    assert len(rows(outputs, "small")) == 2
    assert main(words(outputs, "small", "status")) == 0
    assert "2 of 2 trials: 2 done" in capsys.readouterr().out
    assert main(words(outputs, "small", *BASE, *SPACE, "seed=2")) == 2
    assert "searches something else" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_no_trial_and_makes_none_twice(outputs: Path) -> None:
    """Killed with its job, then killed alone: the job outlives it and is adopted."""
    more = [*BASE, *SPACE, "trials=3", "startup=5", "steps=40", "validate_every=5"]
    folder = study_folder(outputs, "killed")

    def busy() -> Any:
        """Return the run of a trial that has taken a checkpoint and is not done."""
        if not (folder.path / "journal.log").exists():
            return None
        for trial in trials_of(outputs, "killed").running():
            run = next((run for run in list_runs(outputs) if run.id == trial.user_attrs.get("run")), None)
            if run is not None and run.checkpoint.exists() and run.held():
                return run
        return None

    process = start(outputs, "killed", *more)
    run = wait_for(busy, process)
    job = int((run.path / ".lock").read_text().split()[1])
    os.kill(process.pid, signal.SIGKILL)
    os.kill(job, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not run.held())
    first = trials_of(outputs, "killed").running()[0].number
    process = start(outputs, "killed")
    wait_for(lambda: any(trial.number != first for trial in trials_of(outputs, "killed").running()) and busy(), process)
    os.kill(process.pid, signal.SIGKILL)  # its job goes on alone
    process.wait()
    process = start(outputs, "killed")
    out = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, out
    table = rows(outputs, "killed")
    assert [row["trial"] for row in table] == ["0", "1", "2"] and {row["state"] for row in table} == {"done"}
    assert len({row["run"] for row in table}) == 3
    assert "goes on from step" in (run.path / "log.txt").read_text()
    assert "was left by a process that died; it goes on" in out
    given = trained(outputs, "killed")
    assert given[run.hash] == 2 and sum(given.values()) == 4  # only the job that was killed was started again


@pytest.mark.slow
def test_two_processes_share_a_study(outputs: Path) -> None:
    more = [*BASE, *SPACE, "trials=4", "startup=5", "steps=12", "validate_every=6", "tag=shared"]
    both = [start(outputs, "shared", *more), start(outputs, "shared", *more)]
    said = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    found = trials_of(outputs, "shared").all()
    assert [trial.number for trial in found] == [0, 1, 2, 3]
    assert {trial.state.name for trial in found} == {"COMPLETE"}
    assert {trial.user_attrs["worker"] for trial in found} == {0, 1}
    assert sum(trained(outputs, "shared").values()) == len({trial.user_attrs["run"] for trial in found}) == 4


def test_a_hopeless_trial_is_pruned_and_its_job_ends(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    """The others were far better at the same step; training to the end would take minutes."""
    more = [*BASE, "steps=4000", "validate_every=4", "optimizer.lr=choice(1e-12,1e-11)"]
    folder = study_folder(outputs, "pruned")
    settings = {"metric": "val/dice", "direction": "maximize", "value": "last", "sampler": "random", "sampler_seed": 1,
                "pruner": "median", "startup": 1, "warmup": 0, "trials": 2}
    trials = Trials(folder, folder.settle(more, settings, set()))
    space = split_space(more)[1]
    trials.study.add_trial(optuna.trial.create_trial(
        value=0.99, params={"optimizer.lr": "1e-12"}, distributions={one.key: one.distribution() for one in space},
        intermediate_values={step: 0.99 for step in range(4, 401, 4)}))
    assert main(words(outputs, "pruned")) == 0
    out = capsys.readouterr().out
    assert "trial 1 pruned at step" in out
    trial = trials_of(outputs, "pruned").all()[1]
    run = get_run(outputs, trial.user_attrs["run"])
    assert trial.state.name == "PRUNED" and run.status == "preempted" and not run.held()
    assert trial.last_step < 4000


def test_a_trial_that_fails_is_said_and_the_others_go_on(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    """A learning rate that blows up, or data that are not there: the study goes on and says why."""
    more = [*BASE, "data.root=" + f"{outputs}/nowhere", "optimizer.lr=interval(1e-4,1e-3)", "trials=1"]
    assert main(words(outputs, "failing", *more)) == 1
    out, error = capsys.readouterr()
    assert "trial 0 failed" in out and "nowhere" in out
    assert "no trial was trained to its end" in error
    assert rows(outputs, "failing")[0]["state"] == "failed"


def test_a_metric_that_the_runs_do_not_have_is_answered(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    more = [*BASE, "optimizer.lr=choice(1e-3,1e-4)", "trials=2", "metric=val/dise"]
    assert main(words(outputs, "typo", *more)) == 2
    assert "did you mean val/dice" in capsys.readouterr().err
