"""The kidney phantom: statistics over many cases, textures, lookalikes, layouts, headers, defects, the same bytes."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from segexp.errors import ConfigError
from segexp.phantoms import kidney_cta
from segexp.phantoms.abdomen import GRIDS, Abdomen, draw
from segexp.phantoms.canvas import SUBTYPES, Canvas, smooth, texture
from segexp.phantoms.kidney import CYST, KIDNEY, TUMOR, draw_balls, draw_bowel

TINY = {"cases": 4, "test": 1, "preset": "tiny", "processes": 1}
CT = {"cases": 3, "test": 1, "preset": "tiny", "kind": "ct", "processes": 1}
TOUCHING = ndimage.generate_binary_structure(3, 2)  # 18 neighbours


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def values(path: Path) -> np.ndarray:
    """Return the voxels of a file in RAS order, scaled by its header."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.fixture(scope="module")
def regions() -> list[Abdomen]:
    return [draw("roi", "tiny", index, seed) for seed in (0, 1, 2) for index in range(40)]


@pytest.fixture(scope="module")
def whole() -> list[Abdomen]:
    return [draw("ct", "tiny", index, 0) for index in range(40)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kidney_cta.write(tmp_path_factory.mktemp("native"), broken=len(kidney_cta.DEFECTS), **TINY)


def test_shares_and_volumes_are_the_papers(regions: list[Abdomen]) -> None:
    shares = np.mean([np.bincount(case.labels.ravel(), minlength=4) / case.labels.size for case in regions], 0)
    assert shares[0] == pytest.approx(0.7964, abs=0.03)  # as printed: 80.64, 16.93 and 2.43 % of other cases
    assert shares[KIDNEY] + shares[CYST] == pytest.approx(0.1693, abs=0.02)
    assert 0.02 < shares[TUMOR] < 0.05
    tumors, kidneys = np.array([(case.tumor_ml, case.kidney_ml) for case in regions]).T
    assert tumors.mean() == pytest.approx(33.58, rel=0.3)
    assert np.exp(np.log(tumors).mean()) == pytest.approx((2.11 * 144.82) ** 0.5, rel=0.3)
    assert kidneys.mean() == pytest.approx(156.37, rel=0.08)
    assert 0.8 * 2.11 < tumors.min() < 5 < 100 < tumors.max() < 1.2 * 144.82


def test_every_case_has_a_tumour_at_its_kidney(regions: list[Abdomen], whole: list[Abdomen]) -> None:
    for case in [*regions, *whole]:
        tumor = case.labels == TUMOR
        voxel = np.prod(case.spacing) / 1000
        assert tumor.sum() * voxel == pytest.approx(case.tumor_ml, abs=0.01)
        assert case.tumor_ml > 0.8 * 2.11
        assert case.kidney_ml > 0.25 * 85.76
        labelled, count = ndimage.label(case.labels > 0, TOUCHING)
        assert count == (1 if case.labels.shape[0] == 32 else 2)
        organ = labelled == labelled[tuple(np.argwhere(tumor)[0])]
        assert tumor[organ].sum() == tumor.sum()
        assert (case.labels[organ] == KIDNEY).any()


@pytest.mark.parametrize(("kind", "preset"), list(GRIDS))
def test_presets_cover_the_same_extent(kind: str, preset: str) -> None:
    shape, spacing = GRIDS[kind, preset]
    reference = np.multiply(*GRIDS[kind, "small"])
    np.testing.assert_allclose(np.multiply(shape, spacing), reference, rtol=0.05)


def test_the_finest_region_has_the_papers_grid() -> None:
    case = draw("roi", "full", 3, 0)
    assert case.image.shape == (150, 150, 200)
    assert case.image.dtype == np.int16
    coarse = draw("roi", "tiny", 3, 0)
    assert case.subtype in SUBTYPES
    assert 0.1 < (case.labels == KIDNEY).mean() < 0.3
    assert coarse.side in ("left", "right")


def test_sides_subtypes_and_cysts_vary(regions: list[Abdomen], whole: list[Abdomen]) -> None:
    cases = [*regions, *whole]
    assert {case.subtype for case in cases} == set(SUBTYPES)
    assert 0.35 < np.mean([case.side == "left" for case in cases]) < 0.65
    assert 0.04 < np.mean([(case.labels == CYST).any() for case in cases]) < 0.2
    for case in cases:
        cyst = ndimage.binary_erosion(case.labels == CYST)
        if cyst.sum() > 3:
            assert -20 < case.image[cyst].mean() < 60


def test_left_and_right_are_the_patients(whole: list[Abdomen]) -> None:
    for case in whole:
        x = np.argwhere(case.labels == TUMOR)[:, 0].mean() - (case.labels.shape[0] - 1) / 2
        assert (x > 0) == (case.side == "right")
        assert (case.image[0] < -900).all()
        body = ndimage.binary_dilation(ndimage.binary_fill_holes(case.image > -300))
        assert not (case.labels > 0)[~body].any()
    image = np.median([case.image for case in whole], 0)  # bowel crosses the liver in some cases
    assert np.median(image[50:57, 30:36, -5:]) == pytest.approx(110, abs=10) and np.median(image[28:35, 30:36, -5:]) < 0


def test_tumours_of_regions_lie_away_from_the_midline(regions: list[Abdomen]) -> None:
    for side, sign in (("right", 1), ("left", -1)):
        offsets = [sign * (np.argwhere(case.labels == TUMOR)[:, 0].mean() - np.argwhere(case.labels == 1)[:, 0].mean())
                   for case in regions if case.side == side]
        assert np.mean(offsets) > 2
        assert np.mean(np.array(offsets) > 0) > 0.7


def test_tissues_have_their_hounsfield_units() -> None:
    cases = [draw("roi", "small", index, 5) for index in range(4)]
    for case in cases:
        depth = ndimage.distance_transform_edt(case.labels == KIDNEY, case.spacing)
        assert 85 < np.median(case.image[case.labels == KIDNEY]) < 270
        assert np.median(case.image[(depth > 1) & (depth < 5)]) > np.percentile(case.image[depth > 8], 20)
        assert -140 < np.percentile(case.image, 20) < 60  # fat and muscle around
        assert (case.image > 500).any()  # the vertebra's shell
        assert case.image.min() >= -1024


@pytest.mark.parametrize(("subtype", "low", "high", "spread"), [
    ("clear_cell", 60, 210, (30, 90)), ("chromophobe", 85, 135, (9, 15)), ("papillary", 45, 90, (6, 10)),
    ("angiomyolipoma", -30, 60, (55, 110))])
def test_textures_differ(subtype: str, low: float, high: float, spread: tuple[float, float]) -> None:
    for seed in range(5):
        field = texture(subtype, (40, 40, 40), (1.5, 1.5, 1.5), np.random.default_rng(seed))
        assert low < field.mean() < high
        assert spread[0] < field.std() < spread[1]


def test_bowel_is_a_disc_in_every_slice_and_not_labelled() -> None:
    for seed in range(6):
        canvas = Canvas.empty((64, 64, 64), (1.5, 1.5, 1.5), -100)
        draw_bowel(canvas, (0, 0), 12, np.random.default_rng(seed))
        drawn = canvas.values != -100
        areas = drawn.sum((0, 1)) * 1.5**2
        np.testing.assert_allclose(areas, np.pi * 12**2, rtol=0.05)
        assert not canvas.labels.any()
        air = canvas.values == -950
        if air.any():
            assert np.argwhere(air)[:, 1].mean() > np.argwhere(drawn)[:, 1].mean()  # it rises to the front


def test_balls_touch_neither_kidney_nor_tumour() -> None:
    found = 0
    for index in range(10):
        canvas = Canvas.empty((64, 64, 64), (1.5, 1.5, 1.5), -100)
        canvas.labels[20:44, 20:44, 20:44] = KIDNEY
        canvas.values[canvas.labels > 0] = 200
        before = canvas.values.copy()
        draw_balls(canvas, 2, np.random.default_rng(index))
        balls = canvas.values != before
        found += ndimage.label(balls)[1]
        assert not canvas.labels[ndimage.binary_dilation(balls, np.ones((3, 3, 3)))].any()
    assert found >= 15


def test_noise_has_unit_variance() -> None:
    field = smooth((40, 30, 20), 3, (1.5, 2, 3), np.random.default_rng(0))
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1] > 0.8


