"""What people see of a training: progress and overlay pictures."""

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from segexp.console import PlainProgress
from segexp.files import write_json, written_whole


class Progress(pl.Callback):
    """Show how far training, validation and test are, with the time left; keep it in ``progress.json`` too.

    A bar on a terminal, a line every ten seconds elsewhere.

    Args:
        folder: the run's directory; None: nothing is written.
        title: the run's name.

    """

    SECONDS = 2.0

    def __init__(self, folder: str | None, title: str) -> None:
        self.file, self.title = Path(folder) / "progress.json" if folder else None, title
        self.bar: Any = None
        self.lines: PlainProgress | None = None
        self.noted = 0.0

    def _begin(self, stage: str, total: int, start: int = 0) -> None:
        self._end()
        self.stage, self.total, self.start, self.started = stage, total, start, time.monotonic()
        if not sys.stdout.isatty():
            self.lines = PlainProgress(f"{self.title} {stage}", total)
            self.lines.start_at(start)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(TextColumn(f"{self.title} {stage}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"),
                            TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self.task = self.bar.add_task(stage, total=total, completed=start, note="")
        self.bar.start()

    def _advance(self, done: int, note: str = "") -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, note=note)
        elif self.lines is not None:
            self.lines.advance(note)
        now = time.monotonic()
        if self.file and (now - self.noted > self.SECONDS or done == self.total):
            self.noted = now
            left = (now - self.started) / max(done - self.start, 1) * (self.total - done)
            write_json(self.file, {"stage": self.stage, "done": done, "total": self.total,
                                   "seconds_left": round(left, 1), "note": note})

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = self.lines = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, or go on, with the training bar."""
        self._begin("train", trainer.max_steps, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        """Show the step and, now and then, the loss: reading it waits for the device."""
        note = ""
        if time.monotonic() - self.noted > self.SECONDS:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            note = f"loss {float(loss):.3f}"
            dice = trainer.callback_metrics.get("val/dice")
            note += f", validation Dice {float(dice):.3f}" if dice is not None else ""
        self._advance(trainer.global_step, note)

    def on_train_end(self, *args: Any) -> None:
        """Close the training bar."""
        self._end()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the test bar."""
        self._begin("test", int(sum(trainer.num_test_batches)))

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int,
                          *args: Any) -> None:
        """Show the case."""
        self._advance(index + 1)

    def on_test_end(self, *args: Any) -> None:
        """Close the test bar."""
        self._end()

    def on_exception(self, *args: Any) -> None:
        """Give the terminal back."""
        self._end()


class Overlays(pl.Callback):
    """Draw image, target and prediction of a few cases, for the run's ``figures/`` and every logger with pictures.

    Args:
        folder: the run's directory.
        cases: how many cases of the validation and of the test split are drawn.

    """

    def __init__(self, folder: str, cases: int = 2) -> None:
        self.folder, self.cases = Path(folder) / "figures", cases

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int,
                                *args: Any) -> None:
        """Draw the first validation cases."""
        if index < self.cases:
            self._draw(trainer, pl_module, outputs, batch, "validation")

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int,
                          *args: Any) -> None:
        """Draw the first test cases."""
        if index < self.cases:
            self._draw(trainer, pl_module, outputs, batch, "test")

    def _draw(self, trainer: pl.Trainer, module: Any, prediction: dict[str, torch.Tensor], batch: Any,
              split: str) -> None:
        from segexp.reports.overlay import overlay_figure

        image = batch["image"][0, 0].float().cpu().numpy()
        for target, labels in prediction.items():
            rows = {"prediction": labels[0].cpu().numpy()}
            if target in batch["target"]:
                rows = {"target": batch["target"][target][0].cpu().numpy(), **rows}
            file = self.folder / f"{split}_{batch['case'][0]}_{target}.png"
            with written_whole(file, suffix=".png") as temporary:
                overlay_figure(image, rows, module.label_maps[target], temporary, spacing=batch["spacing"][0],
                               title=f"{target}, {batch['case'][0]}, step {trainer.global_step}")
            for logger in trainer.loggers:
                if hasattr(logger, "log_picture"):
                    logger.log_picture(f"{split}/{target}/{batch['case'][0]}", file, trainer.global_step)
