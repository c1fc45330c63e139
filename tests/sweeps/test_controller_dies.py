"""The controller is killed, interrupted or started twice: nothing is lost, nothing is trained twice."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.runs import list_runs
from segexp.sweeps.manifest import list_sweeps
from tests.sweeps.conftest import begin, submissions, wait_for
from tests.sweeps.faults import fault_words, starts


def survives(words: list[str], tmp_path: Path, submitted: int, seconds: float = 0.0) -> None:
    """Kill the controller after so many submissions and so many seconds; resume; every job has begun once."""
    controller = begin(["train", "-m", *words, "seed=1,2,3,4", "hydra.launcher.slots=2",
                        *fault_words(tmp_path, "raise", only=99)])
    wait_for(lambda: list_sweeps(tmp_path) and len(submissions(tmp_path)) >= submitted, controller)
    time.sleep(seconds)
    os.kill(controller.pid, signal.SIGKILL)
    controller.communicate()
    name = list_sweeps(tmp_path)[0].name
    assert main(["sweep", "resume", name, f"paths.outputs={tmp_path}", "--allow-target", "tests."]) == 0
    assert sorted(starts(tmp_path)) == [1, 2, 3, 4], "a job was lost or trained twice"
    assert [run.status for run in list_runs(tmp_path)] == ["done"] * 4


@pytest.mark.parametrize("submitted", [0, 2, 3])
def test_killed_between_submissions(words: list[str], tmp_path: Path, submitted: int) -> None:
    survives(words, tmp_path, submitted)


@pytest.mark.long_faults
@pytest.mark.parametrize("number", range(30))
def test_killed_at_any_moment(words: list[str], tmp_path: Path, number: int) -> None:
    chance = random.Random(number)
    survives(words, tmp_path, chance.randrange(5), chance.choice([0.0, 0.01, 0.1, 1.0, 3.0]) * chance.random())


def test_jobs_outlive_their_controller_and_are_adopted(words: list[str], tmp_path: Path,
                                                       capsys: pytest.CaptureFixture) -> None:
    """Two jobs run when the whole session of their controller is killed; the next controller waits for them."""
    controller = begin(["train", "-m", *words, "seed=1,2,3", "hydra.launcher.slots=2",
                        *fault_words(tmp_path, "wait", only=None)])
    wait_for(lambda: len(starts(tmp_path)) == 2, controller)
    os.killpg(controller.pid, signal.SIGKILL)
    controller.communicate()
    assert main(["sweep", "paths.outputs=" + str(tmp_path)]) == 0
    assert "1 missing, 2 running" in capsys.readouterr().out
    threading.Timer(3, (tmp_path / "go").touch).start()
    name = list_sweeps(tmp_path)[0].name.rpartition("-")[2]
    assert main(["sweep", "resume", name, f"paths.outputs={tmp_path}", "--allow-target", "tests."]) == 0
    assert sorted(starts(tmp_path)) == [1, 2, 3] and len(submissions(tmp_path)) == 3


def let_go(tmp_path: Path) -> None:
    """Let the jobs go on a while after the second sweep has begun."""
    wait_for(lambda: len(list_sweeps(tmp_path)) == 2)
    time.sleep(3)
    (tmp_path / "go").touch()


def test_a_sweep_started_twice(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The second controller waits; so does another sweep that means one of the same runs."""
    fault = fault_words(tmp_path, "wait", only=None)
    line = ["train", "-m", *words, "seed=1,2", "hydra.launcher.slots=2", *fault]
    first = begin(line)
    wait_for(lambda: len(starts(tmp_path)) == 2, first)
    threading.Thread(target=let_go, args=(tmp_path,)).start()
    assert main(["train", "-m", *words, "seed=2,3", "hydra.launcher.slots=2", *fault]) == 0
    assert "seed=2: another process trains this run; waiting for it" in capsys.readouterr().out
    assert main(line) == 0
    assert first.wait(60) == 0
    assert sorted(starts(tmp_path)) == [1, 2, 3]


def test_ctrl_c_lets_the_jobs_save(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    controller = begin(["train", "-m", *words, "seed=1,2,3", "steps=1000000", "hydra.launcher.slots=2"])
    wait_for(lambda: sum(run.progress().get("stage") == "train" for run in list_runs(tmp_path)) == 2, controller)
    os.killpg(controller.pid, signal.SIGINT)  # as a terminal does
    said = controller.communicate(timeout=120)[0]
    name = list_sweeps(tmp_path)[0].name
    assert controller.returncode == 130 and f"segexp sweep resume {name}" in said
    assert [run.status for run in list_runs(tmp_path)] == ["preempted"] * 2
    assert all(run.checkpoint.exists() for run in list_runs(tmp_path))
    assert main(["sweep", "status", name, f"paths.outputs={tmp_path}"]) == 4
    said = capsys.readouterr().out
    assert said.count("preempted") == 2 and said.count("missing") == 1


def test_ctrl_c_twice_leaves_the_jobs_alone(words: list[str], tmp_path: Path) -> None:
    controller = begin(["train", "-m", *words, "seed=1,2", "hydra.launcher.slots=2",
                        *fault_words(tmp_path, "wait", only=None)])
    wait_for(lambda: len(starts(tmp_path)) == 2, controller)
    os.kill(controller.pid, signal.SIGINT)
    time.sleep(0.4)
    os.kill(controller.pid, signal.SIGINT)
    said = controller.communicate(timeout=60)[0]
    assert controller.returncode == 130 and "2 jobs go on" in said
    (tmp_path / "go").touch()
    wait_for(lambda: [run.status for run in list_runs(tmp_path)] == ["done"] * 2)


def test_a_controller_that_is_terminated_lets_its_jobs_save(words: list[str], tmp_path: Path) -> None:
    """SIGTERM, as a scheduler or a container sends it: like Ctrl-C, with the exit code of what was preempted."""
    controller = begin(["train", "-m", *words, "seed=1", "steps=1000000"])
    wait_for(lambda: any(run.progress().get("stage") == "train" for run in list_runs(tmp_path)), controller)
    os.kill(controller.pid, signal.SIGTERM)
    controller.communicate(timeout=120)
    assert controller.returncode == 143 and list_runs(tmp_path)[0].status == "preempted"
