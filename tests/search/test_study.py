"""The journal and who works on which trial."""

import csv
import fcntl
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from segexp.errors import ConfigError, SegexpError
from segexp.runs import Run
from segexp.search.curves import final, names, read_values
from segexp.search.report import state_of, train_line, write_table
from segexp.search.space import split_space
from segexp.search.study import Trials, study_folder

SETTINGS = {"metric": "val/dice", "direction": "maximize", "value": "last", "sampler": "tpe", "sampler_seed": 1,
            "pruner": "median", "startup": 1, "warmup": 0, "trials": 4}
WORDS = ["experiment=neuronet/nn_tissue", "optimizer.lr=interval(0.1,0.5)"]
SPACE = split_space(WORDS)[1]
DISTRIBUTIONS = {one.key: one.distribution() for one in SPACE}


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    folder = study_folder(tmp_path, "s")
    return Trials(folder, folder.settle(WORDS, SETTINGS, set()))


def test_a_study_means_one_thing(tmp_path: Path) -> None:
    folder = study_folder(tmp_path, "s")
    with pytest.raises(ConfigError, match="there is no such study"):
        folder.settle([], SETTINGS, set())
    first = folder.settle(WORDS, SETTINGS, set())
    assert folder.settle([], SETTINGS | {"direction": "minimize"}, set()) == first  # not typed: as before
    assert folder.settle(WORDS[::-1], SETTINGS, set()) == first
    with pytest.raises(ConfigError, match="searches something else"):
        folder.settle([*WORDS, "seed=2"], SETTINGS, set())
    with pytest.raises(ConfigError, match="has direction=maximize"):
        folder.settle([], SETTINGS | {"direction": "minimize"}, {"direction"})
    assert folder.settle([], SETTINGS | {"trials": 9}, {"trials"})["trials"] == 9
    (folder.path / "study.json").write_text("{")
    with pytest.raises(SegexpError, match="cannot be read"):
        folder.definition()


def test_a_process_that_starts_again_draws_something_new_and_the_same_history_the_same(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        folder = study_folder(tmp_path, name)
        definition = folder.settle(WORDS, SETTINGS, set())
        drawn.append([Trials(folder, definition).ask(DISTRIBUTIONS, 0).params["optimizer.lr"] for _ in range(3)])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 3


def test_what_is_told_is_in_the_journal_for_everybody(trials: Trials) -> None:
    numbers = [trials.ask(DISTRIBUTIONS, worker).number for worker in (0, 0, 1, 1)]
    trials.report(numbers[0], 2, 0.5)
    trials.note(numbers[0], overrides=["a=1", "tag='x y'"], run="r-1")
    trials.complete(numbers[0], 0.75)
    assert trials.report(numbers[1], 2, 0.1) and not trials.report(numbers[2], 2, 0.6)
    trials.prune(numbers[1])
    trials.fail(numbers[2], "failed: the loss is not finite")
    other = Trials(trials.folder, trials.definition)
    assert [trial.state for trial in other.all()] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL,
                                                      TrialState.RUNNING]
    assert other.best().number == numbers[0] and other.all()[1].value == 0.1
    assert train_line(other.best()) == "segexp train a=1 'tag='\"'\"'x y'\"'\"''"
    write_table(trials.folder, other, SPACE)
    rows = list(csv.DictReader((trials.folder.path / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["done", "pruned", "failed", "interrupted"]
    assert rows[2]["reason"] == "failed: the loss is not finite" and rows[0]["run"] == "r-1"


def test_a_worker_lives_as_long_as_it_holds_its_lock(trials: Trials) -> None:
    folder = trials.folder
    assert not folder.alive(0) and not folder.alive(None) and not folder.alive("x")
    worker = folder.worker(0)
    assert worker.outputs == folder.outputs and worker.header["name"] == "s/0"
    trial = trials.ask(DISTRIBUTIONS, 0)
    with (worker.folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert folder.alive(0) and state_of(trial, folder) == "running"
    assert not folder.alive(0) and state_of(trial, folder) == "interrupted"


def test_trials_without_parameters_do_not_count(trials: Trials) -> None:
    died = trials.study.ask()  # a process that is killed right here
    trials.fail(died.number, "died", void=True)
    assert trials.all() == [] and len(trials.study.trials) == 1
    assert isinstance(trials.storage, optuna.storages.JournalStorage)


def test_curves_are_read_while_they_grow(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert read_values(run, "val/dice") == {} and names(run) == []
    (tmp_path / "metrics").mkdir()
    file = tmp_path / "metrics" / "metrics.csv"
    file.write_text("step,epoch,train/loss,val/dice,val/dice_a\n1,0,2.0,,\n3,0,,0.5,0.4\n7,0,,0.25,nan\n9,0,1.")
    assert read_values(run, "val/dice") == {4: 0.5, 8: 0.25} and names(run) == ["val/dice", "val/dice_a"]
    values = read_values(run, "val/dice")
    ends = [final(values, *how) for how in (("last", "maximize"), ("best", "maximize"), ("best", "minimize"))]
    assert ends == [0.25, 0.5, 0.25]
    assert final({}, "last", "maximize") != final({}, "last", "maximize")  # NaN
