"""One phantom at smoke scale, and trainings on it that are compared bit for bit."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from segexp.cli import main
from segexp.runs import Run, list_runs

STEPS = 8


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a phantom of UK Biobank and a cache that the first training fills."""
    folder = tmp_path_factory.mktemp("data")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"output={folder}/ukb", "phantom.processes=1",
                 "phantom.broken=0"]) == 0
    return folder


def words_on(phantom: Path, outputs: Path, *more: str) -> list[str]:
    """Return the command line that trains below ``outputs``: 8 steps, validated and saved in different rhythms."""
    roots = [f"data.{key}={phantom}/ukb/{name}" for key, name in
             (("root", "bulk"), ("derived_root", "derived"), ("truth_root", "truth"))]
    return ["train", "experiment=neuronet/nn_tissue", "method/targets=fsl_fast", "scale=smoke", "trainer=cpu",
            f"paths.outputs={outputs}", f"data.cache={phantom}/cache", "threads=1", f"steps={STEPS}",
            "validate_every=4", "callbacks.checkpoint.every_steps=3", "trainer.log_every_n_steps=1",
            "--allow-target", "tests.runs.faults.", "+callbacks.order._target_=tests.runs.faults.Order",
            f"+callbacks.order.file={outputs}/order.txt", *roots, *more]


def strike(name: str, step: int, moment: str = "step", rank: int = 0) -> list[str]:
    """Return the words that pull the plug."""
    values = {"_target_": "tests.runs.faults.Strike", "name": name, "step": step, "moment": moment, "rank": rank}
    return [f"+callbacks.strike.{key}={value}" for key, value in values.items()]


def only_run(outputs: Path) -> Run:
    """Return the one run below a folder."""
    (run,) = list_runs(outputs)
    return run


@pytest.fixture(scope="session")
def undisturbed(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the outputs of a run that nothing disturbed."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert main(words_on(phantom, outputs)) == 0
    return outputs


def assert_same(outputs: Path, reference: Path) -> None:
    """Compare weights, optimiser, scores, curves and the order of samples of two finished runs, bit for bit."""
    mine, theirs = only_run(outputs), only_run(reference)
    assert mine.status == "done" and mine.hash == theirs.hash
    kept, known = (torch.load(run.checkpoint, weights_only=True) for run in (mine, theirs))
    assert kept["global_step"] == known["global_step"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert flat(kept[key]) == flat(known[key]), key
    rows = [run.scores().query("metric != 'predict_seconds'").reset_index(drop=True) for run in (mine, theirs)]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    assert curves(mine) == curves(theirs)
    assert order(outputs) == order(reference)


def flat(value: object, where: str = "") -> dict[str, object]:
    """Return nested containers as path -> plain value, tensors as their bytes."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)  # type: ignore[assignment]
    elif isinstance(value, torch.Tensor):
        return {where: value.numpy().tobytes()}
    else:
        return {where: value}
    return {path: leaf for key, child in items for path, leaf in flat(child, f"{where}.{key}").items()}


def curves(run: Run) -> str:
    """Return the curves without the one that holds seconds."""
    table = pd.read_csv(run.path / "metrics" / "metrics.csv", dtype=str)
    return table.drop(columns=[name for name in table if "seconds" in name]).to_csv()


def order(outputs: Path) -> dict[str, str]:
    """Return step -> samples as they were taken last; a step that was taken twice must have had the same."""
    taken: dict[str, str] = {}
    for line in (outputs / "order.txt").read_text().splitlines():
        step, _, samples = line.partition(" ")
        assert taken.setdefault(step, samples) == samples, f"step {step} was taken again with other samples"
    return taken
