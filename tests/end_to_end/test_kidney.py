"""Kidneys from whole CTs: regions cut, trained, scored inside and on the CT, and label maps of new CTs."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from segexp.cli import main
from segexp.config import compose
from segexp.runs import list_runs
from segexp.runs.restore import restore_data

WINDOW = ["data.roi.unit=mm", "data.roi.size=97.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return outputs with six CTs in KiTS' layout, and a network that was trained for a few steps on their regions."""
    outputs = tmp_path_factory.mktemp("kidneys")
    assert main(["phantom", "data=kidney_cta", "scale=smoke", "phantom.kind=ct", "data.layout=kits23",
                 "phantom.cases=6", "phantom.test=0", "phantom.broken=0", "phantom.processes=1",
                 f"output={outputs}/kits23", f"paths.outputs={outputs}"]) == 0
    assert main(["train", "experiment=kidney_ppm/fcn_ppm", "scale=smoke", "trainer=cpu", "data.layout=kits23", *WINDOW,
                 f"data.root={outputs}/kits23", f"paths.outputs={outputs}"]) == 0
    return outputs


def scan(folder: Path) -> Path:
    return folder / "kits23" / "dataset" / "case_00005" / "imaging.nii.gz"


def predict(folder: Path, output: str, *more: str) -> int:
    return main(["predict", "run=fcn_ppm", f"input={scan(folder)}", f"output={folder / output}",
                 f"paths.outputs={folder}", *more])


def test_regions_are_also_scored_on_their_ct(folder: Path) -> None:
    scores = pd.read_csv(list_runs(folder)[0].path / "scores.csv")
    assert {"dice", "dice_ct", "assd_px", "assd_px_ct", "roi_recall"} <= set(scores["metric"])
    recall = scores.loc[scores["metric"] == "roi_recall", "value"]
    assert len(recall) == scores["case"].nunique() and (recall > 0.9).all()


def test_other_data_are_scaled_by_the_mean_of_the_training(folder: Path) -> None:
    run = list_runs(folder)[0]
    other = compose("train", ["experiment=kidney_ppm/fcn_ppm", "scale=smoke", f"data.root={folder}/elsewhere"])
    mean = restore_data(run, other).intensity.mean
    assert 0 < mean < 1
    # No training case, so no mean to take but the run's own.
    assert main(["evaluate", "run=fcn_ppm", "data.split.train=0", "data.split.test=6", "data.splits_file=null",
                 f"paths.outputs={folder}"]) == 0
    record = json.loads(next(run.path.glob("evaluations/*/evaluation.json")).read_text())
    assert record["phantom"] is True


@pytest.mark.parametrize("choice", ["precomputed", "none"])
def test_a_whole_ct_gets_labels_on_its_own_grid(folder: Path, choice: str) -> None:
    regions = folder / "rois.json"
    regions.write_text(json.dumps({"case_00005": [{"start_zyx": [10, 5, 30], "size_zyx": [30, 24, 24]}]}))
    more = [f"data.roi.file={regions}"] if choice == "precomputed" else []
    assert predict(folder, choice, f"data/roi={choice}", *more) == 0
    labels = nib.load(next((folder / choice).rglob("*_dseg.nii.gz")))
    image = nib.load(scan(folder))
    assert labels.shape == image.shape and nib.aff2axcodes(labels.affine) == ("I", "P", "L")
    np.testing.assert_array_equal(labels.affine, image.affine)
    assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1, 2}


def test_what_regions_need_is_said(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert predict(folder, "label") == 3
    assert f"{scan(folder)}: data/roi=label takes the regions from the labels" in capsys.readouterr().err
    assert predict(folder, "lowres", "data/roi=lowres", f"data.roi.run={folder}/runs/kidney_ppm/localizer") == 2
    assert "expected the directory of a trained localiser; there is none" in capsys.readouterr().err
    assert predict(folder, "lowres", "data/roi=lowres") == 2
    assert "data.roi.run" in capsys.readouterr().err
    # A run that is no finder of kidneys is no localiser.
    assert predict(folder, "lowres", "data/roi=lowres", f"data.roi.run={folder}/runs/kidney_ppm/fcn_ppm") == 3
    assert "trained with data.resample=None; expected three equal edges" in capsys.readouterr().err
