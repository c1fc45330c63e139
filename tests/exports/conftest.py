"""Really trained runs at smoke scale, one per method, made once."""

from pathlib import Path

import pytest

from segexp.cli import main

EXPERIMENTS = {"nn_tissue": ("ukbiobank", "neuronet/nn_tissue"), "dice": ("wmh", "siamese/dice"),
               "fcn_ppm": ("kidney_cta", "kidney_ppm/fcn_ppm"), "trained_siamese": ("wmh", "siamese/trained_siamese")}


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an outputs folder with the smoke phantoms and a finished run of every method."""
    folder = tmp_path_factory.mktemp("exports")
    for data in ("ukbiobank", "wmh", "kidney_cta"):
        assert main(["phantom", f"data={data}", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    for _, experiment in EXPERIMENTS.values():
        assert main(["train", f"experiment={experiment}", "scale=smoke", "trainer=cpu", "scheduler=constant",
                     f"paths.outputs={folder}"]) == 0
    return folder


def words(outputs: Path, run: str, form: str, *more: str) -> list[str]:
    """Return the words that export a run."""
    return ["export", f"run={run}-seed1", f"format={form}", f"paths.outputs={outputs}", *more]
