"""One phantom and one finished run at smoke scale, trained with every logger among secrets; made once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from segexp import tensors
from segexp.cli import main

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef0c4n4ry1",
    "AWS_SECRET_ACCESS_KEY": "c4n4ry/aws+Secret2example",
    "MADE_UP_LAB_TOKEN": "lab-c4n4ry-t0ken-3",
    "DATABASE_PASSWORD": "c4n4ry-passw0rd-4",
}
"""Environment variables that must not be seen in any file."""
URL_PASSWORD = "c4n4ry-in-an-address-5"


@dataclass(frozen=True)
class Trained:
    """A finished run below ``outputs``, the phantom that it was trained on, and what the commands printed."""

    outputs: Path
    run: Path
    images: Path


def words(outputs: Path, *more: str) -> list[str]:
    """Return the words that train the smallest run."""
    return ["train", "experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "data.workers=0", "steps=6",
            "validate_every=3", f"paths.outputs={outputs}", *more]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an outputs folder with the smoke phantom."""
    folder = tmp_path_factory.mktemp("outputs")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    return folder


@pytest.fixture(scope="session")
def trained(phantom: Path) -> Iterator[Trained]:
    """Return a finished run, trained with all loggers while the environment holds secrets."""
    before = dict(os.environ)
    os.environ.update(SECRETS)
    try:
        assert main(words(phantom, "logger=all")) == 0
    finally:
        os.environ.clear()
        os.environ.update(before)
    run = next((phantom / "runs" / "neuronet").iterdir())
    yield Trained(phantom, run, phantom / "phantoms" / "ukbiobank_smoke")


def elsewhere(trained: Trained, outputs: Path, *more: str) -> list[str]:
    """Return the words of the same run, with its directory below other outputs."""
    data = trained.images
    roots = [f"data.root={data / 'bulk'}", f"data.derived_root={data / 'derived'}", f"data.truth_root={data / 'truth'}"]
    return [*words(outputs, *roots), f"data.cache={trained.outputs / 'cache' / 'ukbiobank'}", *more]


def results(folder: Path) -> tuple[dict[str, torch.Tensor], str, str]:
    """Return weights, curves and scores of the only run below an outputs folder."""
    run = next((folder / "runs" / "neuronet").iterdir())
    rows = [line for line in (run / "scores.csv").read_text().splitlines() if "seconds" not in line]
    weights = tensors.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    return weights, (run / "metrics" / "metrics.csv").read_text(), "\n".join(rows)
