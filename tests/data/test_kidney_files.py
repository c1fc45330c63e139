"""Kidney CTs as hostile or unusual files: scaled headers, real sizes and axes, flipped storage, every known defect."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from segexp.data.regions import LabelRegions
from segexp.phantoms import kidney_cta
from tests.data.kidneys import SPACING, Folder, abdomen, as_kits, kits_affine, reports, write

AIR = -1000


def write_raw(path, raw, slope, inter, affine=None):
    """Write stored integers with a slope and an intercept in the header, byte by byte: nibabel would rescale them."""
    image = nib.Nifti1Image(raw, np.diag([*SPACING, 1.0]) if affine is None else affine)
    image.set_sform(image.affine, 2)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(gzip.compress(bytes(content), 1))


@pytest.mark.parametrize(("slope", "inter", "scale"), [
    (1, -1024, lambda hu: hu + 1024), (0.5, 0, lambda hu: 2 * hu), (0.5, -1024, lambda hu: 2 * (hu + 1024)),
    (np.nan, np.nan, lambda hu: hu), (0, 55, lambda hu: hu), (1, 0, lambda hu: hu)])
def test_slope_and_intercept_give_hounsfield_units(tmp_path, slope, inter, scale):
    image, labels = abdomen({"left": 3})
    image[18, 20, 20] = 200  # raw 1224 with the intercept of -1024
    folder = Folder(tmp_path)
    folder.add("a", image, labels)
    write_raw(folder.path("a", "image"), scale(image.astype(np.int32)).astype(np.int16), slope, inter)
    raw = int(nib.load(folder.path("a", "image")).dataobj.get_unscaled()[18, 20, 20])
    assert raw == scale(200)
    case = reports(folder, view="whole")["a"].case
    np.testing.assert_array_equal(case.image.array(), image)
    assert case.image.whole()[18, 20, 20] == pytest.approx(400 / 700)


def body(shape, spacing):
    """HU and labels of a large body with a kidney of 60 x 60 x 45 mm and a tumour in front of it, on the right."""
    x, y, z = ((np.arange(n) + 0.5) * size for n, size in zip(shape, spacing, strict=True))
    x, y, z = x[:, None, None] - shape[0] * spacing[0] / 2, y[None, :, None] - shape[1] * spacing[1] / 2, z - 30
    image = np.where((x / 180) ** 2 + (y / 130) ** 2 <= 1 + 0 * z, 40, AIR).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[(x - 90) ** 2 + (y + 20) ** 2 + (z / 0.75) ** 2 <= 30**2] = 1
    labels[(x - 90) ** 2 + (y - 20) ** 2 + z**2 <= 14**2] = 2
    image[labels == 1], image[labels == 2] = 190, 90
    image += np.arange(shape[0], dtype=np.int16)[:, None, None] % 7  # no plane is like its mirror image
    return image, labels


def test_files_of_the_size_of_kits_equal_their_ras_copies(tmp_path):
    """(slices, 512, 512), slices of 5 mm that run down, the origin in a corner: half of the body has x < 0."""
    shape, spacing = (512, 512, 12), (0.8, 0.8, 5.0)
    image, labels = body(shape, spacing)
    kits, native = Folder(tmp_path / "kits", "kits23"), Folder(tmp_path / "ras")
    kits.add("case_00000", image, labels, spacing)
    native.add("case_00000", image, labels, spacing)
    stored = nib.load(kits.path("case_00000", "image"))
    assert stored.shape == (12, 512, 512) and "".join(nib.aff2axcodes(stored.affine)) == "IPL"
    found = [reports(folder, roi=LabelRegions())["case_00000"].case for folder in (kits, native)]
    first, second = found
    assert first.placement.region == second.placement.region
    assert first.placement.region.side == "right" and first.image.shape == (150, 150, 12)
    np.testing.assert_array_equal(first.image.array(), second.image.array())
    np.testing.assert_array_equal(first.targets["kidney"].whole(), second.targets["kidney"].whole())
    # A voxel of the region is where nibabel says that it is.
    box = tuple(slice(a, a + n) for a, n in zip(first.placement.region.start, first.image.shape, strict=True))
    canonical = nib.as_closest_canonical(stored).slicer[box]
    np.testing.assert_allclose(first.image.affine, canonical.affine, atol=1e-6)
    np.testing.assert_array_equal(first.image.array(), np.asarray(canonical.dataobj))
    # On the file's own grid the window is 120 mm wide; resampled it covers the millimetres that were asked for.
    fine = reports(kits, roi=LabelRegions("mm", 97.5), resample=[0.65, 0.65, 1.0])["case_00000"].case
    assert fine.image.shape == (150, 150, 60) and fine.image.spacing == (0.65, 0.65, 1.0)
    ml = [case.targets["kidney"].counts[2] * np.prod(case.image.spacing) / 1000 for case in (first, fine)]
    assert ml[0] == pytest.approx(4 / 3 * np.pi * 1.4**3, rel=0.08) and ml[1] == pytest.approx(ml[0], rel=0.02)


@pytest.mark.parametrize("layout", ["native", "kits23"])
def test_pasted_labels_overlay_the_file(tmp_path, layout):
    """Region to CT and CT to region are each other's inverse; outside the region nothing is set."""
    image, labels = abdomen({"right": 3}, shift=(17, -9, 0))
    folder = Folder(tmp_path, layout)
    folder.add("case_00000", image, labels)
    case = reports(folder)["case_00000"].case
    start, shape = case.placement.region.start, case.image.shape
    assert shape[:2] == (24, 24) and start[0] + shape[0] == image.shape[0] and start[1] == 0  # clamped
    noise = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    pasted = case.placement.paste(noise)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    np.testing.assert_array_equal(pasted[box], noise)
    assert pasted.shape == image.shape and np.count_nonzero(pasted) == np.count_nonzero(noise)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "RPI", "SAR"])
