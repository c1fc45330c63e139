import numpy as np
import pytest

from segexp.data import CAIN, Slices
from segexp.data.intensity import MaxScale
from segexp.errors import ConfigError, DataError
from tests.data.brains import CAIN_DEFAULTS, brain, store

SHAPE, AFFINE = (18, 20, 5), np.diag([0.859, 0.859, 3, 1.0])
BIDS = ("sub-{0}/anat/sub-{0}_FLAIR.nii.gz", "derivatives/manual/sub-{0}/anat/sub-{0}_label-WMH_mask.nii.gz")


class Study:
    """Images with label maps on disk; ``add`` writes a case."""

    def __init__(self, base, layout=BIDS):
        self.base, self.root, self.layout = base, base / "study", layout
        self.root.mkdir()

    def add(self, name, seed, value=1, empty=False):
        image, labels = brain(seed, SHAPE)
        image_file, mask_file = (self.root / template.format(name) for template in self.layout)
        store(image_file, image, AFFINE)
        return store(mask_file, ((labels == 1) * value * (not empty)).astype(np.uint8), AFFINE)

    def module(self, **changes):
        settings = {key: value for key, value in CAIN_DEFAULTS.items() if key not in ("_target_", "intensity")}
        settings |= {"root": str(self.root), "cache": str(self.base / "cache"), "targets": ["wmh"], "workers": 0,
                     "intensity": MaxScale()}
        return CAIN(**{**settings, **changes})


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path)
    for number, name in enumerate(("003", "001", "002"), 1):
        study.add(name, number)
    return study


def reports(study, **changes):
    return {report.listed.id: report for report in study.module(**changes).examine().reports}


def test_every_case_is_tested_on_and_none_is_trained_on(study):
    (study.root / "participants.tsv").write_text(
        "\ufeffparticipant_id\tage\tsite\nsub-001\t60\tToronto\n002\t61\tn/a\n", encoding="utf-8")
    module = study.module(sampling=Slices(8))
    assert [(case.id, case.group) for case in module.cases("test")] == [
        ("sub-001", "Toronto"), ("sub-002", ""), ("sub-003", "")]
    assert module.cases("train") == module.cases("validation") == []
    assert module.check().counts == {"ok": 3, "warning": 0, "rejected": 0}
    batch = next(iter(module.test_dataloader()))
    image, labels = brain(2, SHAPE)
    np.testing.assert_allclose(batch["image"][0, 0], image / image.max(), rtol=1e-6)
    np.testing.assert_array_equal(batch["target"]["wmh"][0], labels == 1)
    assert batch["spacing"][0] == pytest.approx((0.859, 0.859, 3))
    module.configure_stream(seed=1, steps=1)
    with pytest.raises(ConfigError, match="nothing to train on"):
        module.train_dataloader()
    assert not module.phantom
    (study.root / "phantom.json").write_text("{}")
    assert module.phantom


def test_the_column_of_the_groups_is_a_key_and_a_wrong_one_is_named(study):
    (study.root / "participants.tsv").write_text("participant_id\tscanner\nsub-001\tGE\n")
    with pytest.raises(DataError, match=r"participants\.tsv: no column site; there are participant_id, scanner"):
        study.module().list_cases()
    assert [case.group for case in study.module(group="scanner").list_cases()] == ["GE", "", ""]
    assert [case.group for case in study.module(participants=None).list_cases()] == ["", "", ""]


def test_a_mask_may_hold_another_value_and_one_without_lesions_is_fine(study):
    study.add("001", 2, value=255)
    study.add("002", 3, empty=True)
    found = reports(study)
    assert found["sub-002"].status == "ok" and found["sub-002"].case.targets["wmh"].counts[1] == 0
    assert found["sub-001"].status == "rejected"
    assert "value 255 (" in found["sub-001"].reason and "it declares 0..1" in found["sub-001"].reason
    assert "data.mask_value" in found["sub-001"].reason
    found = reports(study, mask_value=255)
    assert [found[f"sub-00{n}"].status for n in (1, 2, 3)] == ["ok", "ok", "rejected"]
    assert found["sub-001"].case.targets["wmh"].counts[1] == (brain(2, SHAPE)[1] == 1).sum()


def test_what_matches_twice_or_not_at_all_is_rejected_and_hidden_files_are_passed_over(study):
    mask = study.add("001", 2)
    (mask.parent / f"._{mask.name}").write_bytes(b"\x00\x05\x16\x07")
    (mask.parent / f"{mask.name}.json").write_text("{}")
    assert reports(study)["sub-001"].status == "ok"
    store(study.root / "derivatives" / "second" / "sub-001" / "lesion_mask.nii", np.zeros(SHAPE, np.uint8), AFFINE)
    store(study.root / "sub-002" / "anat" / "sub-002_run-2_FLAIR.nii", brain(9, SHAPE)[0], AFFINE)
    for file in (study.root / "derivatives" / "manual" / "sub-003").rglob("*.nii.gz"):
        file.unlink()
    found = reports(study)
    assert "2 files match data.mask_glob: " in found["sub-001"].reason
    assert "2 files match data.image_glob: " in found["sub-002"].reason
    assert found["sub-003"].reason.endswith("derivatives/*/sub-003/**/*mask.nii*")
    assert "wmh: there is no" in found["sub-003"].reason
    assert reports(study, mask_glob="derivatives/manual/{sub}/**/*mask.nii*")["sub-001"].status == "ok"


@pytest.mark.parametrize(("layout", "image_glob", "mask_glob", "ids"), [
    (("images/{0}_FLAIR.nii.gz", "masks/{0}.nii.gz"), "images/*_FLAIR.nii*", "masks/{sub}.nii*", ["a[1]", "b"]),
    (("{0}/scan/flair.nii", "{0}/scan/seg.nii"), "**/case*/scan/flair.nii", "{sub}/scan/seg.nii", ["caseA", "caseB"]),
    (("x/{0}.nii", "y/{0}.nii"), "x/*", "y/{sub}", ["p.nii", "q.nii"]),
])
def test_other_layouts_are_patterns(tmp_path, layout, image_glob, mask_glob, ids):
    study = Study(tmp_path, layout)
    for number, name in enumerate(ids):
        study.add(name.removesuffix(".nii"), number)
    module = study.module(image_glob=image_glob, mask_glob=mask_glob)
    assert [case.id for case in module.list_cases()] == ids
    assert module.check().counts["ok"] == 2


def test_absent_folders_and_patterns_without_a_match_say_what_to_set(study, tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        study.module(root=str(tmp_path / "nothing")).list_cases()
    with pytest.raises(DataError, match=r"no image matches data\.image_glob=\*\.nii"):
        study.module(image_glob="*.nii").list_cases()


@pytest.mark.parametrize("settings", [
    {"mask_glob": "masks/*.nii"}, {"image_glob": "images/flair.nii"}, {"mask_value": 0}, {"mask_value": 1.5},
    {"on_unknown": "drop"}, {"unplaced": "guess"},
    {"label_maps": {"wmh": {0: "background", 1: "wmh", 2: "other_pathology"}}},
])
def test_senseless_settings_name_the_key(study, settings):
    with pytest.raises(ConfigError, match=rf"data\.{next(iter(settings))}"):
        study.module(**settings)
