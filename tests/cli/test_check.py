"""``segexp check``: configurations, one composition, the files of a data set."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segexp.cli import main
from segexp.commands.check import problems_of_table
from segexp.config import conf_dir, folder

BROKEN = """\
# @package _global_
# An experiment with two mistakes.
defaults:
  - override /data: ukbiobank
  - override /method: neuronet
name: broken
network:
  varant: code
sampling:
  size: 100
"""
TABLE = """\
# A table with two mistakes.
title: mine
source: me
runs:
  fast: {overrides: [experiment=neuronet/single_fsl_fast]}
  bad: {overrides: [experiment=neuronet/nn_al]}
cell: {metric: dice, statistic: mean}
rows:
  mean: {}
columns:
  right: {run: fast, target: fsl_fast}
  wrong: {run: fast, target: malp_em}
"""


def test_the_repository_is_right(capsys: pytest.CaptureFixture) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [*folder.choices([conf_dir()], "experiment"), *folder.choices([conf_dir()], "table")]
    for name in names:
        assert any(line.split()[:2] == ["ok", name] for line in lines), name
    assert " 0 wrong, " in lines[-1]


def test_a_table_of_the_user_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table/mine.yaml").write_text(TABLE)
    assert problems_of_table("mine", [str(tmp_path)], (), {}) == [
        "run bad: experiment=neuronet/nn_al: experiment has no choice neuronet/nn_al; did you mean neuronet/nn_all?"
        f" (segexp list experiment shows all {len(folder.choices([conf_dir()], 'experiment'))})",
        "cell mean, wrong: run fast has no target malp_em",
    ]


def test_a_composition_of_ones_own(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "experiment=neuronet/nn_all", "network.units=3"]) == 0
    assert main(["check", "experiment=neuronet/nn_all", "network.varant=code"]) == 2
    assert "there is no key network.varant; did you mean network.variant?" in capsys.readouterr().out
    assert main(["check", "experiment=neuronet/nn_all", "sampling.size=100"]) == 2
    assert "command line: sampling.size: is 100, expected multiples of 8" in capsys.readouterr().out
    assert main(["check", "experiment=neuronet/nn_al"]) == 2
    assert "did you mean neuronet/nn_all?" in capsys.readouterr().out


def test_an_experiment_of_the_user_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/broken.yaml").write_text(BROKEN)
    assert main(["check", "experiment=broken", "--config-dir", str(tmp_path)]) == 2
    shown = capsys.readouterr().out
    assert "conf/experiment/broken.yaml: network.varant: NeuroNet takes no varant; did you mean variant?" in shown
    assert "conf/experiment/broken.yaml: sampling.size: is 100, expected multiples of 8" in shown


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """Two whole heads and one without its label map, in the flat layout."""
    random = np.random.default_rng(0)
    for person in ("1000001", "1000002", "1000003"):
        folder = tmp_path / "flat" / person
        folder.mkdir(parents=True)
        for name, values in (("T1", random.normal(100, 20, (16, 16, 16)).astype(np.float32)),
                             ("T1_brain_seg", random.integers(0, 4, (16, 16, 16)).astype(np.uint8))):
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{name}.nii.gz")
    (tmp_path / "flat/1000003/T1_brain_seg.nii.gz").unlink()
    return tmp_path


def data_words(place: Path, *more: str) -> list[str]:
    return ["check", "data=ukbiobank", "data.layout=flat", f"data.root={place}/flat", "data.require=requested",
            "method/targets=fsl_fast", "sampling.size=16", f"paths.outputs={place}/outputs", *more]


def test_the_files_of_a_data_set(heads: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = heads / "manifest.csv"
    assert main(data_words(heads, f"output={manifest}")) == 0
    shown = capsys.readouterr().out
    with manifest.open() as file:
        status = {row["case"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
    assert len(status) == 3
    (rejected,) = [case for case, (word, _) in status.items() if word == "rejected"]
    assert rejected.startswith("1000003") and "T1_brain_seg.nii.gz" in status[rejected][1]
    assert f"{rejected}: rejected: {status[rejected][1]}" in shown
    assert "3 cases: " in shown and "1 rejected" in shown and str(manifest) in shown


def test_the_same_folder_gives_the_same_manifest(heads: Path, capsys: pytest.CaptureFixture) -> None:
    for _ in range(2):
        assert main(data_words(heads)) == 0
    (manifest,) = (heads / "outputs/manifests").iterdir()
    assert str(manifest) in capsys.readouterr().out


def test_no_case_can_be_used(heads: Path, capsys: pytest.CaptureFixture) -> None:
    for file in (heads / "flat").rglob("T1_brain_seg.nii.gz"):
        file.write_bytes(b"not an image")
    manifest = heads / "manifest.csv"
    assert main(data_words(heads, f"output={manifest}")) == 3
    shown = capsys.readouterr()
    assert "no case can be used" in shown.err and str(manifest) in shown.err
    assert len(manifest.read_text().splitlines()) == 4


def test_a_folder_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(data_words(tmp_path)) == 3
    assert f"{tmp_path}/flat" in capsys.readouterr().err


def test_a_root_is_needed(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "data=ukbiobank"]) == 2
    assert "data.root=" in capsys.readouterr().err
