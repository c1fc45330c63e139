"""Hydra's door to our sweeps: Hydra takes launchers and sweepers from ``hydra_plugins`` only.

Nothing is decided here. The task function brings the function that takes over, ``sweep(settings, combinations)``.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.launcher import Launcher

__all__ = ["Grid", "Local", "Slurm"]


class Grid(BasicSweeper):
    """Hydra's own sweeper, which leaves composing the combinations to the launcher: each is composed once."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the launcher checks more than Hydra would."""


class Local(Launcher):
    """Jobs on this machine."""

    kind = "local"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.task: Any = None

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Remember who takes over."""
        self.task = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Hand over every combination of the sweep."""
        if not hasattr(self.task, "sweep"):
            raise RuntimeError("hydra/launcher=local and slurm of segexp run `segexp train -m`, nothing else")
        self.task.sweep({"kind": self.kind, **self.settings}, job_overrides)
        return []


class Slurm(Local):
    """Jobs on a Slurm cluster."""

    kind = "slurm"
