"""Row 10: a .nii.gz that was cut or has one wrong bit is refused, with the file, the reason and where in the file."""

import json
import random
import re
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from segexp.data import nifti
from segexp.data.whole_cases import read_image_case
from segexp.errors import DataError
from tests.data.heads import Folder
from tests.faults.images import packed, raw, voxels, written

FREE = range(4, 10)  # bytes of gzip's own header that say when, how and on what it was packed: nothing depends on them


def read_by_prediction(path: Path) -> None:
    read_image_case(path)


@pytest.mark.parametrize("read", [nifti.read, nifti.read_labels, read_by_prediction])
def test_cut_anywhere_is_refused_with_the_byte(tmp_path: Path, read: object) -> None:
    content = packed(raw())
    read(written(tmp_path / "head.nii.gz", content))
    for tenth in range(10):
        end = len(content) * tenth // 10
        path = written(tmp_path / f"cut{tenth}.nii.gz", content[:end])
        with pytest.raises(DataError, match=re.escape(str(path))) as caught:
            read(path)
        assert "empty" in str(caught.value) if tenth == 0 else f"ends at byte {end}" in str(caught.value)
    for last in (1, 4, 8):  # inside the checksum at the end
        with pytest.raises(DataError, match="cut off"):
            read(written(tmp_path / "end.nii.gz", content[:-last]))


def test_uncompressed_and_short_is_refused(tmp_path: Path) -> None:
    content = raw()
    for tenth in range(10):
        with pytest.raises(DataError, match=r"head\.nii"):
            nifti.read(written(tmp_path / "head.nii", content[: len(content) * tenth // 10]))


def flips(count: int, seed: int) -> tuple[int, int, list[int]]:
    """Flip ``count`` single bits; return how many were detected, how many changed nothing, and silent byte numbers."""
    whole = voxels()
    content = packed(raw(whole))
    expected = nifti.read("a.nii.gz", content)
    np.testing.assert_array_equal(nifti.restore(expected.array, expected.source), whole)
    detected, free, silent = 0, 0, []
    for position in random.Random(seed).sample(range(len(content) * 8), count):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        try:
            found = nifti.read("a.nii.gz", bytes(flipped))
        except DataError as error:
            assert str(error).startswith("a.nii.gz: ")
            assert "byte" in str(error)
            detected += 1
            continue
        same = np.array_equal(found.array, expected.array) and np.array_equal(found.affine, expected.affine)
        if same and position // 8 in FREE:
            free += 1
        else:
            silent.append(position // 8)
    return detected, free, silent


def test_single_bits() -> None:
    detected, free, silent = flips(50, seed=1)
    assert detected + free == 50 and not silent


@pytest.mark.long_faults
def test_a_thousand_single_bits() -> None:
    detected, free, silent = flips(1000, seed=2)
    print(f"\nbit flips: {detected} of 1000 refused, {free} in bytes that say nothing about the image, "
          f"{len(silent)} unnoticed")
    assert not silent and free < 5


def test_the_offset_is_where_the_damage_shows() -> None:
    content = bytearray(packed(raw()))
    content[2] = 99  # the method of compression
    with pytest.raises(DataError, match=r"at byte [23] of \d+"):
        nifti.read("a.nii.gz", bytes(content))
    content = bytearray(packed(raw()))
    content[-6] ^= 1  # the checksum: it is compared when its last byte is read
    with pytest.raises(DataError, match=rf"at byte {len(content) - 5} of {len(content)}.*incorrect data check"):
        nifti.read("a.nii.gz", bytes(content))


def test_a_second_member_cannot_hide_damage() -> None:
    content = packed(raw()[:5000]) + packed(raw()[5000:])
    np.testing.assert_array_equal(nifti.read("a.nii.gz", content).array, nifti.read("a.nii", raw()).array)
    for end in (len(content) - 1, len(content) - 2000, len(packed(raw()[:5000])) + 3):
        with pytest.raises(DataError):
            nifti.read("a.nii.gz", content[:end])
    with pytest.raises(DataError, match="at byte"):
        nifti.read("a.nii.gz", content + b"something else")


def test_a_file_that_swells_is_not_read_to_its_end() -> None:
    """1 MB that would become 1 GB."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(raw())]
    parts += [packer.compress(bytes(1 << 22)) for _ in range(256)]
    content = b"".join([*parts, packer.flush()])
    assert len(content) < 2_000_000
    started = time.monotonic()
    with pytest.raises(DataError, match="holds more than"):
        nifti.read("a.nii.gz", content)
    assert time.monotonic() - started < 10


def test_check_and_training_refuse_damaged_files_and_keep_the_others(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for number in range(6):
        folder.add(f"{1000 + number}_20252_2_0", seed=number)
    cut, flipped = folder.path("1000_20252_2_0", "image"), folder.path("1001_20252_2_0", "malp_em")
    cut.write_bytes(cut.read_bytes()[:-900])
    damaged = bytearray(flipped.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    flipped.write_bytes(damaged)
    manifest = folder.module().check()
    assert manifest.counts["rejected"] == 2 and manifest.usable == 4
    reasons = {report.listed.id: report.reason for report in manifest.reports if report.case is None}
    assert f"{cut}: cut off" in reasons["1000_20252_2_0"] and f"{flipped}: damaged" in reasons["1001_20252_2_0"]
    training = folder.module(split={"train": 2, "validation": 1, "test": 1})
    training.prepare_data()
    training.setup()
    used = {case for case, _, _ in training.split_table()}
    assert used == {f"{1000 + number}_20252_2_0" for number in range(2, 6)}
    assert json.dumps(manifest.rows())  # plain texts, all of them
