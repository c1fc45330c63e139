"""Callbacks that pull the plug at a chosen moment of a real training."""

import os
import signal
from typing import Any

import pytorch_lightning as pl


class Strike(pl.Callback):
    """Send this process a signal.

    Args:
        name: of the signal, such as SIGKILL.
        step: optimiser steps done when it comes.
        moment: ``step``: after a step; ``validation``: while its validation runs; ``checkpoint``: while its checkpoint
            is written; ``test``: in the test.
        rank: the only rank that is struck.
    """

    def __init__(self, name: str, step: int, moment: str = "step", rank: int = 0) -> None:
        self.name, self.step, self.moment, self.rank = name, step, moment, rank

    def strike(self, trainer: pl.Trainer, moment: str) -> None:
        if moment == self.moment and trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.step = -1
            os.kill(os.getpid(), getattr(signal, self.name))

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "step")

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "validation")

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "checkpoint")

    def on_test_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.strike(trainer, "test")


class Order(pl.Callback):
    """Append the cases of every batch to a file: step, then their ids."""

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        with open(self.file, "a", encoding="utf-8") as lines:  # noqa: PTH123
            lines.write(f"{trainer.global_step} {float(batch['image'].double().sum()):.9f} {' '.join(batch['case'])}\n")
