"""Row 17: without Weights & Biases, without a network or with a full disk for curves, training is what it always is."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from segexp.cli import main
from segexp.runs import loggers
from tests.faults.conftest import Trained, elsewhere, results

Break = Callable[[pytest.MonkeyPatch], None]


def absent(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "wandb", None)


def no_network(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENETUNREACH, "network is unreachable (by the test)")

    patch.setattr(socket.socket, "connect", refuse)
    patch.setattr(socket, "create_connection", refuse)
    patch.setattr(socket, "getaddrinfo", refuse)
    patch.setenv("WANDB_API_KEY", "0" * 40)
    patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    patch.setattr(loggers, "PATIENCE", 5.0)


def no_account(patch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        patch.delenv(name, raising=False)
    patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    patch.setattr(loggers, "PATIENCE", 5.0)


def down_in_the_middle(patch: pytest.MonkeyPatch) -> None:
    """Both loggers work, and from the third row on they raise what a lost connection or a full disk raises."""
    from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

    def failing(real: Any, error: Exception) -> Any:
        calls = []

        def log(self: Any, *args: Any, **more: Any) -> None:
            calls.append(1)
            if len(calls) > 2:
                raise error
            real(self, *args, **more)

        return log

    patch.setattr(WandbLogger, "log_metrics", failing(WandbLogger.log_metrics, ConnectionResetError("by peer")))
    patch.setattr(TensorBoardLogger, "log_metrics", failing(TensorBoardLogger.log_metrics, OSError(errno.ENOSPC, "")))


def pictures_fail(patch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.loggers import WandbLogger
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(WandbLogger, "log_image", fail)
    patch.setattr(SummaryWriter, "add_image", fail)
    patch.setattr(WandbLogger, "log_hyperparams", fail)


CASES: dict[str, tuple[Break, tuple[str, ...], str]] = {
    "wandb absent": (absent, ("logger=all",), "Weights & Biases is left out from here on"),
    "offline, no network": (no_network, ("logger=all",), ""),
    "online, no account": (no_account, ("logger=wandb", "logger.wandb.mode=online"), "Weights & Biases is left out"),
    "online, no network": (no_network, ("logger=wandb", "logger.wandb.mode=online"), "Weights & Biases is left out"),
    "down in the middle": (down_in_the_middle, ("logger=all",), "TensorBoard is left out from here on: OSError"),
    "pictures fail": (pictures_fail, ("logger=all",), "Weights & Biases is left out from here on: OSError"),
}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """End what a run of another test has begun with Weights & Biases: the names are the same."""
    yield
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()


@pytest.mark.parametrize("name", CASES)
def test_training_is_the_same_and_no_row_is_lost(name: str, trained: Trained, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    breaking, more, said = CASES[name]
    with monkeypatch.context() as patch:
        breaking(patch)
        assert main(elsewhere(trained, tmp_path, *more)) == 0
    out = capsys.readouterr().out
    assert said in out and out.count("is left out from here on") <= 2
    weights, curves, scores = results(tmp_path)
    expected_weights, expected_curves, expected_scores = results(trained.outputs)
    assert weights.keys() == expected_weights.keys()
    assert all(torch.equal(weights[key], expected_weights[key]) for key in weights)
    assert curves == expected_curves and scores == expected_scores
    assert len(curves.splitlines()) >= 3


def test_a_full_disk_for_curves_is_said_once_and_the_rows_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    logger = loggers.csv(str(tmp_path))
    real = loggers.write_text

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loggers, "write_text", full)
    for step in range(50):
        logger.log_metrics({"train/loss": step / 7}, step)
        logger.write()
    assert capsys.readouterr().out.count("cannot be written (No space left on device)") == 1
    monkeypatch.setattr(loggers, "write_text", real)
    logger.finalize("success")
    again = loggers.read_curves(tmp_path / "metrics" / "metrics.csv", 1000)
    assert again == {step: {"train/loss": step / 7} for step in range(50)}
