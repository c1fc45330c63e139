"""A phantom at smoke scale, made once, and the shortest training there is."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.sweeps.manifest import list_sweeps

REPOSITORY = Path(__file__).resolve().parents[2]

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


def begin(line: list[str]) -> "subprocess.Popen[str]":
    """Start ``segexp <line>`` as a process of its own, in a session of its own as from a terminal."""
    return subprocess.Popen([sys.executable, "-m", "segexp", *line], cwd=REPOSITORY, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(what: Callable[[], object], process: "subprocess.Popen[str] | None" = None, seconds: float = 120) -> None:
    """Wait until ``what()`` is true; ``process`` must live that long."""
    until = time.monotonic() + seconds
    while not what():
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.002)


def submissions(outputs: Path) -> list[str]:
    """Return the ids of the jobs that were submitted, in order."""
    return [event["job"] for sweep in list_sweeps(outputs) for event in sweep.events()
            if event["event"] == "submitted"]
