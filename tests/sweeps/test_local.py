"""Jobs on this machine: GPUs dealt out, several ranks, parents before children, configurations that changed."""

import shutil
from pathlib import Path

import pytest
import yaml

from segexp.cli import main
from segexp.runs import list_runs
from segexp.sweeps.gpus import visible_gpus
from segexp.sweeps.manifest import list_sweeps
from tests.sweeps.faults import fault_words, gpus, starts

TABLE = """
title: Mine
source: Nobody 2026
runs:
  child: {{overrides: [{words}, tag=child], needs: [parent]}}
  parent: {{overrides: [{words}, tag=parent]}}
  grandchild: {{overrides: [{words}, tag=grandchild], needs: [child]}}
  other: {{overrides: [{words}, tag=other]}}
cell: {{metric: dice, target: fsl_fast, statistic: mean}}
rows: {{mean: {{}}}}
columns: {{all: {{run: parent}}}}
"""


def test_gpus_are_dealt_out(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs at a time, one on each of the two GPUs that there are said to be; jobs of the CPU see none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    auto = [word for word in words if word != "trainer=cpu"]
    fault = fault_words(tmp_path, "raise", only=99)
    assert main(["train", "-m", *auto, "seed=1,2", "hydra.launcher.gpus=[3,5]", *fault]) == 0
    assert sorted(gpus(tmp_path).values()) == ["3", "5"]
    assert main(["train", "-m", *auto, "seed=3", "hydra.launcher={gpus:[3,5],gpus_per_job:2}", *fault]) == 0
    assert gpus(tmp_path)[3] == "3,5"
    assert main(["train", "-m", *auto, "seed=4", "hydra.launcher.gpus=[3]", "hydra.launcher.gpus_per_job=2"]) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-x")
    assert visible_gpus() == ["1", "GPU-x"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_two_ranks_in_one_directory(words: list[str], tmp_path: Path) -> None:
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.accumulate_grad_batches=2"]
    assert main(["train", "-m", *words, *ranks, "seed=1"]) == 0
    assert [run.status for run in list_runs(tmp_path)] == ["done"]


def test_parents_before_children(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The parent fails: its children are not started and say so, the other run is done; then all is made good."""
    (tmp_path / "conf" / "table").mkdir(parents=True)
    quoted = ", ".join(f"'{word}'" for word in words if not word.startswith("paths."))
    (tmp_path / "conf" / "table" / "mine.yaml").write_text(TABLE.format(words=quoted))
    line = ["table", "run", "mine", f"paths.outputs={tmp_path}", "--config-dir", str(tmp_path / "conf")]
    bad = tmp_path / "bulk"
    with pytest.MonkeyPatch.context() as patch:
        # Only the parent's data are missing: a declaration of its own for this start.
        text = (tmp_path / "conf" / "table" / "mine.yaml").read_text()
        broken = text.replace("tag=parent]", f"tag=parent, data.root={bad}]")
        (tmp_path / "conf" / "table" / "mine.yaml").write_text(broken)
        patch.chdir(tmp_path)
        assert main(line) == 4
    said = capsys.readouterr()
    assert "parent seed 1: failed" in said.err
    assert "child seed 1: not started: parent parent seed 1 failed" in said.err
    assert "grandchild seed 1: not started: parent child seed 1 was not started" in said.err
    assert "other seed 1: done" in said.out
    (tmp_path / "conf" / "table" / "mine.yaml").write_text(text)
    assert main(line) == 0
    said = capsys.readouterr().out
    order = [said.index(f"{name} seed 1: done") for name in (" parent", " child", "grandchild")]
    assert order == sorted(order)
    assert main(line) == 0
    assert "4 runs, 4 of them done" in capsys.readouterr().out


def test_a_sweep_is_what_it_was_when_it_was_started(words: list[str], tmp_path: Path, phantom: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    """A job whose configuration fits the code no longer is named; data that moved are given by the line again."""
    fault = fault_words(tmp_path, "raise", only=2)
    line = ["train", "-m", *words, "seed=1,2", *fault]
    assert main(line) == 4
    sweep = list_sweeps(tmp_path)[0]
    job = next(job for job in sweep.jobs().values() if job.name == "seed=2")
    file = sweep.config_file(job.id)
    before = file.read_text()
    capsys.readouterr()
    resume = ["sweep", "resume", sweep.name, f"paths.outputs={tmp_path}", "--allow-target", "tests."]
    assert main(resume) == 4 and "seed=2: failed" in capsys.readouterr().err  # resume leaves what failed
    file.write_text(before.replace("sampling:\n", "sampling:\n  sise: 3\n"))
    retry = ["sweep", "retry", *resume[2:]]
    assert main(retry) == 4
    assert "sampling.sise" in capsys.readouterr().err
    assert main(retry[:-2]) == 4
    assert "--allow-target" in capsys.readouterr().err  # the sweep on disk grants nothing
    moved = tmp_path / "moved"
    shutil.copytree(phantom / "phantoms" / "ukbiobank_smoke", moved)
    root = [f"data.root={moved}/bulk", f"data.derived_root={moved}/derived", f"data.truth_root={moved}/truth"]
    kept = [word for word in line if not word.startswith(("data.root", "data.derived_root", "data.truth_root"))]
    assert main([*kept, *root]) == 0
    assert len(list_sweeps(tmp_path)) == 1 and {run.status for run in list_runs(tmp_path)} == {"done"}
    assert starts(tmp_path).count(1) == 1
    file.unlink()
    assert main(["sweep", "status", sweep.name, f"paths.outputs={tmp_path}"]) in (0, 4)


def test_one_configuration_by_hand(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """``--config`` trains a run's own record too, into the same run."""
    assert main(["train", *words, "seed=1"]) == 0
    run = list_runs(tmp_path)[0]
    capsys.readouterr()
    assert main(["train", "--config", str(run.path / "config.yaml")]) == 0
    assert f"{run.id} is done" in capsys.readouterr().out and len(list_runs(tmp_path)) == 1
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    (tmp_path / "second.yaml").write_text(yaml.safe_dump({**content, "seed": 2}))
    assert main(["train", "--config", str(tmp_path / "second.yaml")]) == 0
    assert sorted(run.info["seed"] for run in list_runs(tmp_path)) == [1, 2]


def test_hydras_own_launcher_works_and_says_what_it_does_not(words: list[str], tmp_path: Path,
                                                             capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "-m", *words, "seed=1,2", "hydra/launcher=basic"]) == 0
    assert "does not keep jobs apart" in capsys.readouterr().out
    assert [run.status for run in list_runs(tmp_path)] == ["done"] * 2
    with pytest.raises(SystemExit) as end:  # Hydra's
        main(["train", "-m", *words, "seed=3,4", "hydra/launcher=basic", "trainer.devices=2"])
    assert end.value.code == 1 and "use hydra/launcher=slurm" in capsys.readouterr().err
    assert len(list_runs(tmp_path)) == 2
