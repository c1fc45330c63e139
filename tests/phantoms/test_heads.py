"""The head phantom: layout, legal values, the tools' habits, the same bytes always."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.errors import ConfigError, DataError
from segexp.phantoms import tools
from segexp.phantoms.anatomy import anatomical_head, find_maps, read_map
from segexp.phantoms.head import CSF, GREY, WHITE, ellipsoid_head
from segexp.phantoms.ukbiobank import write

REAL = Path(__file__).parents[3] / "shared" / "real" / "brain"
LEGAL = {"T1_brain_seg": range(4), "T1_brain_seg_spm": range(4), "T1_MALPEM": range(139), "T1_MALPEM_tissues": range(6),
         "T1_first_all_fast_firstseg": (0, 10, 11, 12, 13, 16, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)}
SMALL = {"subjects": 3, "broken": 5, "profile": "nano", "rotated": [2], "spm_failure": 1.0, "n_parcels": 4}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean Dice over the foreground values of either."""
    values = np.union1d(a, b)[1:]
    return float(np.mean([2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values]))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write(folder, **SMALL)
    return folder


def test_values_are_legal_and_the_tissue_map_is_the_lookup(tree: Path) -> None:
    for case in ("9000001_20252_2_0", "9000003_20252_2_0"):
        for file in [*(tree / "bulk" / case).rglob("*.nii.gz"), *(tree / "derived" / case).glob("*.nii.gz")]:
            values = np.unique(np.asarray(nib.load(file).dataobj))
            legal = LEGAL.get(file.name.removesuffix(".nii.gz"))
            assert legal is None or set(values.tolist()) <= set(legal), file
        malp, tissue = (np.asarray(nib.load(tree / "derived" / case / name).dataobj)
                        for name in ("T1_MALPEM.nii.gz", "T1_MALPEM_tissues.nii.gz"))
        assert (tools.MALP_TO_TISSUE[malp] == tissue).all()


def test_the_truth_lies_outside_the_tree(tree: Path) -> None:
    assert not [path for path in (tree / "bulk").rglob("*") if "truth" in path.name]
    manifest = (tree / "truth" / "manifest.csv").read_text().splitlines()
    assert manifest[0] == "case,rotated,failed_tools,broken"
    assert manifest[3] == "9000003_20252_2_0,1,spm_tissue,"
    assert [line.rpartition(",")[2] for line in manifest[4:]] == [
        "missing_first", "truncated", "wrong_shape", "unusable", "unknown_label"]


def test_broken_subjects_are_broken(tree: Path) -> None:
    bulk = tree / "bulk"
    assert not list((bulk / "9000004_20252_2_0").rglob("*firstseg*"))
    with pytest.raises(Exception, match=r".+"):
        np.asarray(nib.load(bulk / "9000005_20252_2_0/T1/T1.nii.gz").dataobj)
    shapes = {path.name: nib.load(path).shape for path in (bulk / "9000006_20252_2_0").rglob("*.nii.gz")}
    assert len(set(shapes.values())) == 2
    assert [path.name for path in (bulk / "9000007_20252_2_0" / "T1").iterdir()] == ["unusable"]
    assert 99 in np.asarray(nib.load(next((bulk / "9000008_20252_2_0").rglob("*brain_seg*"))).dataobj)


def test_the_flat_layout_holds_the_same_maps(tree: Path, tmp_path: Path) -> None:
    write(tmp_path, **{**SMALL, "subjects": 1, "broken": 0, "layout": "flat"})
    flat = {path.name: path.read_bytes() for path in (tmp_path / "flat" / "9000001").iterdir()}
    name = "9000001_20252_2_0"
    bulk = [*(tree / "bulk" / name).rglob("*.nii.gz"), *(tree / "derived" / name).iterdir()]
    assert flat == {path.name: path.read_bytes() for path in bulk}


