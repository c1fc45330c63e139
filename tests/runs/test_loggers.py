"""Loggers write what they should and never stop a training."""

import builtins
import csv
from pathlib import Path

import pytest

from segexp.errors import ConfigError
from segexp.runs import loggers


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_csv_keeps_the_rows_before_its_step(tmp_path: Path) -> None:
    first = loggers.csv(str(tmp_path))
    for step in (0, 10, 20):
        first.log_metrics({"loss": step / 3}, step)
    first.finalize("failed")
    second = loggers.csv(str(tmp_path), start_step=20)
    second.log_metrics({"loss": 7.0, "val": 1.0}, 20)
    second.finalize("success")
    found = [(int(row["step"]), float(row["loss"])) for row in rows(tmp_path)]
    assert found == [(0, 0.0), (10, 10 / 3), (20, 7.0)]


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    logger = loggers.tensorboard(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 1)
    logger.save()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_missing_wandb_is_said_once_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture) -> None:
    real = builtins.__import__

    def without_wandb(name: str, *args: object, **kwargs: object) -> object:
        if name == "wandb" or name.startswith("wandb."):
            raise ModuleNotFoundError("No module named 'wandb'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    logger = loggers.wandb(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 1)
    logger.finalize("success")
    assert capsys.readouterr().out.count("left out") == 1


def test_a_logger_that_fails_in_the_middle_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Failing:
        def log_metrics(self, *args: object) -> None:
            raise OSError("no space left")

    logger = loggers.Guarded("Board", Failing)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 1.0}, 2)
    assert capsys.readouterr().out.count("no space left") == 1


def test_wandb_writes_offline_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    logger = loggers.wandb(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 1)
    logger.finalize("success")
    assert list(tmp_path.rglob("*.wandb"))


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="offline, online or disabled"):
        loggers.wandb(str(tmp_path), mode="ofline")
