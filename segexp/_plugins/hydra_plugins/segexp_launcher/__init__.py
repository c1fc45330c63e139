"""Hydra's door to our sweeps: Hydra takes launchers and sweepers from ``hydra_plugins`` only.

Nothing is decided here. The task function brings the function that takes over, ``sweep(settings, combinations)``.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher

__all__ = ["Grid", "Local", "Slurm"]


class Grid(BasicSweeper):
    """Hydra's own sweeper without what the launcher does: composing the combinations, and writing down the sweep."""

    def sweep(self, arguments: list[str]) -> None:
        """Give every combination to the launcher."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        for batch in self.split_arguments(overrides, self.max_batch_size):
            for result in self.launcher.launch(batch, initial_job_idx=0):
                _ = result.return_value  # raises what a job raised, under a launcher of somebody else's


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
