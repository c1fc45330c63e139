from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.data import nifti, read_image_case
from tests.data.heads import ROOT

REAL = ROOT.parent / "shared" / "real" / "brain"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not REAL.is_dir(), reason=f"no real heads at {REAL}")]


def test_a_real_head_is_read_and_its_voxels_stay_in_place(tmp_path):
    path = REAL / "T1w_head.nii.gz"
    volume = nifti.read(path)
    original = nib.load(path)
    assert volume.array.dtype == np.uint8 and volume.array.shape == (188, 256, 190)
    assert volume.spacing == pytest.approx((0.88, 0.88, 0.88))
    np.testing.assert_array_equal(volume.array, np.asarray(original.dataobj))
    image = read_image_case(path)["image"]
    assert abs(float(image.mean())) < 1e-3 and abs(float(image.std()) - 1) < 1e-3


@pytest.mark.parametrize("name", ["seg_01.nii.gz", "seg_09.nii.gz"])  # float32 with both forms, int32 with sform only
def test_real_label_maps_round_trip_through_canonical_order(tmp_path, name):
    path = Path(REAL / name)
    volume = nifti.read_labels(path)
    original = nib.load(path)
    assert nib.aff2axcodes(original.affine) == ("L", "I", "A")
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    # Left cerebral white matter (2) lies to the left of the right one (41).
    left, right = (np.argwhere(volume.array == value)[:, 0].mean() for value in (2, 41))
    assert left < right
    nifti.write_labels(tmp_path / "out.nii.gz", volume.array, volume.source)
    written = nib.load(tmp_path / "out.nii.gz")
    assert written.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(original.dataobj))
    np.testing.assert_array_equal(written.affine, original.affine)
    for code in ("sform_code", "qform_code"):
        assert written.header[code] == original.header[code]
