import json

import nibabel as nib
import numpy as np
import pytest

from segexp.data.intensity import Window
from segexp.data.labelmap import IGNORE
from segexp.errors import ConfigError, DataError
from tests.data.kidneys import KIDNEYS, Folder, abdomen, as_kits, kits_affine, reports, write

LAYOUTS = ("native", "kits19", "kits21", "kits23")


@pytest.fixture
def native(tmp_path):
    return Folder(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_it_is_on_disk(tmp_path, layout):
    folder = Folder(tmp_path, layout)
    folder.fill(2)
    image, labels = abdomen({"left": 3}, seed=1)
    found = reports(folder)
    name = sorted(found)[1]
    case = found[name].case
    assert found[name].status == "ok" and case.placement.region.side == "left"
    start = case.placement.region.start
    box = tuple(slice(a, a + n) for a, n in zip(start, case.image.shape, strict=True))
    np.testing.assert_array_equal(case.image.array(), image[box])
    np.testing.assert_array_equal(case.targets["kidney"].whole(), labels[box])
    assert case.image.shape[:2] == (24, 24)
    assert folder.module().phantom == (layout == "native")


def test_a_root_may_be_the_folder_of_the_cases_itself(tmp_path):
    folder = Folder(tmp_path, "kits23")
    folder.fill(1)
    assert folder.module(root=str(folder.cases)).examine().usable == 1


def test_kits_axes_give_the_same_region_as_a_ras_copy(tmp_path):
    """Slices of 5 mm: pixels and mm differ, millilitres come from the affine."""
    image, labels = abdomen({"right": 3})
    spacing = (2.5, 2.5, 5.0)
    kits, native = Folder(tmp_path / "a", "kits23"), Folder(tmp_path / "b")
    kits.add("case_00001", image, labels, spacing)
    native.add("case_00001", image, labels, spacing)
    first, second = reports(kits)["case_00001"].case, reports(native)["case_00001"].case
    assert first.placement.region == second.placement.region
    assert first.placement.region.side == "right"
    assert first.image.spacing == second.image.spacing == spacing
    np.testing.assert_array_equal(first.image.array(), second.image.array())
    np.testing.assert_array_equal(first.targets["kidney"].whole(), second.targets["kidney"].whole())


@pytest.mark.parametrize(("cyst", "expected"), [("kidney", 1), ("tumor", 2), ("ignore", IGNORE)])
def test_cysts_are_what_they_are_asked_to_be(tmp_path, cyst, expected):
    folder = Folder(tmp_path, "kits23")
    folder.add("case_00000", *abdomen({"left": 3}, cyst=True))
    case = reports(folder, cyst=cyst, targets=["kidney", "organ"])["case_00000"].case
    centre = tuple(c - s for c, s in zip(KIDNEYS["left"], case.placement.region.start, strict=True))
    kidney, organ = case.targets["kidney"].whole(), case.targets["organ"].whole()
    assert kidney[centre] == expected
    assert organ[centre] == (IGNORE if cyst == "ignore" else 1)
    assert kidney.dtype == (np.int16 if cyst == "ignore" else np.uint8)
    assert set(np.unique(organ)) <= {0, 1, IGNORE}
    assert (case.targets["kidney"].crop((0, 0, 0), case.image.shape) == kidney).all()
    assert case.targets["kidney"].counts == tuple(int((kidney == label).sum()) for label in range(3))


def test_values_that_are_not_declared_are_refused(tmp_path, native):
    image, labels = abdomen({"left": 3}, cyst=True)
    native.add("a", image, labels)
    kits = Folder(tmp_path / "k", "kits19")
    kits.add("case_00000", image, labels)
    for folder in (native, kits):
        (report,) = reports(folder).values()
        assert report.status == "rejected" and "value 3 (33 voxels) not in the label map" in report.reason
    assert reports(native, on_unknown="background")["a"].status == "warning"


def test_a_case_without_a_tumour_is_left_out_and_counted(native):
    native.add("healthy", *abdomen())
    native.add("ill", *abdomen({"left": 3}, seed=1))
    manifest = native.module().examine()
    assert manifest.counts == {"ok": 1, "warning": 0, "rejected": 1}
    assert "healthy: rejected: no tumour" in manifest.problems()[0]
    # A whole CT teaches where kidneys are, with or without a tumour.
    assert native.module(view="whole").examine().usable == 2


def test_nobody_trains_the_finder_and_tests_the_network(native):
    for number in range(9):
        native.add(f"p{number}", *abdomen({"left": 3} if number % 3 else {}, seed=number))
    regions, whole = (native.module(view=view, split={"train": 3, "validation": 0, "test": 3})
                      for view in ("regions", "whole"))
    dealt = {module.view: {name: {case.person for case in module.cases(name)} for name in ("train", "test")}
             for module in (regions, whole)}
    assert dealt["whole"]["test"] == dealt["regions"]["test"] and len(dealt["whole"]["test"]) > 1
    assert dealt["whole"]["train"] == dealt["regions"]["train"] | {"p0", "p3", "p6"}


def test_broken_files_give_a_line_each(native):
    image, labels = abdomen({"left": 3})
    for name in ("cut", "nan", "shape", "affine", "no_image", "no_label", "meta", "sound"):
        native.add(name, image + len(name), labels)
    content = native.path("cut", "image").read_bytes()
    native.path("cut", "image").write_bytes(content[: len(content) // 2])
    grid, moved = np.diag([5.0] * 3 + [1]), np.diag([5.0] * 3 + [1])
    write(native.path("nan", "image"), np.where(image > 150, np.nan, image).astype(np.float32), grid)
    write(native.path("shape", "label"), labels[:-1], grid)
    moved[0, 3] = 5
    write(native.path("affine", "label"), labels, moved)
    native.path("no_image", "image").unlink()
    native.path("no_label", "label").unlink()
    native.path("meta", "meta.json").write_text("{")
    found = reports(native)
    expected = {"cut": "cut off", "nan": "NaN or infinite", "shape": "59 x 44 x 40 voxels, the image 60 x 44 x 40",
                "affine": "5 mm away", "no_image": "there is no", "no_label": "kidney: there is no",
                "meta": "meta.json: cannot be read"}
    for name, words in expected.items():
        assert found[name].status == "rejected" and words in found[name].reason, name
    assert found["sound"].status == "ok"


@pytest.mark.parametrize(("change", "words"), [
    (None, "dataset.json: cannot be read"), ({"kind": "mri"}, "expected roi"),
    ({"labels": {"background": 0, "kidney": 2, "tumor": 1}}, "data.label_maps.kidney gives"),
])
def test_a_wrong_description_is_an_error(native, change, words):
    native.fill(1)
    path = native.root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) if change else "{")
    with pytest.raises(DataError, match=words):
        native.module().examine()


def test_missing_folders_say_what_is_expected(tmp_path, native):
    with pytest.raises(DataError, match=r"expects <data.root>/cases/\*/image.nii.gz"):
        native.module().examine()
    with pytest.raises(DataError, match="there is no such folder"):
        native.module(root=str(tmp_path / "nowhere")).examine()
    with pytest.raises(ConfigError, match=r"data\.roi is null"):
        native.fill(1)
        native.module(roi=None).examine()


def test_early_headers_are_refused(tmp_path):
    """The files of KiTS 2019 before April 2019 had wrong axes, then wrong voxel sizes."""
    folder = Folder(tmp_path, "kits19")
    image, labels = abdomen({"left": 3})
    for number in range(3):
        folder.add(f"case_0000{number}", image + number, labels)
    for what, array in (("image", image), ("label", labels)):
        write(folder.path("case_00001", what), as_kits(array), np.eye(4))
        write(folder.path("case_00002", what), as_kits(array + 2 * (what == "image")), kits_affine((1.0, 1.0, 1.0)))
    (folder.cases / "kits.json").write_text(json.dumps(
        [{"case_id": f"case_0000{number}", "captured_pixel_width": 5.0} for number in range(3)]))
    for resample in (None, [6, 6, 6]):
        found = reports(folder, resample=resample)
        assert found["case_00000"].case is not None
        assert "the first stored axis runs to R" in found["case_00001"].reason
        assert "pixels of 1 mm, but kits.json says 5 mm" in found["case_00002"].reason


def test_subtypes_choose_the_cases(tmp_path, native):
    kits = Folder(tmp_path / "k", "kits23")
    kits.fill(3)
    names = ["clear_cell_rcc", "oncocytoma", "papillary_rcc"]
    (kits.cases / "kits23.json").write_text(json.dumps(
        [{"case_id": f"case_0000{number}", "tumor_histologic_subtype": name} for number, name in enumerate(names)]))
    for number, name in enumerate(names):
        native.add(f"p{number}", *abdomen({"left": 3}, seed=number), subtype=name)
    for folder in (kits, native):
        found = list(reports(folder, subtypes=["clear cell", "papillary_rcc"]).values())
        assert [one.case.group if one.case else one.reason for one in found] == [
            "clear_cell", "its subtype, oncocytoma, is not in data.subtypes", "papillary"]
    (kits.cases / "kits23.json").unlink()
    with pytest.raises(DataError, match=r"there is no kits23.json"):
        kits.module(subtypes=["papillary"]).examine()


def test_images_that_are_cut_already_are_one_region(tmp_path):
    folder = Folder(tmp_path, kind="roi")
    image, labels = abdomen({"left": 3})
    folder.add("p1_left", image, labels, side="left")
    folder.add("p1_right", image + 1, labels)
    folder.add("other", image + 2, labels, patient="p1")
    folder.add("healthy", image + 3, np.minimum(labels, 1))
    found = reports(folder, roi=None)
    assert found["p1_left"].case.image.shape == image.shape and found["p1_left"].case.placement is None
    assert {found[name].case.person for name in ("p1_left", "p1_right", "other")} == {"p1"}
    assert "no tumour" in found["healthy"].reason


def test_scaled_files_are_read_in_hu(native):
    image, labels = abdomen({"left": 3})
    native.add("a", image, labels)
    stored = nib.Nifti1Image((image + 1024).astype(np.int16), np.diag([5.0] * 3 + [1]))
    stored.header.set_slope_inter(1, -1024)
    stored.header.set_sform(stored.affine, 2)
    # nibabel rescales by itself on saving; what must be on disk are raw values from 0 on.
    native.path("a", "image").unlink()
    nib.save(stored, native.path("a", "image"))
    case = reports(native)["a"].case
    raw = nib.load(native.path("a", "image"))
    assert (raw.dataobj.slope, raw.dataobj.inter) == (1, -1024)
    start = case.placement.region.start
    box = tuple(slice(a, a + n) for a, n in zip(start, case.image.shape, strict=True))
    np.testing.assert_allclose(case.image.array(), np.asarray(raw.dataobj)[box])


def test_the_mean_is_that_of_the_training_regions_alone(native):
    for number in range(4):
        image, labels = abdomen({"left": 3}, seed=number)
        native.add(f"p{number}", image + 100 * number, labels)
    module = native.module(split={"train": 2, "validation": 0, "test": 2})
    voxels = np.concatenate([case.image.array().ravel() for case in module.cases("train")]).astype(np.float64)
    expected = ((voxels.clip(-200, 500) + 200) / 700).mean()
    assert module.intensity.mean == pytest.approx(expected, abs=1e-6)
    assert module.state_dict() == {"intensity_mean": module.intensity.mean}
    for name in ("train", "test"):
        for case in module.cases(name):
            assert case.image.intensity == module.intensity
            raw = (case.image.array().astype(np.float64).clip(-200, 500) + 200) / 700
            np.testing.assert_allclose(case.image.whole(), raw - expected, atol=1e-6)
            assert case.image.crop((-9, -9, -9), (2, 2, 2)).ravel() == pytest.approx(-expected, abs=1e-6)
    # Elsewhere the network's own mean is used, before and after the split, also without training cases.
    for early in (True, False):
        other = native.module(split={"train": 0 if early else 1, "validation": 0, "test": 3})
        if not early:
            other.setup()
        other.load_state_dict(module.state_dict())
        assert other.cases("test")[0].image.intensity == module.intensity
    with pytest.raises(DataError, match="no training case to take the mean of"):
        native.module(split={"train": 0, "validation": 0, "test": 4}).setup()
    fixed = native.module(intensity=Window(-200, 500, 0.25))
    fixed.setup()
    fixed.load_state_dict(module.state_dict())
    assert fixed.cases("train")[0].image.intensity.mean == 0.25


@pytest.mark.parametrize("change", [{"layout": "kits20"}, {"view": "half"}, {"cyst": "liver"}, {"resample": [1, 1]},
                                    {"val_fraction": 1.0}, {"label_maps": {"kidney": {0: "background", 1: "renal"}}},
                                    {"lookups": {}, "targets": ["organ"]}])
def test_senseless_settings_are_refused(native, change):
    with pytest.raises(ConfigError, match=r"data\."):
        native.module(**change)


def test_resampling_is_part_of_what_is_cached(native):
    native.fill(1)
    plain, fine = (reports(native, resample=resample, view="whole")["p00"].case for resample in (None, [5, 5, 2.5]))
    assert plain.image.shape == (60, 44, 40) and fine.image.shape == (60, 44, 80)
    assert fine.image.spacing == (5, 5, 2.5) and fine.image.key != plain.image.key
    assert np.abs(fine.targets["kidney"].counts[2] - 2 * plain.targets["kidney"].counts[2]) == 0
    # The outer corner stays: voxel 0 is half as thick, so its centre moves by a quarter of the old thickness.
    assert np.array(fine.image.affine)[2, 3] == pytest.approx(-1.25)
    assert reports(native, view="whole")["p00"].case.image.key == plain.image.key


def test_whole_cases_and_training_batches_come_out_of_the_module(native):
    from segexp.data import ClassCrops

    native.fill(3)
    sampling = ClassCrops(
        {"kidney": {0: "background", 1: "kidney", 2: "tumor"}}, (16, 16, 8), 2)
    module = native.module(sampling=sampling, split={"train": 2, "validation": 0, "test": 1})
    module.prepare_data()
    module.configure_stream(seed=1, steps=3)
    for batch in module.train_dataloader():
        assert batch["image"].shape == (2, 1, 16, 16, 8) and batch["target"]["kidney"].shape == (2, 16, 16, 8)
    (whole,) = module.test_dataloader()
    assert whole["image"].shape[2:4] == (24, 24)
    assert whole["placement"][0].full_shape == (60, 44, 40)
