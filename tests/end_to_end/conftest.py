"""One phantom and one trained run at smoke scale, made once per worker."""

from pathlib import Path

import pytest

from segexp.cli import main


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an outputs folder with the smoke phantom and a finished nn_tissue run."""
    folder = tmp_path_factory.mktemp("outputs")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    assert main(train_words(folder)) == 0
    return folder


def train_words(folder: Path, *more: str) -> list[str]:
    """Return the words that train nn_tissue at smoke scale."""
    return ["train", "experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", f"paths.outputs={folder}", *more]
