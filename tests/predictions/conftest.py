"""One run trained in seconds, and folders of small images for it."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.cli import main


def train_words(outputs: Path, seed: int) -> list[str]:
    return ["train", "experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "steps=1", f"seed={seed}",
            f"paths.outputs={outputs}"]


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an outputs folder with a phantom and a finished run of it."""
    folder = tmp_path_factory.mktemp("outputs")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"paths.outputs={folder}", "phantom.processes=1"]) == 0
    assert main(train_words(folder, 1)) == 0
    return folder


@pytest.fixture(scope="session")
def head(outputs: Path) -> nib.Nifti1Image:
    """Return a small head."""
    return nib.load(next(outputs.glob("phantoms/*/bulk/9000001*/T1/T1.nii.gz"))).slicer[8:40, 8:40, 8:40]


@pytest.fixture
def heads(tmp_path: Path, head: nib.Nifti1Image) -> Path:
    """Return a folder with images of eleven subjects: with sessions, of odd shapes, two of them damaged."""
    folder = tmp_path / "heads"
    folder.mkdir()
    voxels = np.asarray(head.dataobj)
    for number in range(8):
        write(folder / f"sub-{number:02d}_T1w.nii.gz", np.roll(voxels, number, 0)[: 32 - number % 3], head)
    for session in (1, 2):
        write(folder / f"sub-two_ses-{session}_T1w.nii.gz", np.roll(voxels, session, 1), head)
    good = (folder / "sub-00_T1w.nii.gz").read_bytes()
    (folder / "sub-cut_T1w.nii.gz").write_bytes(good[: len(good) // 2])
    nan = voxels.astype(np.float32)
    nan[3, 3, 3] = np.nan
    write(folder / "sub-nan_T1w.nii.gz", nan, head)
    return folder


def write(path: Path, voxels: np.ndarray, like: nib.Nifti1Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, like.affine), path)


def words(outputs: Path, source: Path, output: Path, *more: str) -> list[str]:
    return ["predict", "run=nn_tissue-seed1", f"input={source}", f"output={output}", f"paths.outputs={outputs}",
            "device=cpu", *more]


def results(output: Path) -> dict[str, bytes]:
    """Return every file of an output folder by name: there is nothing but results."""
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in sorted(output.rglob("*"))
            if path.is_file()}


def process(call: Callable[[], int]) -> multiprocessing.Process:
    """Start a process of its own that exits with what ``call`` returns; forked, so that it need not import torch."""
    def body() -> None:
        import torch

        torch.set_num_threads(1)
        os._exit(call())

    started = multiprocessing.get_context("fork").Process(target=body)
    started.start()
    return started
