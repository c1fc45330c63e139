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
        assert main(["train", f"experiment={experiment}", "scale=smoke", "trainer=cpu", f"paths.outputs={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def localizer(outputs: Path) -> Path:
    """Return the outputs folder with the finder of kidneys, whose images are resampled to 4 mm."""
    assert main(["phantom", "data=kidney_cta", "scale=smoke", "phantom.kind=ct", "phantom.cases=4", "phantom.test=0",
                 "phantom.broken=0", "phantom.processes=1", f"output={outputs}/phantoms/kidney_ct_smoke",
                 f"paths.outputs={outputs}"]) == 0
    assert main(["train", "experiment=kidney_ppm/localizer", "scale=smoke", "trainer=cpu", "steps=4",
                 "validate_every=4", f"paths.outputs={outputs}"]) == 0
    return outputs


def words(outputs: Path, run: str, form: str, *more: str) -> list[str]:
    """Return the words that export a run."""
    return ["export", f"run={run}-seed1", f"format={form}", f"paths.outputs={outputs}", *more]
