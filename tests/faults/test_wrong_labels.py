"""Row 13: labels that cannot be right are found before training starts, with values and numbers of voxels."""

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.cli import main
from segexp.errors import DataError
from tests.data.heads import AFFINE, SHAPE, Folder, arrays, bulk_id, write

MAP = "malp_em"


def wrong_value(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.copy()
    array[:2, 0, 0] = 999
    array[3, 0, 0] = 1000
    return array, AFFINE


def negative(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.copy()
    array[0, 0, :3] = -4
    return array, AFFINE


def fractions(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.astype(np.float32)
    array[0, 0, :5] += 0.5
    return array, AFFINE


def not_a_number(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    array = array.astype(np.float32)
    array[0, 0, :7] = np.nan
    return array, AFFINE


def other_shape(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array[:-1], AFFINE


def moved(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine = AFFINE.copy()
    affine[1, 3] += 3
    return array, affine


def flipped(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array, np.diag([-1.0, 1, 1, 1]) @ AFFINE


def other_sizes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array, AFFINE @ np.diag([1, 1, 1.1, 1])


def nothing(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array * 0, AFFINE


FAULTS = {
    wrong_value: "values 999 (2 voxels), 1000 (1 voxel) not in the label map of malp_em (it declares 0..138)",
    negative: "value -4 (3 voxels) not in the label map",
    fractions: "5 voxels of this label map are not whole numbers",
    not_a_number: "7 voxels of this label map are NaN or infinite",
    other_shape: "the label map has 13 x 16 x 12 voxels, the image 14 x 16 x 12",
    moved: "lies up to 3 mm away from the image",
    flipped: "mm away from the image",
    other_sizes: "mm away from the image",
    nothing: "every voxel is background",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_wrong_label_map_never_reaches_training(tmp_path: Path, fault: object) -> None:
    folder = Folder(tmp_path)
    made = [folder.add(bulk_id(number), seed=number) for number in range(4)]
    write(folder.path(bulk_id(0), MAP), *fault(made[0][MAP]))
    datamodule = folder.module()
    manifest = datamodule.check()
    report = next(one for one in manifest.reports if one.listed.id == bulk_id(0))
    assert report.status == "rejected" and FAULTS[fault] in report.reason, report.reason
    assert manifest.usable == 3
    datamodule = folder.module()
    datamodule.prepare_data()
    datamodule.setup()
    assert bulk_id(0) not in {case for case, _, _ in datamodule.split_table()}


def test_float_files_with_whole_values_are_labels(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for number in range(3):
        made = folder.add(bulk_id(number), seed=number)
        write(folder.path(bulk_id(number), MAP), made[MAP].astype(np.float64))
    assert folder.module().check().counts == {"ok": 3, "warning": 0, "rejected": 0}


def test_where_no_case_is_left_training_does_not_start(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for number in range(3):
        write(folder.path(bulk_id(number), MAP), *wrong_value(folder.add(bulk_id(number), seed=number)[MAP]))
    with pytest.raises(DataError, match=r"none of the 3 cases can be used:\n.*999 \(2 voxels\)"):
        folder.module().prepare_data()


def test_a_hundred_subjects_are_checked_within_a_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path)
    made = arrays(1)
    for number in range(100):
        for what, array in made.items():
            path = folder.path(bulk_id(number), what)
            path.parent.mkdir(parents=True, exist_ok=True)
            array = array.copy()
            array[5, 5, 5] = number if what == "image" else array[5, 5, 5]  # no two images are copies
            image = nib.Nifti1Image(array, AFFINE)
            path.write_bytes(nib.Nifti1Image.to_bytes(image))
    faults = list(FAULTS)
    for number, fault in enumerate(faults):
        write(folder.path(bulk_id(number), MAP), *fault(made[MAP]))
    assert made["image"].shape == SHAPE
    words = ["check", "data=ukbiobank", f"data.root={folder.root}", f"data.derived_root={folder.derived}",
             f"paths.outputs={tmp_path / 'outputs'}"]
    started = time.monotonic()
    assert main(words) == 0
    seconds = time.monotonic() - started
    said = capsys.readouterr().out
    assert f"100 cases: {100 - len(faults)} ok, 0 warning, {len(faults)} rejected" in said, said[-2000:]
    assert all(reason in said for reason in FAULTS.values())
    assert seconds < 60
    with capsys.disabled():
        print(f"\nsegexp check of 100 small subjects, 600 files: {seconds:.1f} s, all {len(faults)} faults")
