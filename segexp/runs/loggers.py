"""Loggers: CSV always; TensorBoard and Weights & Biases beside it, never in its way."""

import csv as tables
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from segexp.console import say
from segexp.files import write_text


def csv(folder: str, start_step: int = 0) -> Logger:
    """Write curves to ``<folder>/metrics/metrics.csv``; a resumed run keeps the rows before ``start_step``."""
    return Curves(Path(folder) / "metrics" / "metrics.csv", start_step)


PATIENCE = 30.0  # seconds in which the server of Weights & Biases has to answer


class Curves(Logger):
    """Curves in a CSV file, one row per step; the file is written whole, so a kill leaves the last whole one.

    Numbers that come again for a step, because it is validated again after an interruption, replace the first ones.

    Args:
        file: the CSV file.
        start_step: rows from here on belong to steps that will be taken again; they are left out.
    """

    SECONDS = 5.0

    def __init__(self, file: Path, start_step: int = 0) -> None:
        super().__init__()
        self.file, self.rows = file, read_curves(file, start_step)
        self.written = time.monotonic()
        self.failed = False
        self.write()

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one per run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The configuration is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep numbers of a step; they are written a few seconds later, or with the next checkpoint."""
        self.rows.setdefault(step or 0, {}).update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write, if the last time is a while ago; Lightning asks after every row."""
        if time.monotonic() - self.written > self.SECONDS:
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.write()

    def write(self) -> None:
        """Write the file; a full disk is said once, and tried again later: training is worth more than curves."""
        self.written = time.monotonic()
        keys = sorted({key for row in self.rows.values() for key in row} - {"epoch"})
        text = io.StringIO()
        writer = tables.DictWriter(text, ["step", "epoch", *keys], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
        try:
            write_text(self.file, text.getvalue())
            self.failed = False
        except OSError as error:
            if not self.failed:
                say(f"{self.file} cannot be written ({error.strerror}); the curves are kept in memory until it can")
            self.failed = True


def read_curves(file: Path, before: int) -> dict[int, dict[str, float | int]]:
    """Return step -> numbers of the rows of a curves file below a step; none where it cannot be read."""
    if not before or not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return {int(row["step"]): {key: number(key, text) for key, text in row.items() if text and key != "step"}
                    for row in tables.DictReader(lines) if int(row["step"]) < before}
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"{file} cannot be read ({error}); its curves before step {before} are lost")
        return {}


def number(key: str, text: str) -> float | int:
    """Return a CSV cell as the number that it was."""
    return int(text) if key == "epoch" else float(text)


def tensorboard(folder: str) -> Logger:
    """Write event files to ``<folder>/tensorboard``."""
    return Guarded("TensorBoard", lambda: TensorBoardLogger(folder, name="tensorboard", version=""))


def wandb(folder: str, mode: str = "offline", project: str = "segexp", entity: str | None = None) -> Logger:
    """Log to Weights & Biases: offline into ``<folder>/wandb`` unless ``mode`` is ``online``.

    No account and no network are needed offline. When wandb is missing or fails, training goes on without it.

    Raises:
        ConfigError: ``mode`` is none of offline, online, disabled.

    """
    from segexp.errors import ConfigError

    if mode not in ("offline", "online", "disabled"):
        raise ConfigError(f"logger.wandb.mode={mode}: expected offline, online or disabled")

    def connect() -> Logger:
        import wandb as client
        from pytorch_lightning.loggers import WandbLogger

        run_id = Path(folder).name
        # Neither code, console, command line nor machine: what a run needs to explain itself is in its directory.
        settings = client.Settings(console="off", disable_git=True, disable_code=True, x_disable_stats=True,
                                   x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
                                   silent=True, init_timeout=PATIENCE)
        experiment = client.init(project=project, entity=entity, id=run_id, name=run_id, dir=folder, mode=mode,
                                 resume="allow" if mode == "online" else None, settings=settings)
        return WandbLogger(experiment=experiment, save_dir=folder)

    return Guarded("Weights & Biases", connect)


class Guarded(Logger):
    """Another logger that may be missing or fail without any effect on training.

    The first failure is said once; after it nothing more is sent.
    """

    def __init__(self, title: str, connect: Callable[[], Logger]) -> None:
        super().__init__()
        self._title = title
        self._inner: Logger | None = None
        self._attempt(lambda: setattr(self, "_inner", connect()))

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            say(f"{self._title} is left out from here on: {type(error).__name__}: {error}")
            self._inner = None

    @property
    def name(self) -> str:
        """The logger's name."""
        return self._title

    @property
    def version(self) -> str:
        """There is one per run."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send numbers."""
        if self._inner is not None:
            self._attempt(lambda: self._inner.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send the configuration."""
        if self._inner is not None:
            self._attempt(lambda: self._inner.log_hyperparams(params))

    def log_picture(self, key: str, file: Path, step: int) -> None:
        """Send a PNG file."""
        if self._inner is None:
            return
        if isinstance(self._inner, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            pixels = np.asarray(Image.open(file).convert("RGB"))
            self._attempt(lambda: self._inner.experiment.add_image(key, pixels, step, dataformats="HWC"))
        else:
            self._attempt(lambda: self._inner.log_image(key, [str(file)], step=step))

    def save(self) -> None:
        """Flush."""
        if self._inner is not None:
            self._attempt(self._inner.save)

    def finalize(self, status: str) -> None:
        """Close."""
        if self._inner is not None:
            self._attempt(lambda: self._inner.finalize(status))
            if self._title.startswith("Weights"):
                self._attempt(lambda: self._inner.experiment.finish())