def test_the_native_layout(tree: Path) -> None:
    assert json.loads((tree / "dataset.json").read_text()) == {
        "name": "synthetic kidneys", "source": "synthetic", "kind": "roi",
        "labels": {"background": 0, "kidney": 1, "tumor": 2}}
    assert json.loads((tree / "splits.json").read_text()) == {
        "train": ["case_00000", "case_00001", "case_00002"], "test": ["case_00003"]}
    for index in range(4):
        folder, case = tree / "cases" / f"case_{index:05d}", draw("roi", "tiny", index, 42)
        image, label = nib.load(folder / "image.nii.gz"), nib.load(folder / "label.nii.gz")
        assert "".join(nib.aff2axcodes(image.affine)) == "LPS"
        assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_array_equal(values(folder / "image.nii.gz"), case.image)
        np.testing.assert_array_equal(values(folder / "label.nii.gz"), np.where(case.labels == 3, 1, case.labels))
        meta = json.loads((folder / "meta.json").read_text())
        assert (meta["side"], meta["subtype"], meta["tumor_ml"]) == (case.side, case.subtype, case.tumor_ml)
        assert meta["source_shape_zyx"] == [32, 32, 32]
        np.testing.assert_allclose(nib.as_closest_canonical(image).affine, meta["source_affine"])