def test_again_is_already_there_and_other_settings_are_refused(tree: Path, capsys: pytest.CaptureFixture) -> None:
    before = contents(tree)
    write(tree, **SMALL)
    assert "already there" in capsys.readouterr().out
    assert contents(tree) == before
    with pytest.raises(ConfigError, match="seed: 42 there, 7 asked for"):
        write(tree, **{**SMALL, "seed": 7})


def test_a_killed_writer_is_continued_to_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    code = f"from segexp.phantoms.ukbiobank import write; write({str(tmp_path)!r}, processes=1, **{SMALL!r})"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("truth/.written/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.glob("truth/.written/*"))) < 8
    write(tmp_path, **SMALL)
    # What was under way at the kill has a hidden, temporary name and is no part of the tree.
    found = {name: data for name, data in contents(tmp_path).items()
             if ".writing" not in name and not name.endswith(".part")}
    assert found == contents(tree)


def test_the_tools_disagree_in_their_own_ways() -> None:
    rng = np.random.default_rng(3)
    head = ellipsoid_head("tiny", rng, rotated=False, n_parcels=12)
    image = tools.scan(head, rng)
    fast, good, failed = tools.fast(head, image, rng), tools.spm(head, rng, False), tools.spm(head, rng, True)
    malp, first = tools.malp_em(head, rng), tools.first(head, rng, False, ellipsoids=True)
    assert 0.70 < dice(fast, head.tissue) < 0.90
    assert dice(good, head.tissue) > 0.88
    assert 0.70 < dice(fast, good) < 0.90
    assert dice(tools.MALP_TO_TISSUE[malp], tools.MALP_TO_TISSUE[head.malp_em]) > 0.80
    assert dice(first, head.first) > 0.75
    assert dice(failed, head.tissue) < 0.35
    deep = np.isin(head.first, (10, 49, 13, 52, 16))
    assert (fast[deep] == WHITE).mean() > 0.5 > (good[deep] == WHITE).mean()
    volumes = [(head.tissue == k).sum() * head.spacing**3 / 1e6 for k in (CSF, GREY, WHITE)]
    assert 1.3 < sum(volumes) < 2.2
    assert volumes[0] < volumes[1] < volumes[2]


def test_rotated_heads_are_pitched() -> None:
    def pitch(rotated: bool) -> float:
        points = ellipsoid_head("nano", np.random.default_rng(1), rotated, 2).points
        direction = (points[:, 24, 40, 24] - points[:, 24, 16, 24]) / 1.0
        return abs(np.degrees(np.arctan2(direction[2], direction[1])))

    assert pitch(True) > 15 > pitch(False)


def test_maps_that_are_not_freesurfers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no NIfTI"):
        find_maps(tmp_path)
    values = np.full((8, 8, 8), 3, np.int16)
    values[0] = 2035
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "seg.nii.gz")
    with pytest.raises(DataError, match=r"seg\.nii\.gz.*2035"):
        read_map(tmp_path / "seg.nii.gz")


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real heads are not here")
def test_real_anatomy_keeps_left_on_the_left() -> None:
    maps = find_maps(REAL)
    assert len(maps) == 12
    head = anatomical_head(maps[0], "nano", np.random.default_rng(0), False, 12)
    assert set(np.unique(head.first).tolist()) <= set(LEGAL["T1_first_all_fast_firstseg"])
    assert head.points[0][head.first == 10].mean() < 0 < head.points[0][head.first == 49].mean()
    assert {1, 2, 3} <= set(np.unique(head.tissue).tolist())
    assert (tools.MALP_TO_TISSUE[head.malp_em] > 0).sum() > 0.9 * (head.tissue > 0).sum()
    image = tools.scan(head, np.random.default_rng(1))
    fast = tools.fast(head, image, np.random.default_rng(2))
    assert dice(fast, head.tissue) > 0.6


def test_the_phantoms_need_no_torch() -> None:
    code = "import sys, segexp.phantoms.ukbiobank; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
