"""Several ranks compute what one process computes, write one run, and end together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from omegaconf import OmegaConf

from segexp.cli import main
from segexp.data.sampling import StepSampler
from segexp.errors import ConfigError
from segexp.runs import Run
from segexp.runs.ranks import devices_of, share
from tests.runs.conftest import curves, only_run, words_on

TOLERANCE = 1e-5  # sums of gradients and of statistics are taken in another order
DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def start(words: list[str], *launcher: str, **environment: str) -> subprocess.Popen:
    """Start a command line, which gets one thread per rank."""
    before = ["-m", *launcher] if launcher else []
    return subprocess.Popen([sys.executable, *before, "-m", "segexp", *words], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


def ended(process: subprocess.Popen, seconds: float = 240) -> tuple[int, str]:
    """Wait for a process and return its exit code and what it printed."""
    text, _ = process.communicate(timeout=seconds)
    return process.returncode, text


def assert_close(mine: Run, theirs: Run) -> None:
    """Compare two runs of the same meaning: equal scores of the same cases, weights up to rounding."""
    assert mine.hash == theirs.hash and mine.status == theirs.status == "done"
    weights = [torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in (mine, theirs)]
    for key, value in weights[1].items():
        assert torch.allclose(weights[0][key].float(), value.float(), rtol=TOLERANCE, atol=TOLERANCE), key
    rows = [run.scores().query("metric != 'predict_seconds'").reset_index(drop=True) for run in (mine, theirs)]
    assert rows[0].drop(columns="value").equals(rows[1].drop(columns="value"))
    assert (rows[0]["value"] - rows[1]["value"]).abs().max() < 1e-3


@pytest.mark.parametrize("batches", [1, 2])
def test_two_ranks_do_what_one_process_does(phantom: Path, tmp_path: Path, batches: int) -> None:
    more = (f"trainer.accumulate_grad_batches={batches}", "steps=5", "validate_every=2")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert main(words_on(phantom, tmp_path / "one", *more)) == 0
    code, said = ended(start(words_on(phantom, tmp_path / "two", *more, *DDP)))
    assert code == 0, said
    assert said.count("is done") == 1 and ("cannot share 1 batch" in said) == (batches == 1)
    one, two = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert_close(two, one)
    assert two.scores()["case"].nunique() == 3
    if batches == 1:  # every rank computed the same
        assert curves(two) == curves(one)
    assert two.info["resources"]["devices"] == 2


def test_torchrun_starts_the_ranks_too(phantom: Path, undisturbed: Path, tmp_path: Path) -> None:
    words = words_on(phantom, tmp_path)
    code, said = ended(start(words, "torch.distributed.run", "--standalone", "--nproc-per-node", "2"))
    assert code == 0, said
    assert_close(only_run(tmp_path), only_run(undisturbed))


def ranks_of(process: subprocess.Popen) -> dict[int, psutil.Process]:
    """Return rank -> process, once both ranks train."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            number = child.environ().get("RANK")
        except psutil.Error:
            continue
        if number is not None and "segexp" in " ".join(child.cmdline()):
            found.setdefault(int(number), child)
    return found


def training(process: subprocess.Popen, outputs: Path) -> dict[int, psutil.Process]:
    """Wait until a run of two ranks has saved a checkpoint; return its ranks."""
    deadline = time.monotonic() + 200
    while not list(outputs.glob("runs/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.1)
    return ranks_of(process)


LONG = ("steps=3000", "validate_every=3000", "trainer.accumulate_grad_batches=2", "callbacks.checkpoint.every_steps=5",
        "trainer.log_every_n_steps=100")


def test_a_killed_rank_ends_the_others(phantom: Path, tmp_path: Path) -> None:
    process = start(words_on(phantom, tmp_path, *LONG, *DDP))
    ranks = training(process, tmp_path)
    assert set(ranks) == {0, 1}
    ranks[1].send_signal(signal.SIGKILL)
    started = time.monotonic()
    code, said = ended(process, 60)
    assert code not in (0, 143) and time.monotonic() - started < 60
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks.values())
    assert only_run(tmp_path).status in ("failed", "interrupted"), said
    assert torch.load(only_run(tmp_path).checkpoint, weights_only=True)["global_step"] > 0


def test_a_signal_to_the_command_saves_all_ranks(phantom: Path, tmp_path: Path) -> None:
    process = start(words_on(phantom, tmp_path, *LONG, *DDP))
    training(process, tmp_path)
    process.send_signal(signal.SIGUSR2)
    code, said = ended(process, 60)
    assert code == 143, said
    assert only_run(tmp_path).status == "preempted", said


@pytest.mark.parametrize(("batches", "ranks", "mine"), [(1, 1, 1), (4, 2, 2), (4, 4, 1), (1, 2, 1), (3, 2, 3)])
def test_the_batches_of_a_step_are_shared_or_all_taken(batches: int, ranks: int, mine: int) -> None:
    assert share(batches, ranks) == mine


@pytest.mark.parametrize(("batches", "ranks"), [(2, 2), (4, 2), (6, 3)])
def test_the_ranks_of_a_step_take_the_samples_of_one_process(batches: int, ranks: int) -> None:
    alone = list(StepSampler(steps=5, batch_size=3, batches=batches))
    dealt = [list(StepSampler(steps=5, batch_size=3, rank=rank, world_size=ranks, batches=batches // ranks))
             for rank in range(ranks)]
    mine = batches // ranks
    together = [batch for step in range(5) for part in dealt for batch in part[step * mine:(step + 1) * mine]]
    assert together == alone
    late = StepSampler(steps=5, batch_size=3, start_step=2, rank=1, world_size=ranks, batches=mine)
    assert list(late) == dealt[1][2 * mine:] and len(late) == 5 * mine


@pytest.mark.parametrize(("devices", "expected"), [(2, 2), ("3", 3), ([0, 2], 2), ("auto", 1)])
def test_devices_are_counted(devices: object, expected: int) -> None:
    assert devices_of(OmegaConf.create({"trainer": {"devices": devices, "accelerator": "cpu"}})) == expected


def test_nonsense_devices_are_answered() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=many"):
        devices_of(OmegaConf.create({"trainer": {"devices": "many", "accelerator": "cpu"}}))


def test_one_of_two_starts_of_the_same_run_wins(phantom: Path, tmp_path: Path) -> None:
    words = words_on(phantom, tmp_path, "steps=400", "validate_every=400")
    processes = [start(words) for _ in range(2)]
    results = [ended(process) for process in processes]
    assert sorted(code for code, _ in results) == [0, 5], results
    assert "is being written by another process" in next(text for code, text in results if code == 5)
    assert only_run(tmp_path).status == "done"