@pytest.mark.parametrize(("layout", "folder", "label", "listing"), [
    ("kits19", "data", "segmentation.nii.gz", "data/kits.json"),
    ("kits21", "kits21/data", "aggregated_MAJ_seg.nii.gz", "kits21/data/kits.json"),
    ("kits23", "dataset", "segmentation.nii.gz", "dataset/kits23.json")])
def test_the_layouts_of_kits(tmp_path: Path, layout: str, folder: str, label: str, listing: str) -> None:
    kidney_cta.write(tmp_path, layout=layout, seed=8, **{**CT, "cases": 2})
    for index, row in enumerate(json.loads((tmp_path / listing).read_text())):
        case, at = draw("ct", "tiny", index, 8), tmp_path / folder / f"case_{index:05d}"
        assert row["case_id"] == at.name
        assert row["tumor_histologic_subtype"] == kidney_cta.HISTOLOGY[case.subtype]
        assert sorted(path.name for path in at.iterdir()) == sorted(["imaging.nii.gz", label])
        for path in at.iterdir():
            image = nib.load(path)
            assert image.shape == case.image.shape[::-1]
            assert "".join(nib.aff2axcodes(image.affine)) == "IPL"
            assert not image.affine[:3, 3].any()
            assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 2)
        np.testing.assert_array_equal(values(at / "imaging.nii.gz"), case.image)
        wanted = case.labels if layout != "kits19" else np.where(case.labels == CYST, KIDNEY, case.labels)
        np.testing.assert_array_equal(values(at / label), wanted)


def test_cysts_have_a_value_of_their_own_in_the_later_layouts(tmp_path: Path) -> None:
    index = next(index for index in range(60) if (draw("ct", "tiny", index, 42).labels == CYST).any())
    for layout, most in (("kits19", TUMOR), ("kits23", CYST)):
        settings = kidney_cta.Settings(index + 1, 0, 0, 42, "ct", "tiny", layout, False)
        kidney_cta.write_case((tmp_path / layout, settings, index))
        assert values(next((tmp_path / layout).rglob("segmentation.nii.gz"))).max() == most


