"""A phantom at smoke scale, made once, and the shortest training there is."""

from pathlib import Path

import pytest

from segexp.cli import main

SHORT = ("experiment=neuronet/single_fsl_fast", "scale=smoke", "trainer=cpu", "steps=1", "validate_every=1000",
         "~callbacks.overlays", "data.workers=0", "threads=1")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the smoke phantom, with its cache of decoded cases."""
    folder = tmp_path_factory.mktemp("phantom")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    return folder


@pytest.fixture
def words(phantom: Path, tmp_path: Path) -> list[str]:
    """Return the words of a short training whose outputs are this test's own."""
    root = phantom / "phantoms" / "ukbiobank_smoke"
    return [*SHORT, f"data.root={root}/bulk", f"data.derived_root={root}/derived", f"data.truth_root={root}/truth",
            f"data.cache={phantom}/cache", f"paths.outputs={tmp_path}"]
