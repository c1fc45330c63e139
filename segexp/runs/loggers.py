"""Loggers: CSV always; TensorBoard and Weights & Biases beside it, never in its way."""

import csv as tables
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from segexp.console import say


def csv(folder: str, start_step: int = 0) -> Logger:
    """Write curves to ``<folder>/metrics/metrics.csv``; a resumed run keeps the rows before ``start_step``."""
    file = Path(folder) / "metrics" / "metrics.csv"
    rows = []
    if file.exists():
        with file.open(newline="", encoding="utf-8") as lines:
            for row in tables.DictReader(lines):
                if int(row["step"]) < start_step:
                    rows.append({key: number(key, text) for key, text in row.items() if text})
        file.unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger = CSVLogger(folder, name="metrics", version="")
        logger.experiment.metrics = rows
    logger.save()
    return logger


def number(key: str, text: str) -> float | int:
    """Return a CSV cell as the number that it was."""
    return int(text) if key in ("step", "epoch") else float(text)


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
        # Neither code nor console nor machine statistics: what a run needs to explain itself is in its directory.
        settings = client.Settings(console="off", disable_git=True, disable_code=True, x_disable_stats=True,
                                   silent=True)
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