def test_rescaled_files_hold_the_same_hounsfield_units(tree: Path, tmp_path: Path) -> None:
    kidney_cta.write(tmp_path, rescaled=True, **TINY)
    file = "cases/case_00001/image.nii.gz"
    raw = nib.load(tmp_path / file)
    assert (raw.dataobj.slope, raw.dataobj.inter) == (1.0, -1024.0)
    assert raw.dataobj.get_unscaled().min() >= 0
    np.testing.assert_array_equal(values(tmp_path / file), values(tree / file))


def test_a_case_does_not_depend_on_the_others_or_the_processes(tree: Path, tmp_path: Path) -> None:
    kidney_cta.write(tmp_path / "two", cases=2, test=0, preset="tiny", processes=2)
    for case in ("case_00000", "case_00001"):
        assert contents(tmp_path / "two" / "cases" / case) == contents(tree / "cases" / case)
    kidney_cta.write(tmp_path / "seed", cases=1, test=0, preset="tiny", seed=43, processes=1)
    assert contents(tmp_path / "seed" / "cases") != {
        name: data for name, data in contents(tree / "cases").items() if name.startswith("case_00000")}


def test_again_is_already_there_and_other_settings_are_refused(tree: Path, capsys: pytest.CaptureFixture) -> None:
    before = contents(tree)
    kidney_cta.write(tree, broken=len(kidney_cta.DEFECTS), **TINY)
    assert "already there" in capsys.readouterr().out
    assert contents(tree) == before
    with pytest.raises(ConfigError, match="layout: native there, kits19 asked for"):
        kidney_cta.write(tree, broken=len(kidney_cta.DEFECTS), **{**TINY, "kind": "ct", "layout": "kits19"})


def test_an_interrupted_tree_is_continued(tmp_path: Path) -> None:
    kidney_cta.write(tmp_path, layout="kits23", **CT)
    before = contents(tmp_path)
    for path in (tmp_path / "dataset/case_00001").iterdir():
        path.unlink()
    (tmp_path / "dataset/case_00001").rmdir()
    (tmp_path / "dataset/kits23.json").unlink()
    kidney_cta.write(tmp_path, layout="kits23", **CT)
    assert contents(tmp_path) == before


def test_broken_cases_are_broken_and_in_no_split(tree: Path) -> None:
    case = {defect: tree / "cases" / f"case_{4 + index:05d}" for index, defect in enumerate(kidney_cta.DEFECTS)}
    assert json.loads((tree / "phantom.json").read_text())["defects"] == {
        path.name: defect for defect, path in case.items()}
    split = json.loads((tree / "splits.json").read_text())
    assert not {path.name for path in case.values()} & {*split["train"], *split["test"]}
    assert not (case["missing_image"] / "image.nii.gz").exists()
    assert not (case["missing_label_map"] / "label.nii.gz").exists()
    with pytest.raises(EOFError):
        gzip.decompress((case["truncated"] / "image.nii.gz").read_bytes())
    assert set(np.unique(values(case["no_tumor"] / "label.nii.gz"))) == {0, 1}
    assert 7 in values(case["unknown_label"] / "label.nii.gz")
    assert np.isnan(values(case["nan"] / "image.nii.gz")).any()
    assert not values(case["constant"] / "image.nii.gz").any()
    assert nib.load(case["four_dimensions"] / "image.nii.gz").ndim == 4
    for defect, attribute in (("wrong_shape", "shape"), ("wrong_affine", "affine")):
        image, label = (getattr(nib.load(case[defect] / f"{name}.nii.gz"), attribute) for name in ("image", "label"))
        assert not np.array_equal(image, label)


@pytest.mark.parametrize(("settings", "message"), [
    ({"layout": "kits23"}, "phantom.kind=ct"), ({"kind": "head"}, "phantom.kind=head"), ({"test": 52}, "fewer test"),
    ({"preset": "big"}, "phantom.preset=big"), ({"layout": "kits20"}, "native, kits19, kits21, kits23"),
])
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kidney_cta.write(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_the_phantom_needs_no_torch() -> None:
    code = "import sys, segexp.phantoms.kidney_cta; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
