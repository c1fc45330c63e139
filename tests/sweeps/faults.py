"""A callback that brings a training to a bad end, once: what a diverging loss, a bug, or the OOM killer does."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Fault(pl.Callback):
    """Ends the run with seed ``only`` in the way ``how`` when training starts; the second start goes well.

    ``how``: raise, exit, kill (SIGKILL), or wait (until the file ``go`` is there).
    """

    def __init__(self, place: str, seed: int, only: int | None, how: str) -> None:
        self.folder, self.seed, self.only, self.how = Path(place), seed, only, how

    def on_train_start(self, *args: Any) -> None:
        with (self.folder / "starts.txt").open("a") as file:
            file.write(f"{self.seed} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {os.getpid()}\n")
        if self.only is not None and self.seed != self.only:
            return
        if self.how == "wait":
            while not (self.folder / "go").exists():
                time.sleep(0.05)
            return
        marker = self.folder / f"fault_{self.seed}"
        if marker.exists():
            return
        marker.touch()
        if self.how == "raise":
            raise FloatingPointError("the loss is not a number any more")
        if self.how == "exit":
            sys.exit(3)
        os.kill(os.getpid(), signal.SIGKILL)


def fault_words(folder: Path, how: str, only: int | None = 1) -> list[str]:
    """Return the words that put the fault into a training."""
    node = f"{{_target_:tests.sweeps.faults.Fault,place:'{folder}',seed:'${{seed}}',only:{only or 'null'},how:{how}}}"
    return [f"+callbacks.fault={node}", "--allow-target", "tests."]


def gpus(folder: Path) -> dict[int, str]:
    """Return seed -> the GPUs that its training saw."""
    lines = (folder / "starts.txt").read_text().splitlines()
    return {int(line.split()[0]): line.split()[1] for line in lines}


def starts(folder: Path) -> list[int]:
    """Return the seeds of the trainings that have begun, in order."""
    file = folder / "starts.txt"
    return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []
