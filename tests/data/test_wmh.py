import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import torch

from segexp.data import Slices, read_image_case
from segexp.data.intensity import MaxScale
from segexp.data.nifti import write_labels
from segexp.data.resizing import resize
from segexp.data.wmh import TRAINING, completeness
from segexp.errors import ConfigError, DataError
from segexp.inference import SliceBySlice
from tests.data.brains import SHAPES, Challenge, affine_of, brain, store

ALL = {"train": None, "validation": 1, "test": 1}
FEW = {"Utrecht": (2, 11, 4), "Singapore": (52, 50), "GE3T": (100, 101)}


@pytest.fixture
def challenge(tmp_path):
    return Challenge(tmp_path)


def filled(base, release, cases=FEW):
    challenge = Challenge(base, release)
    for centre, numbers in cases.items():
        for number in numbers:
            challenge.add(centre, number)
    return challenge


def only(challenge, **changes):
    (report,) = challenge.module(**changes).examine().reports
    return report


def test_both_releases_give_the_same_cases_groups_contents_and_splits(tmp_path):
    modules = []
    for release in ("2017", "2022"):
        challenge = filled(tmp_path / release, release)
        if release == "2022":
            challenge.add("GE1T5", 150, "test")
            challenge.add("Utrecht", 1, "test")
            observer = challenge.root / "additional_annotations" / "observer_o3" / "training" / "Utrecht" / "2"
            store(observer / "result.nii.gz", brain(2, SHAPES["Utrecht"])[1], affine_of("Utrecht"))
            (challenge.root / "readme.pdf").write_bytes(b"%PDF")
        modules.append(challenge.module(split=ALL, strata=None))
    first, second = modules
    assert [case.id for case in first.list_cases()] == ["2", "4", "11", "50", "52", "100", "101"]
    assert [case.group for case in first.list_cases()] == ["Utrecht"] * 3 + ["Singapore"] * 2 + ["GE3T"] * 2
    assert [(c.id, c.group) for c in first.list_cases()] == [(c.id, c.group) for c in second.list_cases()]
    assert first.split_table() == second.split_table()
    assert first.fingerprint == second.fingerprint
    assert first.check().counts == {"ok": 7, "warning": 0, "rejected": 0}


@pytest.mark.parametrize("scanner", ["Philips_VU .PETMR_01.", "Philips_VU .PETMR_01", "Philips_VU_PETMR_01"])
def test_test_cases_are_evaluated_only_when_asked_and_never_trained_on(tmp_path, scanner):
    challenge = filled(tmp_path, "2022")
    for centre, number in ((scanner, 170), ("GE1T5", 150), ("Utrecht", 1)):
        challenge.add(centre, number, "test")
    assert not {"170", "150", "1"} & {case.id for case in challenge.module().list_cases()}
    module = challenge.module(use="test", sampling=Slices(16))
    assert [(case.id, case.group) for case in module.cases("test")] == [
        ("1", "Utrecht"), ("150", "GE1T5"), ("170", "Philips_VU")]
    assert module.cases("train") == module.cases("validation") == []
    module.configure_stream(seed=1, steps=1)
    with pytest.raises(ConfigError, match="nothing to train on"):
        module.train_dataloader()
    # Also when the folder of the test cases itself is given.
    with pytest.raises(DataError, match=r"no training case; its 3 cases need data.use=test"):
        challenge.module(root=str(challenge.root / "test")).list_cases()


def test_any_folder_above_the_cases_can_be_the_root(tmp_path):
    challenge = filled(tmp_path, "2022")
    for folder, count in (("training", 7), ("training/Amsterdam", 2), ("training/Utrecht", 3)):
        cases = challenge.module(root=str(challenge.root / folder)).list_cases()
        assert len(cases) == count
        assert {case.group for case in cases} <= {"Utrecht", "Singapore", "GE3T"}
    (case,) = challenge.module(root=str(challenge.folder("Utrecht", 11))).list_cases()
    assert (case.id, case.group) == ("11", "Utrecht")


def test_the_image_is_the_one_asked_for_scaled_by_its_maximum(challenge):
    challenge.add("GE3T", 100)
    image, labels = brain(100, SHAPES["GE3T"])
    for flair, expected in (("pre", image), ("orig", image * 0.5 + 3)):
        module = challenge.module(flair=flair, use="training", split={"train": 0, "validation": 0, "test": None},
                                  strata=None)
        (batch,) = module.test_dataloader()
        np.testing.assert_allclose(batch["image"][0, 0], expected / expected.max(), rtol=1e-6)
        np.testing.assert_array_equal(batch["target"]["wmh"][0], labels)
        assert batch["group"] == ["GE3T"]


def test_a_transposed_case_is_the_same_in_memory_and_comes_back_on_its_own_grid(tmp_path):
    challenge = Challenge(tmp_path)
    plain, swapped = challenge.add("Singapore", 50), challenge.folder("Singapore", 50)
    reference = only(challenge)
    transposed = Challenge(tmp_path / "transposed")
    swapped = transposed.add("Singapore", 50, transposed=True)
    stored = nib.load(swapped / "pre" / "FLAIR.nii.gz")
    assert stored.shape == (20, 22, 6) and nib.load(plain / "pre" / "FLAIR.nii.gz").shape == (22, 20, 6)
    found = only(transposed)
    assert found.status == "ok"
    np.testing.assert_array_equal(found.case.image.array(), reference.case.image.array())
    np.testing.assert_array_equal(found.case.targets["wmh"].whole(), reference.case.targets["wmh"].whole())

    def bright(slices):  # a network that finds lesions by their brightness
        return {"wmh": 200 * (slices - 0.75)}

    batch = read_image_case(swapped / "pre" / "FLAIR.nii.gz", MaxScale())
    labels = SliceBySlice((22, 20))(bright, batch["image"])["wmh"]
    write_labels(tmp_path / "out.nii.gz", labels[0].numpy(), batch["source"])
    written = nib.load(tmp_path / "out.nii.gz")
    assert written.shape == (20, 22, 6)
    np.testing.assert_allclose(written.affine, stored.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj),
                                  np.asarray(nib.load(swapped / "wmh.nii.gz").dataobj) == 1)


def test_an_oblique_case_is_sliced_along_the_body(challenge):
    folder = challenge.add("Utrecht", 2)
    image, _ = brain(2, SHAPES["Utrecht"])
    found = only(challenge)
    assert found.image.orientation == "LPS"
    assert found.image.spacing == pytest.approx((0.9583, 0.9583, 3), rel=1e-4)
    np.testing.assert_array_equal(found.image.array(), image[::-1, ::-1])
    sample = Slices((20, 22), rotation_degrees=0).draw(found.case, ["wmh"], np.random.default_rng(0), part=3)
    np.testing.assert_array_equal(sample["image"][0], image[::-1, ::-1, 3] / image.max())
    assert (folder / "wmh.nii.gz").exists()


def test_the_split_is_even_over_centres_disjoint_complete_and_does_not_follow_the_folders(tmp_path):
    tables = []
    for order, name in ((1, "forward"), (-1, "backward")):
        challenge = Challenge(tmp_path / name)
        for centre in list(TRAINING)[::order]:
            for number in TRAINING[centre][::order]:
                challenge.add(centre, number, ending=".nii")
        module = challenge.module(cache=str(tmp_path / "cache"))
        tables.append(module.split_table())
        for split, count in (("train", 16), ("validation", 2), ("test", 2)):
            groups = [case.group for case in module.cases(split)]
            assert {centre: groups.count(centre) for centre in TRAINING} == dict.fromkeys(TRAINING, count)
    assert sorted(tables[0]) == sorted(tables[1])
    assert len({case for case, _, _ in tables[0]}) == 60
    assert module.check().counts["ok"] == 60
    other = challenge.module(cache=str(tmp_path / "cache"), split_seed=2)
    assert other.split_table() != tables[1]


def change(path, array=None, affine=None):
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    store(path, values if array is None else array(values.copy()), image.affine if affine is None else affine(
        image.affine.copy()))


def first_is(value):
    def put(array):
        array[0, 0, 0] = value
        return array
    return put


def header(path, *fields):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    for position, form, *values in fields:
        struct.pack_into(form, raw, position, *values)
    path.write_bytes(gzip.compress(bytes(raw)))


def entry(row, column, amount):
    def moved(affine):
        affine[row, column] += amount
        return affine
    return moved


