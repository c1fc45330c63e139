"""The FLAIR phantoms: geometry, densities, clean label maps, layouts, defects, the same bytes always."""

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from segexp.errors import ConfigError
from segexp.phantoms import cain, wmh
from segexp.phantoms.files import DEFECTS
from segexp.phantoms.flair import CORTEX, SCANNERS, Scan, draw, noise

TINY = {"cases": 4, "preset": "tiny", "processes": 1}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def values(path: Path) -> np.ndarray:
    """Return the voxels of a file in RAS order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wmh.write(tmp_path_factory.mktemp("wmh"), broken=len(DEFECTS), **TINY)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cain.write(tmp_path_factory.mktemp("cain"), broken=len(cain.DEFECTS), **TINY)


@pytest.fixture(scope="module")
def small() -> list[Scan]:
    """Return four cases per centre, half the in-plane size."""
    return [draw(centre, subject, 42, "small") for centre in ("Utrecht", "Singapore", "GE3T", "CAIN")
            for subject in range(4)]


def test_every_case_has_the_files_and_types_of_the_release(tree: Path) -> None:
    for centre, numbers in wmh.TRAINING.items():
        for number in numbers[:4]:
            files = {str(path.relative_to(tree / centre / str(number))): nib.load(path)
                     for path in (tree / centre / str(number)).rglob("*.nii.gz")}
            assert set(files) == {"pre/FLAIR.nii.gz", "pre/T1.nii.gz", "orig/FLAIR.nii.gz", "orig/T1.nii.gz",
                                  "wmh.nii.gz"}
            for image in files.values():
                assert image.get_data_dtype() == np.float32
                assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
                assert image.shape == files["wmh.nii.gz"].shape
                np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
            assert set(np.unique(files["wmh.nii.gz"].dataobj)) <= {0.0, 1.0, 2.0}


def test_the_grids_are_the_scanners(tree: Path, other: Path) -> None:
    shapes = {"Utrecht": (240, 240, 48), "Singapore": (256, 232, 48), "GE3T": (132, 256, 83), "CAIN": (256, 256, 55)}
    for centre, shape in shapes.items():
        scanner = SCANNERS[centre]
        assert scanner.grid("full")[:2] == (shape, scanner.spacing)
        half, spacing, _ = scanner.grid("small")
        assert half == (shape[0] // 2, shape[1] // 2, 16)
        np.testing.assert_allclose(spacing, (2 * scanner.spacing[0], 2 * scanner.spacing[1], 3.0))
        assert scanner.grid("tiny")[0] == (48, 48, 8)
    flair = "pre/FLAIR.nii.gz"
    codes = {case: "".join(nib.aff2axcodes(nib.load(tree / case / flair).affine))
             for case in ("Utrecht/0", "Singapore/50", "Singapore/52", "Singapore/53", "GE3T/100")}
    assert codes == {"Utrecht/0": "LPS", "Singapore/50": "LAS", "Singapore/52": "LAS", "Singapore/53": "ALS",
                     "GE3T/100": "RAS"}
    image = nib.load(other / "sub-001/anat/sub-001_FLAIR.nii.gz")
    assert "".join(nib.aff2axcodes(image.affine)) == "LAS"


def test_utrecht_is_oblique_and_the_others_are_not(tree: Path) -> None:
    direction = nib.load(tree / "Utrecht/0/wmh.nii.gz").affine[:3, :3]
    direction = direction / np.linalg.norm(direction, axis=0)
    assert direction[0, 0] == pytest.approx(-1)
    assert direction[1, 1] == pytest.approx(-np.cos(np.radians(20)), abs=1e-6)
    assert direction[2, 2] == pytest.approx(np.cos(np.radians(20)), abs=1e-6)
    for case in ("Singapore/50", "GE3T/100"):
        straight = nib.load(tree / case / "wmh.nii.gz").affine[:3, :3]
        assert np.count_nonzero(np.abs(straight) > 1e-6) == 3


def test_transposed_cases_are_the_same_brain_on_other_axes(tree: Path) -> None:
    file = tree / "Singapore/53/pre/FLAIR.nii.gz"
    case = draw("Singapore", 53, 42, "tiny")
    np.testing.assert_array_equal(values(file), case.images["pre/FLAIR"])
    assert not np.array_equal(np.asarray(nib.load(file).dataobj), case.images["pre/FLAIR"])
    np.testing.assert_allclose(nib.as_closest_canonical(nib.load(file)).affine, case.affine, atol=1e-4)


def test_lesions_have_the_density_that_was_drawn(small: list[Scan]) -> None:
    for case in small:
        assert 0.03 <= case.density <= 1
        assert 100 * (case.labels == 1).mean() == pytest.approx(case.density, abs=100 / case.labels.size)
    densities = [draw("GE3T", subject, 1, "tiny").density for subject in range(60)]
    assert np.exp(np.mean(np.log(densities))) == pytest.approx(0.2, rel=0.4)


def test_label_maps_are_clean(small: list[Scan]) -> None:
    for case in small:
        brain, lesion = case.brain, case.labels == 1
        assert not (lesion & ~brain.white).any()
        assert (brain.depth[lesion] > CORTEX).all()
        assert (brain.ventricle[lesion] >= 1).all()
        normal = brain.white & (case.labels == 0)
        for kind in ("pre", "orig"):
            assert case.images[f"{kind}/FLAIR"][lesion].mean() > 1.15 * case.images[f"{kind}/FLAIR"][normal].mean()
            assert case.images[f"{kind}/T1"][lesion].mean() < case.images[f"{kind}/T1"][normal].mean()
    near = np.concatenate([case.brain.wall[case.labels == 1] for case in small]) < 8
    assert 0.2 < near.mean() < 0.95


def test_full_grids_hold_many_lesions_of_many_sizes() -> None:
    case = draw("Utrecht", 3, 42, "full")
    assert case.labels.shape == (240, 240, 48)
    labelled, count = ndimage.label(case.labels == 1, np.ones((3, 3, 3)))
    sizes = np.bincount(labelled.ravel())[1:]
    assert count > 10
    assert sizes.max() > 20 * np.median(sizes)
    slices = (case.labels == 1).any((0, 1)).mean()
    assert 0.2 < slices < 0.8


def test_other_pathology_is_bright_cortical_and_never_in_the_other_study() -> None:
    cases = [draw(centre, subject, 5, "tiny") for centre in ("Utrecht", "Singapore", "GE3T") for subject in range(60)]
    having = [case for case in cases if (case.labels == 2).any()]
    assert 0.3 < len(having) / len(cases) < 0.5
    for case in having:
        brain = case.brain
        core = ndimage.binary_erosion(case.labels == 2, np.ones((3, 3, 1))) & (brain.depth > 0)
        image = case.images["pre/FLAIR"]
        assert image[core].mean() > 1.1 * image[(brain.depth > 3) & (brain.depth < CORTEX) & (case.labels == 0)].mean()
    assert not any((draw("CAIN", subject, 5, "tiny").labels == 2).any() for subject in range(20))


def test_the_other_study_is_harder(small: list[Scan]) -> None:
    def contrast(case: Scan) -> float:
        image, normal = case.images["orig/FLAIR"], case.brain.white & (case.labels == 0)
        return float((image[case.labels == 1].mean() - image[normal].mean()) / image[normal].std())

    assert np.median([contrast(case) for case in small[12:]]) < 0.5 * np.median([contrast(case) for case in small[:12]])


def test_the_bias_correction_leaves_less_bias(small: list[Scan]) -> None:
    for case in small[12:]:
        normal = case.brain.white & (case.labels == 0) & (case.brain.depth > 15)
        spread = {}
        for kind in ("pre", "orig"):
            smooth = ndimage.gaussian_filter(case.images[f"{kind}/FLAIR"], (4, 4, 1))[normal]
            spread[kind] = smooth.std() / smooth.mean()
        assert spread["pre"] < spread["orig"]


def test_both_layouts_hold_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    wmh.write(tmp_path, layout=2022, test_cases=1, broken=0, **TINY)
    for centre, folder in (("Utrecht", "Utrecht"), ("Singapore", "Singapore"), ("GE3T", "Amsterdam/GE3T")):
        for number in wmh.TRAINING[centre][:4]:
            assert contents(tree / centre / str(number)) == contents(tmp_path / "training" / folder / str(number))
    test = sorted(str(path.parent.relative_to(tmp_path / "test")) for path in (tmp_path / "test").rglob("wmh.nii.gz"))
    assert test == ["Amsterdam/GE1T5/160", "Amsterdam/GE3T/145", "Amsterdam/Philips_VU .PETMR_01./170", "Singapore/70",
                    "Utrecht/1"]


def test_numbers_are_unique_and_the_releases_in_count() -> None:
    settings = wmh.Settings(20, 11, 10, 0, "tiny", "2022")
    numbers = [place.number for place in wmh.places(settings)]
    assert len(numbers) == len(set(numbers)) == 60 + 50 + 11


def test_again_is_already_there_and_other_settings_are_refused(tree: Path, capsys: pytest.CaptureFixture) -> None:
    before = contents(tree)
    wmh.write(tree, broken=len(DEFECTS), **TINY)
    assert "already there" in capsys.readouterr().out
    assert contents(tree) == before
    with pytest.raises(ConfigError, match="seed: 42 there, 7 asked for"):
        wmh.write(tree, broken=len(DEFECTS), seed=7, **TINY)


def test_a_case_does_not_depend_on_the_others_or_the_processes(tree: Path, other: Path, tmp_path: Path) -> None:
    wmh.write(tmp_path / "two", cases=2, preset="tiny", processes=2)
    for centre, numbers in wmh.TRAINING.items():
        for number in numbers[:2]:
            assert contents(tmp_path / "two" / centre / str(number)) == contents(tree / centre / str(number))
    cain.write(tmp_path / "cain", broken=0, **{**TINY, "processes": 2})
    for name in ("sub-001", "sub-004", "derivatives/manual/sub-002"):
        assert contents(tmp_path / "cain" / name) == contents(other / name)
    assert contents(wmh.write(tmp_path / "seed", cases=1, preset="tiny", seed=1) / "GE3T") != contents(tree / "GE3T")


def test_an_interrupted_tree_is_continued(tree: Path, tmp_path: Path) -> None:
    wmh.write(tmp_path, broken=len(DEFECTS), **TINY)
    for path in (tmp_path / "GE3T/100").rglob("*.nii.gz"):
        path.unlink()
    for folder in ("pre", "orig", "."):
        (tmp_path / "GE3T/100" / folder).rmdir()
    wmh.write(tmp_path, broken=len(DEFECTS), **TINY)
    assert contents(tmp_path) == contents(tree)


def test_broken_cases_are_broken(tree: Path) -> None:
    case = {defect: next(tree.glob(f"*/{wmh.BROKEN + index}")) for index, defect in enumerate(DEFECTS)}
    flair, labels = "pre/FLAIR.nii.gz", "wmh.nii.gz"
    assert not (case["missing_image"] / flair).exists()
    assert not (case["missing_label_map"] / labels).exists()
    with pytest.raises(EOFError):
        gzip.decompress((case["truncated"] / flair).read_bytes())
    assert np.isnan(values(case["nan"] / flair)).sum() == 1
    assert 7 in values(case["unknown_label"] / labels)
    assert nib.load(case["wrong_shape"] / labels).shape != nib.load(case["wrong_shape"] / flair).shape
    shift = nib.load(case["wrong_affine"] / labels).affine - nib.load(case["wrong_affine"] / flair).affine
    assert np.abs(shift).max() == pytest.approx(5, abs=1e-4)
    assert not values(case["constant"] / flair).any()
    assert 0.5 in values(case["fraction"] / labels)
    assert nib.load(case["four_dimensions"] / flair).ndim == 4
    assert (case["two_files"] / flair).exists()
    assert nib.load(case["two_files"] / "pre/FLAIR.nii").shape == nib.load(case["two_files"] / flair).shape
    assert set(np.unique(values(case["truncated"] / labels))) <= {0, 1, 2}


def test_the_other_study_is_laid_out_like_bids(other: Path) -> None:
    rows = [line.split("\t") for line in (other / "participants.tsv").read_text().splitlines()]
    assert rows[0] == ["participant_id", "site", "scanner"]
    assert [row[0] for row in rows[1:]] == [f"sub-{number:03d}" for number in range(1, 10)]
    percent = []
    for number in range(1, 5):
        mask = values(other / f"derivatives/manual/sub-{number:03d}/anat/sub-{number:03d}_label-WMH_mask.nii.gz")
        assert set(np.unique(mask)) <= {0, 1}
        assert values(other / f"sub-{number:03d}/anat/sub-{number:03d}_FLAIR.nii.gz").shape == mask.shape
        percent.append(100 * mask.mean())
    assert percent[0] >= 0.03
    assert all(0.005 < value < 0.035 for value in percent[1:3])
    assert percent[3] == 0


def test_broken_cases_of_the_other_study_are_broken(other: Path) -> None:
    def masks(number: int) -> list[Path]:
        return sorted((other / "derivatives").glob(f"*/sub-{number:03d}/**/*mask.nii*"))

    assert [len(masks(number)) for number in range(5, 10)] == [2, 0, 1, 1, 1]
    with pytest.raises(EOFError):
        gzip.decompress((other / "sub-007/anat/sub-007_FLAIR.nii.gz").read_bytes())
    assert set(np.unique(values(masks(8)[0]))) == {0, 255}
    assert values(masks(9)[0]).shape != values(other / "sub-009/anat/sub-009_FLAIR.nii.gz").shape


@pytest.mark.parametrize(("settings", "message"), [
    ({"cases": 21}, "phantom.cases=21"), ({"preset": "big"}, "phantom.preset=big"), ({"layout": 2018}, "2017 or 2022"),
    ({"test_cases": 1}, "no test cases"), ({"cases": 0}, "at least one"),
])
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wmh.write(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_cases_named_but_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name cases \[3\]"):
        cain.write(tmp_path, cases=3)
    with pytest.raises(ConfigError, match=r"phantom\.preset=big"):
        cain.write(tmp_path, preset="big")


def test_noise_is_as_coarse_as_asked() -> None:
    field = noise((60, 50, 20), (1.0, 2.0, 3.0), 12, np.random.default_rng(0))
    assert field.shape == (60, 50, 20)
    np.testing.assert_allclose(np.diff(field[:12:1, 0, 0], 2), 0, atol=1e-5)  # linear between the knots
    knots = field[::12, ::6, ::4]
    assert abs(knots.mean()) < 0.25
    assert knots.std() == pytest.approx(1, abs=0.2)


def test_the_phantoms_need_no_torch() -> None:
    code = "import sys, segexp.phantoms.wmh, segexp.phantoms.cain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
