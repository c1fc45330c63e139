"""``segexp list``."""

from pathlib import Path

import pytest

from segexp.cli import main
from segexp.config import conf_dir, folder


def listed(capsys: pytest.CaptureFixture, *words: str) -> list[str]:
    assert main(["list", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_overview_names_every_group_and_choice(capsys: pytest.CaptureFixture) -> None:
    words = " ".join(listed(capsys)).split()
    for group in folder.own_groups([conf_dir()]):
        assert group in words
        assert set(folder.choices([conf_dir()], group)) <= set(words)


def test_every_choice_is_described(capsys: pytest.CaptureFixture) -> None:
    for group in folder.own_groups([conf_dir()]):
        for line in listed(capsys, group):
            assert len(line.split()) > 1, f"conf/{group}: {line.strip()} has no comment line of its own"


def test_a_group_by_its_last_part_and_in_the_plural(capsys: pytest.CaptureFixture) -> None:
    assert listed(capsys, "targets") == listed(capsys, "method/targets")
    assert listed(capsys, "experiments") == listed(capsys, "experiment")
    both = listed(capsys, "scale", "targets")
    assert both[0] == "scale" and "method/targets" in both


def test_an_unknown_group_gets_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "experimnt"]) == 2
    assert "there is no group 'experimnt'; did you mean experiment?" in capsys.readouterr().err


def test_choices_of_a_folder_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("# My own optimiser.\nlr: 1\n")
    assert "  mine          My own optimiser." in listed(capsys, "optimizer", "--config-dir", str(tmp_path))
