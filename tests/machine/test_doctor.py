"""``segexp doctor`` on this machine, with a torch that is broken, and in folders where nothing works."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.machine import facts, probes


def test_this_machine_is_examined_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", f"paths.outputs={tmp_path}/not/there/yet", "format=json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert {one["level"] for one in found} <= {"ok", "warn", "fail"}
    topics = {one["topic"] for one in found}
    assert topics >= {"python", "torch", "versions", "cpu", "memory", "outputs", "temporary", "threads", "gpu",
                      "precision", "layout", "slurm", "git", "wandb", "open files", "shared memory", "browser"}
    assert any("a bfloat16 convolution takes" in one["text"] for one in found)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_torch_does_not_break_the_doctor(tmp_path: Path) -> None:
    """Real files on the path: a torchvision of another build raises this in its import."""
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "segexp", "doctor", f"paths.outputs={tmp_path}/outputs"],
                          env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "fail  torch" in done.stdout and "made for another build of torch" in done.stdout
    assert "1 wrong" in done.stdout and "precision" in done.stdout


def test_help_is_there_before_torch_is() -> None:
    started = time.monotonic()
    code = "import sys; from segexp.cli import main; main(['doctor', '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "segexp doctor" in done.stdout and time.monotonic() - started < 20


@pytest.mark.parametrize("words", [["fromat=json"], ["format=yaml"], ["measure=perhaps"], ["quick"]])
def test_mistakes_are_answered(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", *words]) == 2
    assert words[0].partition("=")[0] in capsys.readouterr().err


def test_locks_that_exclude_nobody_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probes.place(tmp_path).problems == ()
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # a mount with nolock answers like this
    assert probes.place(tmp_path).problems == ("flock excludes nobody: two processes could write one run",)

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert probes.place(tmp_path).problems == ("flock does not work: Operation not supported",)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    found = probes.place(Path("/proc/nothing"))
    assert found.problems and "cannot be written" in found.problems[0]


def test_a_fresh_facts_run_never_raises() -> None:
    assert facts.cpu().cores >= 1 and facts.memory().total_gb > 0 and facts.packages()["torch"]
    assert "WANDB_API_KEY" not in facts.tools().environment or facts.tools().environment["WANDB_API_KEY"] == "set"


def test_training_in_a_slow_precision_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    from segexp.machine import precision

    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))
    assert main(["train", "experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "trainer.precision=bf16-mixed",
                 f"paths.outputs={tmp_path}"]) == 2
    assert "force_precision=true" in capsys.readouterr().err and not (tmp_path / "runs").exists()
