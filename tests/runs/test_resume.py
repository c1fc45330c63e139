"""A run that was stopped anywhere goes on to the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from segexp import tensors
from segexp.cli import main
from tests.runs.conftest import STEPS, assert_same, only_run, strike, words_on


def killed(words: list[str]) -> int:
    """Run a command line in a process of its own and return its exit code."""
    return subprocess.run([sys.executable, "-m", "segexp", *words], stdout=subprocess.DEVNULL, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


def stop_and_go(phantom: Path, outputs: Path, *strikes: list[str], more: tuple[str, ...] = ()) -> list[int]:
    """Stop a run in this process once for each of ``strikes``, then let it end; return the steps it went on from."""
    outputs.mkdir(exist_ok=True)
    words, steps = words_on(phantom, outputs, *more), []
    for blow in strikes:
        assert main([*words, *blow]) == 143
        run = only_run(outputs)
        assert run.status == "preempted"
        steps.append(torch.load(run.checkpoint, weights_only=True)["global_step"])
    assert main(words) == 0
    return steps


@pytest.mark.parametrize("moment", ["step", "validation", "checkpoint"])
def test_a_stop_loses_no_step_and_changes_no_bit(phantom: Path, undisturbed: Path, tmp_path: Path,
                                                  moment: str) -> None:
    blows = {"step": [strike("SIGTERM", 1), strike("SIGUSR2", 5)],
             "validation": [strike("SIGUSR2", 4, "validation"), strike("SIGTERM", STEPS, "validation")],
             "checkpoint": [strike("SIGTERM", 3, "checkpoint"), strike("SIGTERM", STEPS, "test")]}[moment]
    steps = stop_and_go(phantom, tmp_path / "stopped", *blows)
    # A request that comes while a step is saved is heard at the end of the next one.
    assert steps == {"step": [1, 5], "validation": [4, STEPS], "checkpoint": [4, STEPS]}[moment]
    assert_same(tmp_path / "stopped", undisturbed)


@pytest.mark.parametrize("workers", [2])
def test_the_number_of_loader_workers_changes_nothing(phantom: Path, undisturbed: Path, tmp_path: Path,
                                                      workers: int) -> None:
    steps = stop_and_go(phantom, tmp_path / "w", strike("SIGTERM", 3), more=(f"data.workers={workers}",))
    assert steps == [3]
    assert_same(tmp_path / "w", undisturbed)


def test_the_same_seed_twice_gives_the_same_bytes(phantom: Path, undisturbed: Path, tmp_path: Path) -> None:
    stop_and_go(phantom, tmp_path / "again")
    assert_same(tmp_path / "again", undisturbed)


@pytest.mark.parametrize(("step", "moment"), [(4, "checkpoint"), (4, "validation")])
def test_a_kill_goes_on_from_the_last_checkpoint(phantom: Path, undisturbed: Path, tmp_path: Path, step: int,
                                                 moment: str) -> None:
    words = words_on(phantom, tmp_path, "callbacks.checkpoint.every_steps=2")
    assert killed([*words, *strike("SIGKILL", step, moment)]) == -9
    assert only_run(tmp_path).status == "interrupted"
    assert main(words) == 0
    assert_same(tmp_path, undisturbed)
    assert not list(only_run(tmp_path).checkpoint.parent.glob(".*"))


def test_a_terminated_command_says_so_by_its_exit_code(phantom: Path, tmp_path: Path) -> None:
    assert killed([*words_on(phantom, tmp_path), *strike("SIGTERM", 2)]) == 143
    assert only_run(tmp_path).info["status"] == "preempted"
    assert torch.load(only_run(tmp_path).checkpoint, weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_scheduler_s_signal_to_all_processes_loses_no_step(phantom: Path, tmp_path: Path, number: int) -> None:
    words = words_on(phantom, tmp_path, "steps=4000", "validate_every=4000", "data.workers=1",
                     "callbacks.checkpoint.every_steps=4000")
    process = subprocess.Popen([sys.executable, "-m", "segexp", *words], stdout=subprocess.DEVNULL,
                               start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while last_step(tmp_path / "order.txt") < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)  # the loader's process gets it too
    started = time.monotonic()
    assert process.wait(120) == 143
    print(f"{signal.Signals(number).name}: saved and ended in {time.monotonic() - started:.1f} s")
    assert only_run(tmp_path).info["status"] == "preempted"
    assert resume_step(tmp_path) == last_step(tmp_path / "order.txt") + 1


def test_ctrl_c_saves_the_step_too(phantom: Path, undisturbed: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    words = words_on(phantom, tmp_path)
    assert main([*words, *strike("SIGINT", 5)]) == 130
    assert only_run(tmp_path).status == "interrupted"
    assert "goes on from step 5" in capsys.readouterr().out
    assert main(words) == 0
    assert_same(tmp_path, undisturbed)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(phantom: Path, undisturbed: Path, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture) -> None:
    words = words_on(phantom, tmp_path)
    assert main([*words, *strike("SIGTERM", 5)]) == 143
    file = only_run(tmp_path).checkpoint
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "not the file that was written" in said and "goes on from step 3" in said
    assert_same(tmp_path, undisturbed)


@pytest.mark.long_faults
@pytest.mark.parametrize("moment", ["step", "validation", "checkpoint"])
def test_a_stop_at_every_step_of_forty(phantom: Path, tmp_path: Path, moment: str) -> None:
    more = ("steps=40", "validate_every=1" if moment == "validation" else "validate_every=8")
    (tmp_path / "whole").mkdir()
    assert main(words_on(phantom, tmp_path / "whole", *more)) == 0
    blows = [strike("SIGTERM", step, moment) for step in range(1, 40) if moment != "checkpoint" or step % 3 == 0]
    stop_and_go(phantom, tmp_path / "stopped", *blows, more=more)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.long_faults
def test_twenty_kills_at_random_moments(phantom: Path, tmp_path: Path) -> None:
    more = ("steps=1500", "validate_every=500", "callbacks.checkpoint.every_steps=10", "trainer.log_every_n_steps=50")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert main(words_on(phantom, tmp_path / "whole", *more)) == 0
    words, moments, kills, lost = words_on(phantom, tmp_path / "killed", *more), random.Random(0), 0, []
    taken = tmp_path / "killed" / "order.txt"
    while kills < 20:
        size = taken.stat().st_size if taken.exists() else 0
        process = subprocess.Popen([sys.executable, "-m", "segexp", *words], stdout=subprocess.DEVNULL)
        while process.poll() is None and (not taken.exists() or taken.stat().st_size == size):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 3))
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
        lost.append(last_step(taken) - resume_step(tmp_path / "killed"))
    assert main(words) == 0
    assert_same(tmp_path / "killed", tmp_path / "whole")
    print(f"{kills} kills survived; steps taken again per kill: mean {sum(lost) / len(lost):.1f}, most {max(lost)}")


def last_step(order: Path) -> int:
    """Return the step that was last begun."""
    lines = order.read_text().splitlines() if order.exists() else []
    return int(lines[-1].split()[0]) if lines and lines[-1].count(" ") >= 2 else -1


def resume_step(outputs: Path) -> int:
    """Return the step of the last checkpoint, 0 without one."""
    files = list(outputs.glob("runs/*/*/checkpoints/last.ckpt"))
    return int(tensors.load(files[0])["global_step"]) if files else 0
