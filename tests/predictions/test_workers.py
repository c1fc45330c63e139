"""Real processes on one output folder: together, killed, stopped, on a full or read-only disk."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from segexp.cli import main
from segexp.predictions.predict import bookkeeping
from segexp.predictions.worker import Worker
from tests.predictions.conftest import process, results, words


@pytest.fixture
def expected(outputs: Path, heads: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return what one undisturbed worker writes."""
    assert main(words(outputs, heads, tmp_path / "undisturbed")) == 4
    return results(tmp_path / "undisturbed")


def slowly(seconds: float, log: Path, call: Callable[[], int]) -> Callable[[], int]:
    """Return a call whose network takes its time and notes every image, for a process of its own."""
    def slow() -> int:
        work = Worker.work

        def noted(self, task, reading):
            with log.open("a") as file:
                file.write(f"{task.image.name}\n")
            time.sleep(seconds)
            return work(self, task, reading)

        Worker.work = noted
        return call()
    return slow


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def left_over(output: Path) -> list[Path]:
    return [*output.rglob("*.part"), *bookkeeping(output).glob("leases/*"), *bookkeeping(output).glob("workers/*")]


def test_three_workers_share_the_work(outputs: Path, heads: Path, tmp_path: Path, expected: dict) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    command = slowly(0.05, log, lambda: main(words(outputs, heads, output)))
    started = [process(command) for _ in range(3)]
    for worker in started:
        worker.join(90)
    assert [worker.exitcode for worker in started] == [4, 4, 4]
    assert sorted(log.read_text().split()) == sorted(set(log.read_text().split()))  # nothing twice
    assert results(output) == expected and left_over(output) == []


def kill_again_and_again(outputs: Path, heads: Path, output: Path, log: Path, kills: int, seed: int) -> int:
    """Kill a worker at random moments, ``kills`` times; return how many were still at work then."""
    rng, hit = random.Random(seed), 0
    for _ in range(kills):
        worker = process(slowly(0.03, log, lambda: main(words(outputs, heads, output, "expiry=5"))))
        before = log.read_text().count("\n") if log.exists() else 0
        wait_for(lambda before=before, worker=worker: not worker.is_alive() or (
            log.exists() and log.read_text().count("\n") > before))
        time.sleep(rng.random() * 0.1)
        hit += worker.is_alive()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        for file in output.rglob("*_dseg.json"):  # a sidecar vouches for a whole file, at any moment
            assert file.with_name(file.name.replace(".json", ".nii.gz")).exists()
    return hit


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.long_faults)])
def test_killed_in_the_middle_nothing_is_lost_or_half(outputs: Path, heads: Path, tmp_path: Path, expected: dict,
                                                      kills: int) -> None:
    rounds = max(1, kills // 4)
    for turn in range(rounds):
        output, log = tmp_path / f"out{turn}", tmp_path / f"log{turn}"
        assert kill_again_and_again(outputs, heads, output, log, kills // rounds, turn) > 0
        assert main(words(outputs, heads, output)) == 4
        assert results(output) == expected and left_over(output) == []


def test_a_worker_beside_takes_over_what_a_killed_one_held(outputs: Path, heads: Path, tmp_path: Path,
                                                           expected: dict) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    victim = process(slowly(30, log, lambda: main(words(outputs, heads, output))))
    wait_for(lambda: log.exists() and list(bookkeeping(output).glob("leases/*")))
    other = process(lambda: main(words(outputs, heads, output)))
    wait_for(lambda: len([*output.glob("sub-*"), *output.glob("quarantine/*"),
                          *bookkeeping(output).glob("leases/*")]) >= 11)
    assert other.is_alive()  # it waits for what the first one holds
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    other.join(60)
    assert other.exitcode == 4 and results(output) == expected and left_over(output) == []


def test_a_worker_that_stood_still_for_too_long_finds_its_subjects_taken(outputs: Path, heads: Path, tmp_path: Path,
                                                                         expected: dict) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    still = process(slowly(0.1, log, lambda: main(words(outputs, heads, output, "expiry=3"))))
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2)
    os.kill(still.pid, signal.SIGSTOP)
    other = process(lambda: main(words(outputs, heads, output, "expiry=3")))
    other.join(90)
    assert other.exitcode == 4 and results(output) == expected  # done while the first one stands still
    os.kill(still.pid, signal.SIGCONT)
    still.join(60)
    assert still.exitcode == 4 and results(output) == expected and left_over(output) == []


def test_a_subject_that_kills_workers_is_put_away(outputs: Path, heads: Path, tmp_path: Path, expected: dict) -> None:
    """As the system does to who takes too much memory."""
    output = tmp_path / "out"

    def deadly() -> int:
        work = Worker.work

        def killing(self, task, reading):
            if task.image.name == "sub-04":
                os.kill(os.getpid(), signal.SIGKILL)
            return work(self, task, reading)

        Worker.work = killing
        return main(words(outputs, heads, output))

    codes = []
    for _ in range(6):
        worker = process(deadly)
        worker.join(60)
        codes.append(worker.exitcode)
    assert codes == [-signal.SIGKILL] * 5 + [4]
    table = pd.read_csv(output / "quarantine.csv").set_index("name")
    assert list(table.index) == ["sub-04", "sub-cut", "sub-nan"]
    assert table["type"]["sub-04"] == "killed" and "5 workers were killed" in table["reason"]["sub-04"]
    assert main(words(outputs, heads, output, "retry=quarantined")) == 4
    assert results(output) == expected and left_over(output) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_asked_to_stop_it_lets_go_and_goes_on_later(outputs: Path, heads: Path, tmp_path: Path, expected: dict,
                                                    number: int) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    worker = process(slowly(0.2, log, lambda: main(words(outputs, heads, output))))
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3)
    os.kill(worker.pid, number)
    worker.join(30)
    assert worker.exitcode == 143 and left_over(output) == []
    assert 0 < len(list(output.rglob("*_dseg.json"))) < 30
    assert main(words(outputs, heads, output)) == 4
    assert results(output) == expected


def test_a_full_disk_is_said_and_leaves_nothing_half(outputs: Path, heads: Path, tmp_path: Path, expected: dict,
                                                     capfd: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"

    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # sidecars fit, label maps do not
        return main(words(outputs, heads, output))

    worker = process(limited)
    worker.join(60)
    assert worker.exitcode == 1
    assert "cannot be written: File too large" in capfd.readouterr().err
    assert left_over(output) == [] and not list(output.rglob("*_space-*"))
    assert {path.name for path in output.glob("quarantine/*")} <= {"sub-cut", "sub-nan"}
    assert main(words(outputs, heads, output)) == 4
    assert results(output) == expected


def test_an_output_that_cannot_be_written_is_said(outputs: Path, heads: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "out", Path("/proc/segexp")):
        assert main(words(outputs, heads, folder)) == 1
        assert f"output={folder}: cannot be written" in capsys.readouterr().err


def test_a_read_only_folder_is_said(outputs: Path, heads: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"
    output.mkdir(mode=0o555)

    def somebody() -> int:
        if os.getuid() == 0:  # the superuser may write anywhere
            for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
                folder.chmod(folder.stat().st_mode | 0o755)
            os.setuid(65534)
        return main(words(outputs, heads, output))

    worker = process(somebody)
    worker.join(60)
    assert worker.exitcode == 1 and "Permission denied" in capfd.readouterr().err
    assert list(output.iterdir()) == []
