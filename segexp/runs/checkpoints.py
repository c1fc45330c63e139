"""Checkpoints of a run: the last two, whole at every moment, of tensors and plain values alone.

``checkpoints/last.ckpt`` and ``previous.ckpt`` are written at the end of a step. What training draws at random is a
function of seed, step and rank (``StepSeeds``, and the samples of ``segexp.data.sampling``), so a checkpoint needs no
state of a generator or a loader: any kill, at any place, goes on to the numbers of an undisturbed run.
"""

import copy
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from segexp import tensors
from segexp.console import say
from segexp.runs.directory import Run
from segexp.runs.loggers import Curves
from segexp.runs.stopping import StopRequest

CONTINUE, WRITE, STOP = 0, 1, 2


def resume_point(run: Run) -> tuple[Path | None, int]:
    """Return the newest checkpoint of a run that can be used and its step; say why another one cannot.

    None and 0 without one.
    """
    for file in (run.checkpoint, previous(run.checkpoint)):
        if file.exists():
            try:
                return file, int(tensors.load(file)["global_step"])
            except (tensors.TensorFileError, KeyError, TypeError, ValueError) as error:
                say(f"{run.id} cannot go on from {file.name}: {error}")
    return None, 0


def previous(file: Path) -> Path:
    """Return where the checkpoint before ``file`` is kept."""
    return file.with_name("previous.ckpt")


def clear_leftovers(run: Run) -> None:
    """Remove what a killed process had begun to write beside the checkpoints; only their holder may call this."""
    for file in run.checkpoint.parent.glob(".*.part"):
        file.unlink(missing_ok=True)


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's door to checkpoints: beside, flushed, hashed, renamed; loaded without executing anything."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``path`` and keep the one before."""
        tensors.save(checkpoint, path, keep=previous(Path(path)))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Return the content; raises TensorFileError."""
        return tensors.load(path)


class StepSeeds(pl.Callback):
    """Seed torch, numpy and Python anew before every batch, from the run's seed and the batch's number.

    Dropout and whatever else draws at random in training then neither depends on what was drawn before, in how many
    processes, nor on where a run was interrupted.
    """

    def __init__(self, seed: int, number: Callable[[int], int]) -> None:
        """Take the run's seed and what makes this rank's batch number a number over all ranks."""
        self.seed, self.number = seed, number

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        """Seed."""
        words = np.random.SeedSequence((self.seed, 2, self.number(index))).generate_state(3)
        seed = int(words[0]) << 32 | int(words[1])
        # torch.manual_seed keeps a call, with its stack, for every device that is not in use: milliseconds per step.
        torch.default_generator.manual_seed(seed)
        device = trainer.strategy.root_device.type
        if device in ("cuda", "mps"):
            getattr(torch, device).manual_seed(seed)
        np.random.seed(words[2])
        random.seed(int(words[2]))


class Checkpoint(pl.Callback):
    """Save at the end of steps: now and then, at the last step, and when the run is asked to stop.

    Whether to save is decided at every step by all ranks together, because the clock and signals are not the same
    everywhere.

    Args:
        folder: the run's directory.
        every_steps: optimiser steps between two checkpoints.
        every_minutes: minutes after which one is written earlier.

    Attributes:
        request: what the process was asked; training sets it.
    """

    every_rank = True

    def __init__(self, folder: str, every_steps: int = 1000, every_minutes: float = 10) -> None:
        self.file = Path(folder) / "checkpoints" / "last.ckpt"
        self.every_steps, self.every_seconds = every_steps, 60 * every_minutes
        self.request = StopRequest()
        self.step, self.written_step, self.written_time = 0, 0, time.monotonic()
        self.loops: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from where the run starts or goes on.

        Where it goes on at a step that is validated, it validates: it may have ended in the midst of that.
        """
        self.step = self.written_step = trainer.global_step
        self.written_time = time.monotonic()
        if trainer.global_step and validation_due(trainer):
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save when it is time and the step is a whole one; stop when the run was asked to."""
        if trainer.global_step == self.step:
            return  # gradients are still being collected
        self.step = trainer.global_step
        # Lightning could go on from inside a validation, but not to the same numbers.
        self.loops = copy.deepcopy(trainer.fit_loop.state_dict()) if validation_due(trainer) else None
        decision = self.decide(trainer)
        if decision != CONTINUE:
            # This step's curves come after this call otherwise, and would be missing when the run goes on.
            trainer._logger_connector.update_train_step_metrics()
            self.write(trainer)
        if decision == STOP:
            raise self.request.exception()

    def decide(self, trainer: pl.Trainer) -> int:
        """Return the most that any rank asks for."""
        steps = trainer.global_step - self.written_step
        late = time.monotonic() - self.written_time > self.every_seconds
        due = steps >= self.every_steps or late or trainer.global_step == trainer.max_steps
        wish = STOP if self.request.signal is not None else WRITE if due else CONTINUE
        if trainer.world_size == 1:
            return wish
        wishes = torch.tensor(wish, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        return int(wishes)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop between two cases; several ranks have different numbers of them and stop at the end."""
        if self.request.signal is not None and trainer.world_size == 1:
            self.stop_in_validation(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop after the last case."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self.decide(trainer) == STOP:
            self.stop_in_validation(trainer)

    def stop_in_validation(self, trainer: pl.Trainer) -> None:
        """Save the step that is being validated, as it was before, and end the run."""
        if trainer.state.fn == "fit" and self.loops is not None:
            self.write(trainer)
        raise self.request.exception()

    def write(self, trainer: pl.Trainer) -> None:
        """Write the curves and, unless it is there, the checkpoint of this step."""
        for logger in trainer.loggers:
            logger.write() if isinstance(logger, Curves) else logger.save()
        if trainer.global_step != self.written_step:
            trainer.save_checkpoint(self.file)
            self.written_step, self.written_time = trainer.global_step, time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let the loops be as they were at the end of the step, also when a validation has begun since."""
        if trainer.validating and self.loops is not None:
            checkpoint["loops"]["fit_loop"] = self.loops


def validation_due(trainer: pl.Trainer) -> bool:
    """Say whether a validation belongs to the step that training stands at."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    return bool(trainer.enable_validation) and batches > 0 and batches % trainer.val_check_batch == 0
