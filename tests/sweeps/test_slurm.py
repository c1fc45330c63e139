"""The Slurm preset, with real jobs on a stand-in cluster: time is up, nodes fail, the controller goes away."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.runs import list_runs
from segexp.sweeps.manifest import list_sweeps
from tests.sweeps.conftest import begin, wait_for
from tests.sweeps.faults import fault_words, starts
from tests.sweeps.stand_in_slurm import Cluster, install

PRESET = ("hydra/launcher=slurm", "hydra.launcher.poll=0.3", "hydra.launcher.gpus_per_node=null",
          "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=short", "hydra.launcher.timeout_min=60")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Put the stand-in on PATH; end what it still runs afterwards."""
    folder = tmp_path / "cluster"
    monkeypatch.setenv("PATH", f"{install(folder)}{os.pathsep}{os.environ['PATH']}")
    found = Cluster(folder)
    yield found
    for key in found.keys():
        if found.read(key)["state"] == "RUNNING":
            found.kill(key, "CANCELLED")


def meanwhile(what: Callable[[], None]) -> threading.Thread:
    """Do something to the cluster while the test's main thread is the controller."""
    thread = threading.Thread(target=what)
    thread.start()
    return thread


def key_of(cluster: Cluster, seed: int, tmp_path: Path) -> str:
    """Return the key of the running job that trains a seed."""
    sweep = list_sweeps(tmp_path)[-1]
    ids = {job.id: job.name for job in sweep.jobs().values()}
    keys = [(ids[job], key) for event in sweep.events() if event["event"] == "queued"
            for job, key in event["keys"].items()]
    return next(key for name, key in reversed(keys) if name == f"seed={seed}")


def test_time_is_up_and_a_node_fails(cluster: Cluster, words: list[str], tmp_path: Path,
                                     capsys: pytest.CaptureFixture) -> None:
    """USR2 before the time is up: saved and put into the queue again; a failed node: submitted again."""

    def trouble() -> None:
        wait_for(lambda: len(starts(tmp_path)) == 2)
        cluster.signal(key_of(cluster, 1, tmp_path), signal.SIGUSR2)
        cluster.kill(key_of(cluster, 2, tmp_path), "NODE_FAIL")
        time.sleep(0.5)
        (tmp_path / "go").touch()

    thread = meanwhile(trouble)
    assert main(["train", "-m", *words, "seed=1,2", "steps=3", *PRESET,
                 *fault_words(tmp_path, "wait", only=None)]) == 0
    thread.join()
    assert "[2/2]" in capsys.readouterr().out
    assert sorted(starts(tmp_path)) == [1, 1, 2, 2]
    assert {run.status for run in list_runs(tmp_path)} == {"done"}
    wait_for(lambda: all(cluster.read(key)["state"] != "RUNNING" for key in cluster.keys()))
    found = {key: cluster.read(key) for key in cluster.keys()}
    assert [(job["state"], job["restarts"]) for job in found.values()] == [
        ("COMPLETED", 1), ("NODE_FAIL", 0), ("COMPLETED", 0)]
    flags = found["1000_0"]["flags"]
    assert flags["partition"] == "short" and flags["array"] == "0-1%2" and flags["signal"] == "USR2@120"
    assert flags["time"] == "60" and flags["ntasks-per-node"] == "1"


def test_the_controller_goes_away_between_submission_and_note(cluster: Cluster, words: list[str], tmp_path: Path,
                                                              ) -> None:
    """Killed after sbatch and before the answer is noted: the next one finds the jobs by the name of their array."""
    controller = begin(["train", "-m", *words, "seed=1,2", *PRESET, *fault_words(tmp_path, "wait", only=None)])
    wait_for(lambda: len(starts(tmp_path)) == 2, controller)
    controller.kill()
    controller.communicate()
    sweep = list_sweeps(tmp_path)[0]
    events = sweep.folder / "events.jsonl"
    lines = events.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["submitting", "queued"]
    events.write_text(lines[0] + "\n" + lines[1][:20])  # and the note was cut
    threading.Timer(2, (tmp_path / "go").touch).start()
    assert main(["sweep", "resume", sweep.name, f"paths.outputs={tmp_path}", "--allow-target", "tests."]) == 0
    assert sorted(starts(tmp_path)) == [1, 2] and cluster.keys() == ["1000_0", "1000_1"]


def test_a_job_that_fails_is_not_submitted_again(cluster: Cluster, words: list[str], tmp_path: Path,
                                                 capsys: pytest.CaptureFixture) -> None:
    """One job raises; the other's process is killed without a word, and the cluster keeps no books."""
    (cluster.folder / "no_books").touch()

    def trouble() -> None:
        wait_for(lambda: 2 in starts(tmp_path))
        for pid in cluster.tasks(key_of(cluster, 2, tmp_path)):
            os.kill(pid, signal.SIGKILL)

    fault = fault_words(tmp_path, "wait", only=2)
    thread = meanwhile(trouble)
    assert main(["train", "-m", *words, "seed=1,2", "tag=a", *PRESET, *fault, "steps=2"]) == 4
    thread.join()
    said = capsys.readouterr()
    assert "1 of 2 jobs are not done" in said.err and "seed=2: failed: Slurm says GONE" in said.err
    (tmp_path / "go").touch()
    name = list_sweeps(tmp_path)[0].name
    assert main(["sweep", "retry", name, f"paths.outputs={tmp_path}", "--allow-target", "tests."]) == 0
    assert cluster.keys() == ["1000_0", "1000_1", "1100"]


def test_two_ranks_are_two_tasks(cluster: Cluster, words: list[str], tmp_path: Path) -> None:
    """trainer.devices tasks per node, one process each; one run directory; preempted, both save."""
    assert main(["train", "-m", *words, "seed=1", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
                 "trainer.accumulate_grad_batches=2", *PRESET]) == 0
    run = list_runs(tmp_path)[0]
    assert run.status == "done" and len(list_runs(tmp_path)) == 1
    assert cluster.read("1000")["flags"]["ntasks-per-node"] == "2"


def test_without_a_cluster(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "-m", *words, "seed=1,2", *PRESET]) == 2
    assert "there is no sbatch and srun on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("stand_in", ["debug", "local"])
def test_submitits_own_executors(words: list[str], tmp_path: Path, stand_in: str) -> None:
    """The same preset on submitit's stand-ins: in this process, and through its local controller."""
    assert main(["train", "-m", *words, "seed=1", *PRESET, f"hydra.launcher.cluster={stand_in}"]) == 0
    assert [run.status for run in list_runs(tmp_path)] == ["done"]
