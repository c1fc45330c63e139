import gzip
import itertools
import random
import struct

import nibabel as nib
import numpy as np
import pytest

from segexp.data import nifti
from segexp.data.labelmap import LabelMap
from segexp.errors import DataError
from tests.data.heads import LABEL_MAPS

ARRAY = np.random.default_rng(0).integers(-50, 100, (5, 6, 7)).astype(np.int16)


def axes(order, signs, zooms=(1.0, 2.0, 3.0)):
    """Affine whose stored axis i runs along world axis order[i], in the direction signs[i]."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, (world, sign, zoom) in enumerate(zip(order, signs, zooms, strict=True)):
        affine[world, stored] = sign * zoom
    affine[:3, 3] = (-11, 7, 30)
    return affine


ALL_AXES = [(o, s) for o in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]


def test_there_are_48_axis_orders():
    assert len(ALL_AXES) == 48


@pytest.mark.parametrize(("order", "signs"), ALL_AXES)
def test_every_axis_order_is_canonical_in_memory_and_restored_on_disk(tmp_path, order, signs):
    affine = axes(order, signs)
    nib.save(nib.Nifti1Image(ARRAY, affine), tmp_path / "a.nii.gz")
    volume = nifti.read(tmp_path / "a.nii.gz")
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    reference = nib.as_closest_canonical(nib.load(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(volume.array, np.asarray(reference.dataobj))
    np.testing.assert_allclose(volume.affine, reference.affine)
    assert volume.spacing == pytest.approx(reference.header.get_zooms())
    np.testing.assert_array_equal(nifti.restore(volume.array, volume.source), ARRAY)
    # What is written lies on the source's voxels: same array order, same world positions.
    labels = (volume.array > 0).astype(np.int64)
    nifti.write_labels(tmp_path / "out.nii.gz", labels, volume.source)
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), ARRAY > 0)
    assert nifti.corner_distance(written.affine, affine, ARRAY.shape) < 1e-3
    np.testing.assert_array_equal(nifti.read_labels(tmp_path / "out.nii.gz").array, labels)


def test_oblique_files_keep_their_place_in_the_world(tmp_path):
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.9, 1.1, 1.3]
    affine[:3, 3] = 3, 4, 5
    nib.save(nib.Nifti1Image(ARRAY, affine), tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    nifti.write_labels(tmp_path / "out.nii", np.abs(volume.array), volume.source)
    written = nib.load(tmp_path / "out.nii")
    assert nifti.corner_distance(written.affine, affine, ARRAY.shape) < 1e-3
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.abs(ARRAY))


@pytest.mark.parametrize(("highest", "dtype"), [(3, "u1"), (255, "u1"), (256, "u2"), (70_000, "u4")])
def test_written_labels_have_the_smallest_type_no_scaling_and_the_sources_codes(tmp_path, highest, dtype):
    image = nib.Nifti1Image(ARRAY, axes((1, 0, 2), (1, -1, 1)))
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 1)
    image.header.set_slope_inter(2.0, 5.0)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a person"))
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    volume = nifti.read(tmp_path / "a.nii")
    labels = np.zeros(volume.array.shape, np.int64)
    labels[1, 2, 3] = highest
    nifti.write_labels(tmp_path / "out.nii.gz", labels, volume.source)
    written = nib.load(tmp_path / "out.nii.gz")
    assert written.get_data_dtype() == np.dtype(dtype)
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 1)
    assert not written.header.extensions
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_writing_refuses_other_shapes_and_suffixes(tmp_path):
    nib.save(nib.Nifti1Image(ARRAY, np.eye(4)), tmp_path / "a.nii")
    source = nifti.read(tmp_path / "a.nii").source
    with pytest.raises(DataError, match="does not fit"):
        nifti.write_labels(tmp_path / "out.nii", np.zeros((5, 6, 8), np.uint8), source)
    with pytest.raises(DataError, match=r"\.nii\.gz or \.nii"):
        nifti.write_labels(tmp_path / "out.mha", ARRAY * 0, source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii"]


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    raw = bytearray(nib.Nifti1Image(ARRAY, np.eye(4)).to_bytes())
    struct.pack_into("<ff", raw, 112, 0.5, -3.0)
    volume = nifti.read(tmp_path / "a.nii", bytes(raw))
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, ARRAY * 0.5 - 3)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_slope_zero_or_nan_means_not_scaled(slope):
    raw = bytearray(nib.Nifti1Image(ARRAY, np.eye(4)).to_bytes())
    struct.pack_into("<f", raw, 112, slope)
    np.testing.assert_array_equal(nifti.read("a.nii", bytes(raw)).array, ARRAY)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(kind, order):
    header = kind.header_class(endianness=order)
    volume = nifti.read("a.nii", kind(ARRAY.astype(f"{order}i2"), np.eye(4), header).to_bytes())
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, ARRAY)


def test_trailing_single_dimensions_are_dropped(tmp_path):
    nib.save(nib.Nifti1Image(ARRAY[..., None, None], axes((2, 0, 1), (1, 1, -1))), tmp_path / "a.nii.gz")
    volume = nifti.read(tmp_path / "a.nii.gz")
    assert volume.array.ndim == 3
    np.testing.assert_array_equal(nifti.restore(volume.array, volume.source), ARRAY)


def raw_file(array=ARRAY, affine=None, **header):
    raw = bytearray(nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes())
    for position, (form, *values) in header.items():
        struct.pack_into(form, raw, int(position[1:]), *values)
    return bytes(raw)


def with_value(value):
    array = ARRAY.astype(np.float32)
    array[1, 2, 3] = value
    return array


BAD = {
    "empty": (b"", "empty"),
    "text": (b"this is not an image at all" * 20, "not a NIfTI file"),
    "short header": (raw_file()[:200], "not a usable NIfTI file"),
    "short voxels": (raw_file()[:-1], "cut off"),
    "NaN": (raw_file(with_value(np.nan)), "1 of 210 voxels are NaN or infinite"),
    "infinite": (raw_file(with_value(np.inf)), "1 of 210 voxels are NaN or infinite"),
    "beyond float32": (raw_file(with_value(1.0).astype(np.float64) * 1e300), "NaN or infinite"),
    "constant": (raw_file(ARRAY * 0 + 7), "every voxel has the value 7"),
    "4D": (raw_file(np.stack([ARRAY, ARRAY], -1)), "4 dimensions"),
    "2D": (raw_file(ARRAY[0]), "2 dimensions"),
    "complex": (raw_file(ARRAY.astype(np.complex64)), "complex"),
    "RGB": (raw_file(np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "RGB"),
    "zero affine": (raw_file(p280=("<12f", *[0.0] * 12)), "affine is zero"),
    "NaN affine": (raw_file(p280=("<12f", *[float("nan")] * 12)), "affine is zero"),
    "flat affine": (raw_file(affine=np.eye(4), p280=("<4f", 0, 0, 0, 1)), "affine is zero"),
    "no affine": (raw_file(p252=("<hh", 0, 0)), "left and right are unknown"),
    "zero voxel size, qform only": (raw_file(p252=("<hh", 1, 0), p80=("<f", 0.0)), "qform is not usable"),
    "impossible quaternion": (raw_file(p252=("<hh", 1, 0), p256=("<3f", 2.0, 2.0, 2.0)), "not a usable NIfTI file"),
    "zero dimension": (raw_file(p42=("<h", 0)), "without voxels"),
    "negative dimension": (raw_file(p42=("<h", -3)), "without voxels"),
    "huge dimensions": (raw_file(p42=("<3h", 32767, 32767, 32767)), "cut off"),
    "infinite intercept": (raw_file(p112=("<ff", 1.0, float("inf"))), "not a usable NIfTI file"),
    "unknown type": (raw_file(p70=("<h", 999)), "not a usable NIfTI file"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("compressed", [False, True])
def test_bad_images_name_the_file_and_the_reason(tmp_path, name, compressed):
    content, reason = BAD[name]
    path = tmp_path / ("head.nii.gz" if compressed else "head.nii")
    path.write_bytes(gzip.compress(content) if compressed and content else content)
    with pytest.raises(DataError, match=reason) as caught:
        nifti.read(path)
    assert str(path) in str(caught.value)


def test_a_negative_voxel_size_counts_without_its_sign():
    raw = raw_file(affine=np.diag([-2.0, 2, 2, 1]), p252=("<hh", 1, 0), p80=("<f", -2.0))
    assert nifti.read("a.nii", raw).spacing == (2.0, 2.0, 2.0)


def test_absent_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        nifti.read(tmp_path / "none.nii.gz")


def test_cut_and_flipped_gzip_never_gives_other_voxels(tmp_path):
    content = gzip.compress(raw_file(), mtime=0)
    path = tmp_path / "a.nii.gz"
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(DataError):
            nifti.read(path)
    accepted = 0
    generator = random.Random(1)
    for position in generator.sample(range(len(content) * 8), 1000):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        try:
            volume = nifti.read(path, bytes(flipped))
        except DataError:
            continue
        # A few bits carry nothing: time and system in gzip's own header, or another way to say the same bytes.
        accepted += 1
        np.testing.assert_array_equal(volume.array, ARRAY)
    assert accepted < 80


def test_a_wrong_checksum_alone_is_refused():
    content = bytearray(gzip.compress(raw_file()))
    content[-6] ^= 1
    with pytest.raises(DataError, match=r"damaged compressed data at byte \d+ of \d+"):
        nifti.read("a.nii.gz", bytes(content))


def test_several_gzip_members_and_zero_padding_are_read():
    raw = raw_file()
    content = gzip.compress(raw[:300]) + gzip.compress(raw[300:]) + bytes(64)
    np.testing.assert_array_equal(nifti.read("a.nii.gz", content).array, ARRAY)


def test_sform_wins_and_a_disagreement_is_a_warning():
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    image.set_qform(np.eye(4), 1)
    volume = nifti.read("a.nii", image.to_bytes())
    assert volume.spacing == (2.0, 2.0, 2.0)
    assert volume.source.warning.startswith("sform and qform disagree by up to 8.775 mm")  # |(4, 5, 6)|
    image.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    assert nifti.read("a.nii", image.to_bytes()).source.warning == ""
    image.set_sform(None, 0)
    assert nifti.read("a.nii", image.to_bytes()).spacing == (2.0, 2.0, 2.0)


def test_float_labels_are_read_when_they_are_whole():
    labels = (ARRAY % 4).astype(np.float32)
    volume = nifti.read_labels("seg.nii", raw_file(labels))
    assert volume.array.dtype.kind == "i"
    np.testing.assert_array_equal(volume.array, ARRAY % 4)
    labels[0, 0, 0] = 1.5
    with pytest.raises(DataError, match=r"seg.nii: 1 voxels of this label map are not whole numbers \(1.5\)"):
        nifti.read_labels("seg.nii", raw_file(labels))


def test_a_constant_label_map_is_readable():
    label_map = LabelMap.from_mapping("fsl_fast", LABEL_MAPS["fsl_fast"])
    assert not label_map.encode(nifti.read_labels("a.nii", raw_file(ARRAY * 0)).array, "a.nii").any()