UNPLACED = (252, "<hh", 0, 0)
BREAKS = {
    "no image": (lambda i, w: i.unlink(), r"image: there is no .*7/pre/FLAIR.nii.gz"),
    "no label map": (lambda i, w: w.unlink(), r"wmh: there is no .*7/wmh.nii.gz"),
    "other shape": (lambda i, w: change(w, lambda a: a[..., :5]), "wmh: the label map has 20 x 22 x 5 voxels"),
    "moved": (lambda i, w: change(w, affine=entry(0, 3, 0.002)), r"wmh: .* differ by up to 0.00[12]\d* in an entry"),
    "turned": (lambda i, w: change(w, affine=entry(1, 2, 0.01)), r"wmh: .* data.affine_tolerance=0.001"),
    "4-D": (lambda i, w: change(i, lambda a: np.stack([a, a], -1)), "image: .*4 dimensions"),
    "label 3": (lambda i, w: change(w, first_is(3)), r"wmh: .* value 3 \(1 voxel\) not in the label map of wmh"),
    "label 0.5": (lambda i, w: change(w, first_is(0.5)), r"wmh: .* not whole numbers \(0.5\)"),
    "NaN label": (lambda i, w: change(w, first_is(np.nan)), "wmh: .* NaN or infinite"),
    "NaN": (lambda i, w: change(i, first_is(np.nan)), "image: .* 1 of 2640 voxels are NaN or infinite"),
    "infinite": (lambda i, w: change(i, first_is(np.inf)), "image: .* NaN or infinite"),
    "all zero": (lambda i, w: change(i, lambda a: a * 0), "image: .* every voxel has the value 0"),
    "constant": (lambda i, w: change(i, lambda a: a * 0 + 7), "image: .* every voxel has the value 7"),
    "nothing above 0": (lambda i, w: change(i, lambda a: a - a.max()), "image: .* largest value is 0, expected"),
    "cut off": (lambda i, w: i.write_bytes(i.read_bytes()[:3000]), "image: .* cut off"),
    "label map cut off": (lambda i, w: w.write_bytes(w.read_bytes()[:150]), "wmh: .* cut off"),
    "not an image": (lambda i, w: i.write_bytes(b"<html>" * 90), "image: .* not a NIfTI file"),
    "voxel size 0": (lambda i, w: header(i, (80, "<f", 0.0)), r"image: .* voxel sizes of \[0.0, .* above 0"),
    "voxel size NaN": (lambda i, w: header(i, (84, "<f", float("nan"))), "image: .* voxel sizes of .*nan.* above 0"),
    "unplaced, voxel size 0": (lambda i, w: header(i, UNPLACED, (80, "<f", 0.0)), "image: .* voxel sizes of .* above"),
    "only one is unplaced": (lambda i, w: header(i, UNPLACED), "wmh: the affines of label map and image differ"),
    "twice": (lambda i, w: i.with_suffix("").write_bytes(gzip.decompress(i.read_bytes())),
              r"both .*FLAIR.nii.gz and FLAIR.nii are there; keep one"),
    "label map twice": (lambda i, w: w.with_suffix("").write_bytes(gzip.decompress(w.read_bytes())),
                        r"both .*wmh.nii.gz and wmh.nii are there; keep one"),
    "a copy": (lambda i, w: i.write_bytes((i.parents[2] / "2" / "pre" / "FLAIR.nii.gz").read_bytes()),
               "the image is a copy of that of 2"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_bad_cases_are_rejected_with_their_reason_and_the_others_stay(challenge, name):
    challenge.add("Utrecht", 2)
    folder = challenge.add("Utrecht", 7)
    do, reason = BREAKS[name]
    do(folder / "pre" / "FLAIR.nii.gz", folder / "wmh.nii.gz")
    sound, broken = challenge.module().examine().reports
    assert (sound.status, broken.status, broken.case) == ("ok", "rejected", None)
    with pytest.raises(DataError, match=reason):
        raise DataError(broken.reason)


def test_everything_wrong_is_named_at_once(challenge):
    challenge.add("Utrecht", 2)
    for number, name in ((4, "NaN"), (6, "label 3"), (8, "no image")):
        folder = challenge.add("Utrecht", number)
        BREAKS[name][0](folder / "pre" / "FLAIR.nii.gz", folder / "wmh.nii.gz")
    (challenge.folder("Utrecht", 6) / "pre" / "FLAIR.nii.gz").write_bytes(b"")
    manifest = challenge.module().check()
    assert manifest.counts == {"ok": 1, "warning": 0, "rejected": 3}
    assert [len(report.errors) for report in manifest.reports] == [0, 1, 2, 1]


def test_float_noise_in_a_header_and_a_fourth_dimension_of_one_are_fine(challenge):
    folder = challenge.add("Utrecht", 2)
    change(folder / "wmh.nii.gz", affine=lambda a: a + np.array([[1e-5] * 4] * 3 + [[0] * 4]))
    change(folder / "pre" / "FLAIR.nii.gz", lambda a: a[..., None])
    assert only(challenge).status == "ok"


def test_a_person_without_lesions_is_no_mistake(challenge):
    challenge.add("GE3T", 100, empty=True)
    report = only(challenge)
    assert report.status == "ok"
    assert report.case.targets["wmh"].counts == (14 * 26 * 8, 0, 0)


def test_files_that_are_not_placed_are_read_by_their_voxel_sizes_with_a_warning(challenge):
    folder = challenge.add("Singapore", 50)
    for file in (folder / "pre" / "FLAIR.nii.gz", folder / "wmh.nii.gz"):
        header(file, UNPLACED)
    report = only(challenge)
    assert report.status == "warning"
    assert "image: neither sform nor qform is set" in report.reason and "wmh: neither" in report.reason
    assert report.image.spacing == (1, 1, 3)
    np.testing.assert_array_equal(report.image.array(), brain(50, SHAPES["Singapore"])[0][::-1])
    assert "left and right are unknown" in only(challenge, unplaced="error").reason
    # New images are read in the same way.
    labels, source = challenge.module().label_file(folder / "pre" / "FLAIR.nii.gz", lambda image: {
        "wmh": (image[0] > 0.5).byte()})
    assert labels["wmh"].shape == report.image.shape and labels["wmh"].any()
    write_labels(folder / "labels.nii.gz", labels["wmh"], source)
    with pytest.raises(DataError, match="neither sform nor qform"):
        challenge.module(unplaced="error").label_file(folder / "pre" / "FLAIR.nii.gz", lambda image: {})


def test_ids_that_occur_twice_are_all_rejected(tmp_path):
    challenge = filled(tmp_path, "2017")
    challenge.add("GE3T", "0011")
    manifest = challenge.module().examine()
    rejected = [report for report in manifest.reports if report.status == "rejected"]
    assert [report.listed.id for report in rejected] == ["0011", "11"]
    assert all("occurs 2 times" in r.reason and "Utrecht/11" in r.reason and "GE3T/0011" in r.reason for r in rejected)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    challenge = filled(tmp_path, "2017")
    folder = challenge.folder("Utrecht", 2)
    for hidden in (folder / "._wmh.nii.gz", folder / "pre" / "._FLAIR.nii.gz", folder / "pre" / "._FLAIR.nii"):
        hidden.write_bytes(b"\x00\x05\x16\x07")
    for name in ("._50", ".writing1/50"):
        store(challenge.root / "Utrecht" / name / "wmh.nii.gz", *[np.ones((2, 2, 2)), np.eye(4)])
    (challenge.root / "Utrecht" / "again").symlink_to(challenge.root, target_is_directory=True)
    assert len(challenge.module().list_cases()) == 7
    assert challenge.module().check().counts["ok"] == 7


def test_incomplete_data_are_said_once_and_used(tmp_path, capsys):
    challenge = filled(tmp_path, "2017")
    challenge.add("GE3T", 999)
    challenge.module(split=ALL, strata=None).prepare_data()
    printed = capsys.readouterr().out
    assert "17 of the 20 training cases of Utrecht are not there: 0, 6, 8, 17," in printed
    assert "18 of the 20 training cases of GE3T are not there: 102, 103," in printed
    assert "not among the challenge's training cases: 999" in printed
    (challenge.root / "phantom.json").write_text("{}")
    assert challenge.module().phantom
    challenge.module(split=ALL, strata=None).prepare_data()
    assert "not there" not in capsys.readouterr().out
    assert completeness([str(number) for numbers in TRAINING.values() for number in numbers]) == []
    assert {centre: len(numbers) for centre, numbers in TRAINING.items()} == dict.fromkeys(TRAINING, 20)


def test_a_centre_with_too_few_cases_and_folders_without_any_are_data_errors(tmp_path):
    challenge = filled(tmp_path, "2017")
    with pytest.raises(DataError, match="GE3T: 2 persons with usable cases are too few"):
        challenge.module(split={"train": 3, "validation": 3, "test": 3}).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no training case; no folder holds wmh\.nii\.gz"):
        challenge.module(root=str(tmp_path / "empty")).list_cases()
    with pytest.raises(DataError, match="there is no such folder"):
        challenge.module(root=str(tmp_path / "nothing")).list_cases()


def test_scores_can_be_computed_on_resized_slices(challenge):
    challenge.add("Utrecht", 2)
    module = challenge.module(split={"train": 0, "validation": 0, "test": None}, strata=None, eval_size=[32, 40])
    (batch,) = module.test_dataloader()
    image, labels = (array[::-1, ::-1].copy() for array in brain(2, SHAPES["Utrecht"]))
    assert batch["image"].shape == (1, 1, 32, 40, 6) and batch["target"]["wmh"].shape == (1, 32, 40, 6)
    assert batch["spacing"][0] == pytest.approx((0.9583 * 20 / 32, 0.9583 * 22 / 40, 3), rel=1e-4)
    for part in range(6):
        plane = resize(torch.from_numpy(image[..., part] / image.max()), (32, 40))
        np.testing.assert_allclose(batch["image"][0, 0, ..., part], plane, atol=1e-6)
        expected = resize(torch.from_numpy(labels[..., part] == 1), (32, 40)) >= 0.5
        np.testing.assert_array_equal(batch["target"]["wmh"][0, ..., part] == 1, expected)
    # The volume covers the same part of the world.
    resized, whole = module.cases("test")[0].image, challenge.module().examine().reports[0].image
    for corner in ([-0.5, -0.5, -0.5], [1, 1, 1]):
        ends = [np.array(one.affine) @ [*np.where(np.array(corner) < 0, -0.5, np.array(one.shape) - 0.5), 1]
                for one in (resized, whole)]
        np.testing.assert_allclose(*ends, atol=1e-3)
    assert module.fingerprint != challenge.module(split=module.split, strata=None).fingerprint


@pytest.mark.parametrize("settings", [
    {"use": "all"}, {"flair": "raw"}, {"on_unknown": "drop"}, {"unplaced": "guess"}, {"strata": "site"},
    {"targets": ["lesion"]}, {"eval_size": 0}, {"eval_size": [1, 2, 3]},
])
def test_senseless_settings_name_the_key(challenge, settings):
    with pytest.raises(ConfigError, match=rf"data\.{next(iter(settings))}"):
        challenge.module(**settings)


def test_training_batches_mix_shapes_and_visit_every_slice_once_per_epoch(tmp_path):
    challenge = filled(tmp_path, "2017")
    module = challenge.module(split={"train": None, "validation": 0, "test": 0}, strata=None,
                              sampling=Slices(16, batch_size=4, rotation_degrees=0))
    cases = {case.id: case for case in module.cases("train")}
    slices = sum(case.image.shape[2] for case in cases.values())
    assert slices == 3 * 6 + 2 * 6 + 2 * 8
    module.configure_stream(seed=3, steps=slices // 2)
    batches = list(module.train_dataloader())
    assert all(batch["image"].shape == (4, 1, 16, 16) and batch["target"]["wmh"].shape == (4, 16, 16)
               for batch in batches)
    seen = [(name, image.numpy().tobytes()) for batch in batches
            for name, image in zip(batch["case"], batch["image"], strict=True)]
    for epoch in (seen[:slices], seen[slices:]):
        assert len(set(epoch)) == slices
        assert {name: [one for one, _ in epoch].count(name) for name in cases} == {
            name: case.image.shape[2] for name, case in cases.items()}
    assert seen[:slices] != seen[slices:]
    module.configure_stream(seed=3, steps=slices // 2, start_step=5)
    assert torch.equal(next(iter(module.train_dataloader()))["image"], batches[5]["image"])
