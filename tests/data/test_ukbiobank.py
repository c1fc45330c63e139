import csv
import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest

from segexp.data import Crops
from segexp.errors import ConfigError, DataError
from tests.data.heads import AFFINE, DEFAULTS, SHAPE, TARGETS, arrays, bulk_id, write

ONE = bulk_id(1)


def report(folder, case=ONE, full=False, **changes):
    manifest = folder.module(**changes).examine(full=full)
    return next(r for r in manifest.reports if r.listed.id == case)


@pytest.mark.parametrize("layout", ["bulk", "flat"])
def test_both_layouts_are_listed_checked_and_read(make_folder, layout):
    folder = make_folder(layout)
    ids = [bulk_id(1), bulk_id(1, 3), bulk_id(2)] if layout == "bulk" else ["9000001", "9000002"]
    for number, case in enumerate(ids):
        made = folder.add(case, number)
    if layout == "bulk":
        (folder.root / "9000001_20253_2_0" / "T2_FLAIR").mkdir(parents=True)
        (folder.root / bulk_id(5, 4)).mkdir()
    (folder.root / "phantom.json").write_text("{}")
    module = folder.module()
    manifest = module.check()
    assert [r.listed.id for r in manifest.reports] == ids
    assert manifest.counts == {"ok": len(ids), "warning": 0, "rejected": 0}
    assert [r.listed.person for r in manifest.reports][-1] == "9000002"
    assert module.phantom
    case = manifest.reports[-1].case
    np.testing.assert_array_equal(case.image.array(), made["image"][::-1])
    for target, labels in case.targets.items():
        raw = module.label_maps[target].decode(labels.whole())
        np.testing.assert_array_equal(raw, made[target][::-1])


