"""Row 11: strange files of images give a typed error with the file and the reason, or a repair that is documented."""

import gzip
import random
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.data import nifti
from segexp.data.cache import Cache
from segexp.data.cases import Listed
from segexp.data.checks import Examination, Rules
from segexp.data.labelmap import LabelMap
from segexp.data.whole_cases import read_image_case
from segexp.errors import DataError
from tests.faults.images import packed, raw, voxels, written

NAN, INF = float("nan"), float("inf")


def header(*changes: tuple[int, str, tuple[float, ...]], content: bytes | None = None) -> bytes:
    """Return a file with values packed into its header: (offset, format, values)."""
    data = bytearray(content or raw())
    for offset, form, values in changes:
        struct.pack_into(form, data, offset, *values)
    return bytes(data)


def holding(value: float, dtype: str = "<f4") -> bytes:
    array = voxels(dtype=dtype)
    array[1, 2, 3] = value
    return raw(array)


RGB = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
REFUSED = {
    "NaN": (holding(NAN), "1 of 13440 voxels are NaN or infinite"),
    "infinite": (holding(-INF), "1 of 13440 voxels are NaN or infinite"),
    "all NaN": (raw(voxels(dtype="<f4") * np.float32(NAN)), "13440 of 13440 voxels"),
    "beyond float32": (holding(1e300, "<f8"), "NaN or infinite"),
    "4D": (raw(np.stack([voxels(), voxels()], -1)), r"4 dimensions \(24, 28, 20, 2\)"),
    "2D": (raw(voxels()[0]), "2 dimensions"),
    "empty": (b"", "the file is empty"),
    "constant": (raw(voxels() * 0 + 3), "every voxel has the value 3"),
    "zero affine": (header((280, "<12f", (0,) * 12)), "affine is zero"),
    "NaN affine": (header((280, "<12f", (NAN,) * 12)), "affine is zero"),
    "infinite affine": (header((280, "<f", (INF,))), "not finite"),
    "zero voxel sizes": (header((252, "<hh", (1, 0)), (80, "<3f", (0, 0, 0))), "not usable"),
    "NaN voxel size": (header((252, "<hh", (1, 0)), (80, "<f", (NAN,))), "not usable"),
    "no placement": (header((252, "<hh", (0, 0))), "left and right are unknown"),
    "complex": (raw(voxels().astype(np.complex64)), "complex voxels"),
    "RGB": (raw(RGB), "RGB voxels"),
    "long double": (header((70, "<hh", (1536, 128)), content=raw(voxels(dtype="<f8"))), ""),
    "zero dimension": (header((42, "<h", (0,))), "without voxels"),
    "all dimensions zero": (header((40, "<8h", (0,) * 8)), ""),
    "negative dimension": (header((42, "<h", (-9,))), "without voxels"),
    "nine dimensions": (header((40, "<h", (9,))), ""),
    "huge dimensions": (header((42, "<3h", (32767,) * 3)), "cut off"),
    "infinite slope": (header((112, "<ff", (INF, 0))), ""),
    "NaN intercept": (header((112, "<ff", (2, NAN))), ""),
    "negative offset": (header((108, "<f", (-1e9,))), ""),
    "infinite offset": (header((108, "<f", (INF,))), ""),
    "NaN offset": (header((108, "<f", (NAN,))), ""),
    "offset beyond the end": (header((108, "<f", (1e9,))), ""),
    "unknown type": (header((70, "<h", (999,))), ""),
    "no type": (header((70, "<h", (0,))), ""),
    "text": (b"subject,age\n" * 100, "not a NIfTI file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), "not a NIfTI file"),
    "DICOM": (bytes(128) + b"DICM" + bytes(500), "not a NIfTI file"),
    "gzip in gzip": (gzip.compress(raw()), ""),
    "header alone": (raw()[:352], "cut off"),
    "half a header": (raw()[:100], ""),
    "one byte": (b"\x5c", "not a NIfTI file"),
}
REPAIRED = {
    "slope zero": header((112, "<ff", (0, 7))),
    "slope NaN": header((112, "<ff", (NAN, 7))),
    "negative voxel size beside an sform": header((80, "<f", (-1.0,))),
    "trailing singleton": raw(voxels()[..., None]),
    "bytes after the voxels": raw() + b"trailer",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_refused_with_file_and_reason(name: str, ending: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    path = written(tmp_path / f"head{ending}", packed(content) if ending == ".nii.gz" and content else content)
    if name == "gzip in gzip" and ending == ".nii":
        assert nifti.read(path).array.shape == (24, 28, 20)  # the bytes decide, not the name
        return
    for read in (nifti.read, read_image_case):
        with pytest.raises(DataError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value) and len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", REPAIRED)
def test_repaired_as_documented(name: str) -> None:
    found = nifti.read("a.nii", REPAIRED[name])
    np.testing.assert_array_equal(nifti.restore(found.array, found.source), voxels())
    assert found.spacing == pytest.approx((1.0, 1.5, 2.0))


def test_the_bytes_decide_whatever_the_name_says(tmp_path: Path) -> None:
    for name, content in (("packed.nii", packed(raw())), ("plain.nii.gz", raw())):
        np.testing.assert_array_equal(nifti.read(written(tmp_path / name, content)).array, nifti.read("a", raw()).array)


def test_folders_and_files_that_cannot_be_read_are_typed(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").mkdir()
    for path in (tmp_path / "x.nii.gz", tmp_path / "absent.nii.gz", tmp_path / "a.nii.gz" / "b.nii.gz"):
        with pytest.raises(DataError, match=re.escape(str(path))):
            nifti.read(path)
    (tmp_path / "loop.nii.gz").symlink_to(tmp_path / "loop.nii.gz")
    with pytest.raises(DataError, match=r"loop\.nii\.gz"):
        nifti.read(tmp_path / "loop.nii.gz")
    listed = Listed("1", "1", tmp_path / "x.nii.gz", {})
    maps = {"t": LabelMap.from_mapping("t", {0: "background", 1: "x"})}
    report = Examination(listed, Rules(maps, ("t",), frozenset()), Cache(tmp_path / "cache")).report()
    assert report.status == "rejected" and "x.nii.gz" in report.reason


def mutations(count: int, seed: int) -> tuple[int, int]:
    """Read files whose headers were changed at random; return how many were refused and how many were read."""
    generator, refused, read = random.Random(seed), 0, 0
    small = voxels(shape=(5, 6, 7))
    whole = [raw(small), raw(small, kind=nib.Nifti2Image), raw(small.astype(">f4"))]
    for _ in range(count):
        content = bytearray(generator.choice(whole))
        for _ in range(generator.randint(1, 4)):
            position = generator.randrange(540 if content[0] == 28 or content[3] == 28 else 352)
            content[position] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
        path = "head.nii"
        for reader in (nifti.read, nifti.read_labels):
            try:
                volume = reader(path, bytes(content))
            except DataError as error:
                assert path in str(error)
                refused += 1
                continue
            read += 1
            assert volume.array.ndim == 3 and np.isfinite(volume.affine).all() and min(volume.spacing) > 0
            assert volume.array.dtype.kind in "iuf" and np.isfinite(volume.array).all()
    return refused, read


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_header_is_read_or_refused_never_a_traceback() -> None:
    refused, read = mutations(300, seed=3)
    assert refused > 20 and read > 20


@pytest.mark.long_faults
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_ten_thousand_headers() -> None:
    refused, read = mutations(10_000, seed=4)
    print(f"\nheaders: {refused} of {refused + read} readings refused with a typed error, {read} usable, 0 tracebacks")