def test_sides_do_not_depend_on_the_order_of_storage(tmp_path, axes):
    image, labels = abdomen({"left": 3})
    folder = Folder(tmp_path)
    orientation = nib.orientations.axcodes2ornt(axes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    affine = np.diag([*SPACING, 1.0]) @ nib.orientations.inv_ornt_aff(turn, image.shape)
    affine[:3, 3] = 0  # whichever corner comes first is the origin
    for what, array in (("image", image), ("label", labels)):
        write(folder.path("a", what), np.ascontiguousarray(nib.apply_orientation(array, turn)), affine)
    case = reports(folder)["a"].case
    assert case.placement.region.side == "left"
    box = tuple(slice(a, a + n) for a, n in zip(case.placement.region.start, case.image.shape, strict=True))
    np.testing.assert_array_equal(case.image.array(), image[box])


def test_labels_may_be_stored_along_other_axes_than_their_image(tmp_path):
    image, labels = abdomen({"left": 3})
    folder = Folder(tmp_path)
    folder.add("a", image, labels)
    turned = nib.as_closest_canonical(nib.load(folder.path("a", "label"))).as_reoriented([[0, -1], [2, 1], [1, -1]])
    write(folder.path("a", "label"), np.asarray(turned.dataobj).astype(np.float32), turned.affine)
    case = reports(folder, view="whole")["a"].case
    np.testing.assert_array_equal(case.targets["kidney"].whole(), labels)


def test_every_defect_of_the_phantom_is_named(tmp_path):
    root = kidney_cta.write(tmp_path / "tree", cases=2, test=1, broken=len(kidney_cta.DEFECTS), preset="tiny",
                            processes=1)
    found = reports(Folder(tmp_path / "unused"), root=str(root), roi=None, cache=str(tmp_path / "cache"))
    expected = {
        "missing_label_map": "there is no", "truncated": "cut off", "no_tumor": "no tumour",
        "unknown_label": "value 7 (1 voxel) not in the label map", "wrong_shape": "voxels, the image",
        "wrong_affine": "mm away from the image", "missing_image": "image: there is no",
        "nan": "NaN or infinite", "constant": "every voxel has the value 0",
        "four_dimensions": "4 dimensions"}
    assert set(expected) == set(kidney_cta.DEFECTS)
    for number, defect in enumerate(kidney_cta.DEFECTS):
        report = found[f"case_{2 + number:05d}"]
        assert report.status == "rejected" and expected[defect] in report.reason, (defect, report.reason)
    assert [name for name, report in found.items() if report.case is not None] == ["case_00000", "case_00001"]


def test_an_image_that_is_no_nifti_file_or_nobody_may_read(tmp_path):
    folder = Folder(tmp_path)
    image, labels = abdomen({"left": 3})
    for name in ("text", "empty", "folder", "air"):
        folder.add(name, image + len(name), labels)
    folder.path("text", "image").write_text("not an image")
    folder.path("empty", "label").write_bytes(b"")
    folder.path("folder", "image").unlink()
    folder.path("folder", "image").mkdir()
    write(folder.path("air", "image"), np.where(image > 0, AIR + 1, AIR).astype(np.int16), np.diag([*SPACING, 1.0]))
    found = reports(folder)
    for name, words in (("text", "not a NIfTI file"), ("empty", "the file is empty"), ("folder", "cannot be read"),
                        ("air", "are they in HU?")):
        assert found[name].status == "rejected" and words in found[name].reason, found[name].reason


def test_what_else_lies_in_a_kits_folder_does_no_harm(tmp_path):
    """Instances and the cases without labels of KiTS23, the other two label maps of KiTS21."""
    image, labels = abdomen({"left": 3}, cyst=True)
    folder = Folder(tmp_path, "kits23")
    folder.add("case_00000", image, labels)
    instance = folder.cases / "case_00000" / "instances" / "kidney_instance-1_annotation-1.nii.gz"
    write(instance, as_kits((labels > 0).astype(np.uint8)), kits_affine(SPACING))
    write(folder.path("case_00589", "image"), as_kits(image + 1), kits_affine(SPACING))
    (folder.cases / "kits23.json").write_text("[]")
    found = reports(folder)
    assert found["case_00000"].status == "ok" and len(found) == 2
    assert "there is no" in found["case_00589"].reason
    older = Folder(tmp_path, "kits21")
    older.add("case_00000", image, labels)
    smaller = np.where(labels == 2, 0, labels).astype(np.uint8)
    smaller[18, 24, 23] = 2
    write(older.path("case_00000", "aggregated_AND_seg.nii.gz"), as_kits(smaller), kits_affine(SPACING))
    layouts = older.settings()["layouts"]
    chosen = {**layouts, "kits21": {**layouts["kits21"], "label": "aggregated_AND_seg.nii.gz"}}
    tumors = [reports(older, layouts=one)["case_00000"].case.targets["kidney"].counts[2] for one in (layouts, chosen)]
    assert tumors == [int((labels == 2).sum()), 1]
