"""Which runs a table needs, and what became of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.runs.directory import Run, list_runs, locate_run
from segexp.tables.declaration import Declaration


@dataclass(frozen=True)
class Planned:
    """One run of a table with one seed.

    Attributes:
        name: the run's name in the table.
        seed: its seed.
        overrides: the words that train it.
        run: its directory.
        status: done, missing, running, interrupted, failed, or stale (its data lie elsewhere now).
        config: the composed configuration.
        needs: names of the runs that come before it.
    """

    name: str
    seed: int
    overrides: tuple[str, ...]
    run: Run
    status: str
    config: Any
    needs: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Say whether its scores may be shown."""
        return self.status == "done"


def plan(declaration: Declaration, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None,
         config_dirs: Sequence[str] = ()) -> list[Planned]:
    """Compose every run of a table and find what became of it.

    Raises:
        ConfigError: a run does not compose.
    """
    from segexp.config import compose

    planned = []
    for name in declaration.order():
        spec = declaration.runs[name]
        for seed in seeds or declaration.seeds:
            words = (*spec["overrides"], *overrides, f"seed={seed}")
            config = compose("train", words, config_dirs)
            run = locate_run(config)
            planned.append(Planned(name, seed, words, run, status_of(run, config), config,
                                   tuple(spec.get("needs", ()))))
    return planned


def status_of(run: Run, config: Any) -> str:
    """Return what became of a run."""
    status = run.status
    if status == "done":
        # The same meaning on data in another place: training compares the fingerprints, showing must not guess.
        then, now = run.config()["data"].get("root"), config.data.get("root") if data_given(config) else None
        return "stale" if now is not None and Path(str(then)).resolve() != Path(str(now)).resolve() else "done"
    return "missing" if status == "new" else status


def data_given(config: Any) -> bool:
    """Say whether the data's root is known."""
    from omegaconf import OmegaConf

    return not OmegaConf.is_missing(config.data, "root")


def seconds_needed(planned: Planned, outputs: Path) -> float | None:
    """Return how long finished runs of the same name and scale took, None without one."""
    took = [run.info.get("resources", {}).get("train_seconds") for run in list_runs(outputs)
            if run.info.get("name") == planned.config.name and run.info.get("scale") == planned.config.scale.name
            and run.status == "done"]
    known = [seconds for seconds in took if seconds]
    return sum(known) / len(known) if known else None
