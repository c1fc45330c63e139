"""``segexp train``: a run explains itself, is done once, goes on after a kill, and sweeps."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from segexp.cli import main
from segexp.runs import get_run, list_runs
from tests.end_to_end.conftest import train_words


def test_the_directory_explains_the_run(outputs: Path) -> None:
    run = get_run(outputs, "nn_tissue-seed1")
    info = run.info
    assert info["status"] == run.status == "done"
    assert info["phantom"] is True and info["scale"] == "smoke" and info["steps"] == 4
    assert {"torch", "pytorch-lightning", "monai"} <= set(info["packages"])
    assert info["data_fingerprint"] and info["resources"]["peak_memory_gb"] > 0
    assert run.config()["network"]["targets"] == {"fsl_fast": 4, "spm_tissue": 4, "malp_em_tissue": 6}
    split = pd.read_csv(run.path / "split.csv")
    assert split["split"].value_counts().to_dict() == {"train": 4, "test": 3, "validation": 1}
    assert "val/dice" in pd.read_csv(run.path / "metrics" / "metrics.csv").columns
    assert list((run.path / "figures").glob("test_*_spm_tissue.png"))
    assert "phantom" in (run.path / "report.html").read_text().lower()
    assert torch.load(run.checkpoint, weights_only=True)["global_step"] == 4


def test_scores_are_tidy_and_hold_tool_and_truth(outputs: Path) -> None:
    scores = get_run(outputs, "nn_tissue-seed1").scores()
    assert set(scores["metric"]) == {"dice", "dice_truth", "tool_dice_truth", "predict_seconds"}
    assert set(scores["target"].dropna()) - {""} == {"fsl_fast", "spm_tissue", "malp_em_tissue"}
    assert scores["case"].nunique() == 3
    # SPM agrees with the truth on an upright head and fails on the rotated one.
    tool = scores[(scores.metric == "tool_dice_truth") & (scores.target == "spm_tissue")]
    spm = tool.groupby("group")["value"].mean()
    assert spm["clean"] > 0.8 > 0.4 > spm["rotated+failed_spm_tissue"]


def test_the_same_line_again_says_done(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in get_run(outputs, "nn_tissue").path.rglob("*")}
    assert main(train_words(outputs, "data.workers=1", "name=other")) == 0
    assert "done already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in get_run(outputs, "nn_tissue").path.rglob("*")}


def test_a_killed_run_goes_on_to_the_same_weights(outputs: Path, tmp_path: Path) -> None:
    data = [f"data.{key}={outputs}/phantoms/ukbiobank_smoke/{folder}" for key, folder in
            (("root", "bulk"), ("derived_root", "derived"), ("truth_root", "truth"))]
    more = [*data, "steps=60", "validate_every=1000", "callbacks.checkpoint.every_steps=5",
            f"data.cache={tmp_path}/cache", "threads=1"]
    words = train_words(tmp_path / "killed", *more)
    process = subprocess.Popen([sys.executable, "-m", "segexp", *words], stdout=subprocess.DEVNULL,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    checkpoints = tmp_path / "killed" / "runs" / "neuronet"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/checkpoints/last.ckpt")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = list_runs(tmp_path / "killed")[0]
    assert killed.status == "interrupted"
    step = torch.load(killed.checkpoint, weights_only=True)["global_step"]
    assert 0 < step < 60
    assert main(words) == 0
    assert main(train_words(tmp_path / "whole", *more)) == 0
    assert f"goes on from step {step}" in (killed.path / "log.txt").read_text()
    weights = [torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in
               (killed, list_runs(tmp_path / "whole")[0])]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_changed_data_are_noticed(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["phantom", "data=ukbiobank", "scale=smoke", "phantom.seed=7", "phantom.broken=0",
                 f"output={tmp_path}/other"]) == 0
    roots = [f"data.root={tmp_path}/other/bulk", f"data.derived_root={tmp_path}/other/derived",
             f"data.truth_root={tmp_path}/other/truth"]
    capsys.readouterr()
    assert main(train_words(outputs, *roots)) == 3
    assert "tag=" in capsys.readouterr().err
    assert get_run(outputs, "nn_tissue-seed1").status == "done"


def test_a_sweep_trains_every_combination(outputs: Path) -> None:
    assert main(train_words(outputs, "-m", "seed=5,6", "steps=1")) == 0
    assert {run.info["seed"] for run in list_runs(outputs) if run.info["steps"] == 1} == {5, 6}


@pytest.mark.parametrize(("words", "message"), [
    (["network.varant=paper"], "variant"),
    (["experiment=neuronet/nn_al"], "neuronet/nn_all"),
    (["trainer=gppu"], "gpu"),
    (["seed=1,2"], "-m"),
    (["data.root=/nowhere"], "/nowhere"),
])
def test_typos_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str) -> None:
    named = [word.partition("=")[0] for word in words]
    given = [word for word in train_words(tmp_path) if word.partition("=")[0] not in named]
    assert main([*given, *words]) in (2, 3)
    assert message in capsys.readouterr().err
    assert not list_runs(tmp_path) or list_runs(tmp_path)[0].status == "failed"


def test_wandb_failing_changes_nothing(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training with a broken wandb reaches the same weights as without one."""
    import wandb

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no server")

    monkeypatch.setattr(wandb, "init", broken)
    assert main(train_words(outputs, "logger=wandb", f"paths.outputs={tmp_path}",
                            f"data.root={outputs}/phantoms/ukbiobank_smoke/bulk",
                            f"data.derived_root={outputs}/phantoms/ukbiobank_smoke/derived",
                            f"data.truth_root={outputs}/phantoms/ukbiobank_smoke/truth")) == 0
    weights = [torch.load(get_run(folder, "nn_tissue-seed1").checkpoint, weights_only=True)["state_dict"]
               for folder in (outputs, tmp_path)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
