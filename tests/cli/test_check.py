"""``segexp check``: configurations, one composition, the files of a data set."""

import csv
from pathlib import Path

import pytest

from segexp.cli import main
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


def test_the_repository_is_right(capsys: pytest.CaptureFixture) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [*folder.choices([conf_dir()], "experiment"), *folder.choices([conf_dir()], "table")]
    for name in names:
        assert any(line.split()[:2] == ["ok", name] for line in lines), name
    assert " 0 wrong, " in lines[-1]


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


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few phantom heads, written by the command itself."""
    place = tmp_path_factory.mktemp("heads")
    assert main(["phantom", "data=ukbiobank", "scale=smoke", f"output={place}"]) == 0
    return place


def data_words(heads: Path, *more: str) -> list[str]:
    return ["check", "data=ukbiobank", "scale=smoke", f"data.root={heads}/bulk", f"data.derived_root={heads}/derived",
            f"data.truth_root={heads}/truth", f"paths.outputs={heads}/outputs", *more]


def test_the_files_of_a_data_set(heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = tmp_path / "manifest.csv"
    assert main(data_words(heads, f"output={manifest}")) == 0
    shown = capsys.readouterr().out
    rows = list(csv.DictReader(manifest.open()))
    assert rows and {row["status"] for row in rows} <= {"ok", "warning", "rejected"}
    assert f"{len(rows)} cases: " in shown and str(manifest) in shown
    for row in rows:
        if row["status"] != "ok":
            assert f"{row['case']}: {row['status']}: {row['reason']}" in shown


def test_the_same_folder_gives_the_same_manifest(heads: Path, capsys: pytest.CaptureFixture) -> None:
    for _ in range(2):
        assert main(data_words(heads)) == 0
    capsys.readouterr()
    assert len(list((heads / "outputs/manifests").iterdir())) == 1


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("bulk", "derived", "truth"):
        (tmp_path / name).mkdir()
    assert main(data_words(tmp_path)) == 3
    assert str(tmp_path / "bulk") in capsys.readouterr().err


def test_a_root_is_needed(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "data=ukbiobank"]) == 2
    assert "data.root=" in capsys.readouterr().err