def test_the_manifest_has_one_row_per_case(folder, tmp_path):
    made = folder.add(ONE)
    (folder.root / f"{bulk_id(2)}.zip").write_bytes(b"PK")
    folder.module().check().write(tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [ONE, bulk_id(2)]
    first, second = rows
    assert (first["person"], first["status"], first["reason"]) == ("9000001", "ok", "")
    assert (first["shape"], first["zooms"], first["orientation"]) == ("14x16x12", "1x1x1", "LAS")
    assert len(first["affine"]) == 8
    assert first["image"] == str(folder.path(ONE, "image"))
    assert first["fsl_fast"] == str(folder.path(ONE, "fsl_fast"))
    assert [int(n) for n in first["voxels_fsl_fast"].split()] == np.bincount(made["fsl_fast"].ravel()).tolist()
    assert (second["status"], second["reason"]) == ("rejected", f"{bulk_id(2)}.zip is not unpacked")


def labels_with(folder, target, change, case=ONE):
    array = arrays(1)[target].copy()
    return write(folder.path(case, target), change(array))


def set_first(array, value):
    array[:2, 0, 0] = value
    return array


def shifted(distance):
    affine = AFFINE.copy()
    affine[1, 3] += distance
    return affine


BREAKS = {
    "no image": (lambda f: f.path(ONE, "image").unlink(), "image: there is no .*T1.nii.gz"),
    "no FIRST": (lambda f: f.path(ONE, "fsl_first").unlink(), "fsl_first: there is no .*firstseg.nii.gz"),
    "cut off": (lambda f: f.path(ONE, "malp_em").write_bytes(f.path(ONE, "malp_em").read_bytes()[:900]),
                "malp_em: .*T1_MALPEM.nii.gz: cut off"),
    "empty file": (lambda f: f.path(ONE, "image").write_bytes(b""), "image: .* the file is empty"),
    "other shape": (lambda f: write(f.path(ONE, "fsl_fast"), arrays(1, (14, 16, 13))["fsl_fast"]),
                    "fsl_fast: the label map has 14 x 16 x 13 voxels, the image 14 x 16 x 12"),
    "other place": (lambda f: write(f.path(ONE, "fsl_first"), arrays(1)["fsl_first"], shifted(0.3)),
                    r"fsl_first: the label map lies up to 0.3 mm away .*data.affine_tolerance=0.1"),
    "unknown label": (lambda f: labels_with(f, "spm_tissue", lambda a: set_first(a, 99)),
                      r"spm_tissue: .* value 99 \(2 voxels\) not in the label map"),
    "not whole": (lambda f: labels_with(f, "fsl_fast", lambda a: a + np.float32(0.25)),
                  "fsl_fast: .* not whole numbers"),
    "NaN label": (lambda f: labels_with(f, "fsl_fast", lambda a: set_first(a.astype(np.float32), np.nan)),
                  "fsl_fast: .* NaN or infinite"),
    "all background": (lambda f: labels_with(f, "fsl_first", lambda a: a * 0), "fsl_first: every voxel is background"),
    "4D": (lambda f: labels_with(f, "fsl_fast", lambda a: np.stack([a, a], -1)), "fsl_fast: .*4 dimensions"),
    "constant image": (lambda f: write(f.path(ONE, "image"), np.full(SHAPE, 5, np.int16)),
                       "image: .* every voxel has the value 5"),
    "NaN image": (lambda f: write(f.path(ONE, "image"), set_first(arrays(1)["image"].astype(np.float32), np.nan)),
                  "image: .* NaN or infinite"),
    "tissue is not the lookup": (lambda f: labels_with(f, "malp_em_tissue", lambda a: set_first(a * 0 + 1, 2)),
                                 r"malp_em_tissue: \d+ voxels are not the lookup of malp_em"),
    "unusable": (lambda f: (f.path(ONE, "image").parent / "unusable").mkdir(), "failed UK Biobank's quality control"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_cases_are_rejected_with_their_reason_and_the_others_stay(folder, name):
    folder.add(ONE, 1), folder.add(bulk_id(2), 2)
    change, reason = BREAKS[name]
    change(folder)
    manifest = folder.module().check()
    broken, sound = manifest.reports
    assert (broken.status, broken.case) == ("rejected", None)
    assert len(broken.errors) == 1
    with pytest.raises(DataError, match=reason):
        raise DataError(broken.reason)
    assert sound.status == "ok"
    assert manifest.rows()[0]["status"] == "rejected"


def test_everything_wrong_with_a_case_is_named_at_once(folder):
    folder.add(ONE, 1)
    for name in ("no FIRST", "cut off", "unknown label"):
        BREAKS[name][0](folder)
    assert len(report(folder).errors) == 3


def test_float_labels_and_a_fourth_dimension_of_one_are_accepted(folder):
    made = folder.add(ONE, 1)
    write(folder.path(ONE, "fsl_first"), made["fsl_first"].astype(np.float32)[..., None])
    write(folder.path(ONE, "image"), made["image"][..., None])
    assert report(folder).status == "ok"


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PIR"])
def test_files_stored_in_any_order_are_one_grid(folder, codes):
    folder.add(ONE, 1)
    for what in ("image", *TARGETS):
        image = nib.load(folder.path(ONE, what))
        target = nib.orientations.axcodes2ornt("RAS" if what == "fsl_fast" else codes)
        moved = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))
        nib.save(moved, folder.path(ONE, what))
    found = report(folder)
    assert found.status == "ok"
    assert found.image.orientation == codes
    np.testing.assert_array_equal(found.case.targets["fsl_fast"].whole(), arrays(1)["fsl_fast"][::-1])


def test_scaled_images_are_read_in_their_units(folder):
    folder.add(ONE, 1)
    image = nib.load(folder.path(ONE, "image"))
    scaled = nib.Nifti1Image(np.asarray(image.dataobj) * 0.37 + 2, image.affine, image.header)
    scaled.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nib.save(scaled, folder.path(ONE, "image"))
    assert nib.load(folder.path(ONE, "image")).dataobj.slope != 1
    found = report(folder).image
    assert found.dtype == "<f4"
    assert found.mean == pytest.approx(arrays(1)["image"].mean() * 0.37 + 2, rel=1e-4)


def test_unknown_values_become_background_and_are_counted_when_asked(folder):
    folder.add(ONE, 1)
    labels_with(folder, "spm_tissue", lambda a: set_first(a, 99))
    found = report(folder, on_unknown="background")
    assert (found.status, found.reason) == ("warning", "spm_tissue: value 99 (2 voxels) became background")
    assert found.case.targets["spm_tissue"].whole()[-2:, 0, 0].tolist() == [0, 0]


def test_disagreeing_transforms_and_small_images_are_warnings(folder):
    folder.add(ONE, 1)
    image = nib.load(folder.path(ONE, "image"))
    image.set_qform(AFFINE @ np.diag([1, 1, 1.5, 1]), 1)
    nib.save(image, folder.path(ONE, "image"))
    found = report(folder, sampling=Crops(16))
    assert found.status == "warning"
    assert "sform and qform disagree by up to 5.5 mm" in found.reason
    assert "the image 14 x 16 x 12 is smaller than the crop 16 x 16 x 16" in found.reason
    assert "smaller" not in report(folder, sampling=Crops(12)).reason


def test_only_what_is_required_is_needed(folder):
    folder.add(ONE, 1)
    for target in ("spm_tissue", "malp_em"):
        folder.path(ONE, target).unlink()
    assert len(report(folder).errors) == 2
    assert report(folder, require="requested", targets=["fsl_fast", "fsl_first"]).status == "ok"
    assert report(folder, require="requested", targets="spm_tissue").status == "rejected"
    masked = report(folder, missing="mask")
    assert list(masked.case.targets) == ["fsl_fast", "fsl_first", "malp_em_tissue"]
    nothing = report(folder, missing="mask", targets=["spm_tissue"])
    assert nothing.errors == ("none of the targets spm_tissue is there",)
    write(folder.path(ONE, "fsl_fast"), arrays(1, (14, 16, 13))["fsl_fast"])
    assert report(folder, missing="mask").status == "rejected"  # masked is what is missing, not what is broken


def test_the_tissue_map_is_derived_unless_told_otherwise_and_validated(folder):
    folder.add(ONE, 1)
    both = {"targets": ["malp_em", "malp_em_tissue"], "require": "requested"}
    labels_with(folder, "malp_em_tissue", lambda a: set_first(a * 0 + 1, 2))
    derived = report(folder, **both)
    assert derived.status == "ok"
    expected = arrays(1)["malp_em_tissue"][::-1]
    np.testing.assert_array_equal(derived.case.targets["malp_em_tissue"].whole(), expected)
    assert "not the lookup" in report(folder, full=True, **both).reason
    assert report(folder, full=True, **both).status == "warning"
    assert report(folder, derive_lookups=False, **both).status == "rejected"
    assert report(folder, require="requested", targets="malp_em_tissue").status == "ok"
    folder.path(ONE, "malp_em_tissue").unlink()
    assert report(folder, **both).status == "ok"


def fail_spm(folder, case):
    array = arrays(1)["spm_tissue"]
    write(folder.path(case, "spm_tissue"), np.array([0, 3, 1, 2], np.uint8)[array])


def test_a_failed_tool_is_suspected_and_can_be_left_out_of_training(folder):
    for number in range(1, 8):
        folder.add(bulk_id(number), number)
    fail_spm(folder, bulk_id(2)), fail_spm(folder, bulk_id(7))
    found = report(folder, bulk_id(2))
    assert found.status == "warning" and found.case.suspected
    assert "mean Dice of 0.00 only" in found.reason
    assert len(folder.module().cases("train")) == 5
    for changes in ({}, {"targets": "fsl_first", "require": "requested"}):
        module = folder.module(exclude_failed_tools=True, **changes)
        assert [case.id for case in module.cases("train")] == [bulk_id(n) for n in (1, 3, 4, 5)]
        assert [case.id for case in module.cases("test")] == [bulk_id(7)]


def test_ids_and_images_that_occur_twice_are_rejected(folder):
    folder.add(ONE, 1), folder.add(bulk_id(2), 2)
    folder.add(f"000{ONE}", 3)
    shutil.copy(folder.path(bulk_id(2), "image"), folder.path(ONE, "image"))
    assert folder.module().check().problems() == [f"{ONE}: rejected: the same id as 000{ONE}"]
    folder.add(f"000{bulk_id(1, 3)}", 5)
    assert [one.person for one in folder.module().list_cases()] == ["9000001"] * 3 + ["9000002"]
    folder.add(bulk_id(3), 4)
    shutil.copy(folder.path(bulk_id(2), "image"), folder.path(bulk_id(3), "image"))
    assert report(folder, bulk_id(3)).reason == f"the image is a copy of that of {bulk_id(2)}"


def test_unpacked_archives_are_used(folder):
    folder.add(ONE, 1)
    (folder.root / f"{ONE}.zip").write_bytes(b"PK")
    assert report(folder).status == "ok"
    assert len(folder.module().list_cases()) == 1


def test_folders_that_are_not_there_name_their_keys(folder, tmp_path):
    with pytest.raises(DataError, match=r"data\.root=.*nowhere: there is no such folder; set data\.root"):
        folder.module(root=tmp_path / "nowhere").check()
    with pytest.raises(DataError, match=r"no folder named <digits>_20252_<2\|3>_0 \(data.layout=bulk\); it is empty"):
        folder.module().check()
    (folder.root / "9000001").mkdir()
    with pytest.raises(DataError, match=r"it holds 9000001\. Set data.root .* or data.layout"):
        folder.module().check()
    folder.add(ONE, 1)
    with pytest.raises(DataError, match=r"data.derived_root is not set, but malp_em, malp_em_tissue, spm_tissue"):
        folder.module(derived_root=None).check()
    with pytest.raises(DataError, match=r"data\.truth_root=.*nowhere"):
        folder.module(truth_root=tmp_path / "nowhere").check()
    assert report(folder, derived_root=None, require="requested", targets=["fsl_fast"]).status == "ok"


def test_a_data_set_without_a_usable_case_lists_the_reasons(folder):
    folder.add(ONE, 1)
    folder.path(ONE, "image").write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DataError, match=rf"none of the 1 cases can be used:\n  {ONE}: rejected: image: .*not a NIfTI"):
        folder.module().setup()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"layout": "bids"}, "data.layout=bids: expected one of bulk, flat"),
    ({"require": "some"}, "data.require=some"), ({"missing": "fill"}, "data.missing"),
    ({"on_unknown": "guess"}, "data.on_unknown"), ({"targets": ["fsl_slow"]}, "no label map fsl_slow"),
    ({"targets": ["fsl_fast", "fsl_fast"]}, "each once"), ({"targets": []}, "at least one target"),
    ({"agreement": None, "exclude_failed_tools": True}, "data.agreement"),
    ({"lookups": {"malp_em_tissue": {"source": "malp", "values": {}}}}, "no label map malp"),
])
def test_senseless_settings_name_the_key(folder, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        folder.module(**changes)


def add_truth(folder, case, rotated="False", failed=""):
    made = arrays(1)
    for name, what in (("tissue", "fsl_fast"), ("malp_em", "malp_em"), ("first", "fsl_first")):
        write(folder.truth / case / f"{name}.nii.gz", made[what])
    path = folder.truth / "manifest.csv"
    header = "" if path.exists() else "case,rotated,failed_tools,broken\n"
    with path.open("a") as file:
        file.write(f"{header}{case},{rotated},{failed},\n")


def test_truth_and_groups_come_with_whole_cases(folder):
    marks = [("0", ""), ("1", ""), ("1", "spm_tissue"), ("0", "fsl_first"), ("0", "")]
    for number, (rotated, failed) in enumerate(marks, 1):
        folder.add(bulk_id(number), number)
        add_truth(folder, bulk_id(number), rotated, failed)
    module = folder.module(truth_root=folder.truth)
    groups = [report.case.group for report in module.examine().reports]
    assert groups == ["clean", "rotated", "rotated+failed_spm_tissue", "failed_fsl_first", "clean"]
    batch = next(iter(module.test_dataloader()))
    assert batch["group"] == ["clean"] and batch["case"] == [bulk_id(5)]
    assert set(batch["truth"]) == set(TARGETS)
    made = arrays(1)
    for target in TARGETS:
        truth = module.label_maps[target].decode(batch["truth"][target][0].numpy())
        np.testing.assert_array_equal(truth, made["fsl_fast" if target == "spm_tissue" else target][::-1])
    assert "truth" not in next(iter(folder.module().test_dataloader()))
    assert next(iter(folder.module().test_dataloader()))["group"] == [""]
    only = folder.module(truth_root=folder.truth, targets="malp_em_tissue")
    assert list(next(iter(only.test_dataloader()))["truth"]) == ["malp_em_tissue"]


@pytest.mark.parametrize("content", ["", "case,rotated\na,1\n", "case,rotated,failed_tools,broken\na\n"])
def test_an_unreadable_truth_manifest_is_a_data_error(folder, content):
    folder.add(ONE, 1)
    folder.truth.mkdir()
    if content:
        (folder.truth / "manifest.csv").write_text(content)
    with pytest.raises(DataError, match=r"manifest.csv: cannot be read"):
        folder.module(truth_root=folder.truth).check()


def test_keys_of_the_yaml_are_those_of_the_class():
    import inspect

    from segexp.data import UKBiobank

    accepted = set(inspect.signature(UKBiobank).parameters)
    assert set(DEFAULTS) - {"defaults", "_target_"} <= accepted
    assert accepted - set(DEFAULTS) == {"label_maps", "sampling"}
