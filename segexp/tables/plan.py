"""Which runs a table needs, and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segexp.runs.directory import Run, list_runs, locate_run
from segexp.runs.evaluation import Evaluation
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
        evaluations: name -> the run scored again.
    """

    name: str
    seed: int
    overrides: tuple[str, ...]
    run: Run
    status: str
    config: Any
    needs: tuple[str, ...]
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Say whether its scores may be shown."""
        return self.status == "done"


def plan(declaration: Declaration, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None,
         config_dirs: Sequence[str] = ()) -> list[Planned]:
    """Compose every run of a table and find what became of it.

    Overrides that begin with ``evaluate.NAME.`` belong to the evaluation NAME
    (``evaluate.cain.data.root=/data/cain``), all others to every run.

    Raises:
        ConfigError: a run does not compose.
    """
    from segexp.config import compose

    planned = []
    own = [word for word in overrides if word.startswith("evaluate.")]
    overrides = [word for word in overrides if word not in own]
    _check_evaluations(declaration, own)
    for name in declaration.order():
        spec = declaration.runs[name]
        for seed in seeds or declaration.seeds:
            words = (*spec["overrides"], *overrides, f"seed={seed}")
            config = compose("train", words, config_dirs)
            run = locate_run(config)
            evaluations = {key: Evaluation(run, (*_filled(changes, config), *_of_evaluation(key, own)))
                           for key, changes in spec.get("evaluate", {}).items()}
            planned.append(Planned(name, seed, words, run, status_of(run, config), config,
                                   tuple(spec.get("needs", ())), evaluations))
    return planned


def _filled(changes: Sequence[str], config: Any) -> list[str]:
    """Return an evaluation's changes with ``${...}`` filled in from the run's configuration."""
    from omegaconf import OmegaConf

    node = OmegaConf.create({"changes": list(changes)})
    node._set_parent(config)
    return list(OmegaConf.to_container(node, resolve=True)["changes"])  # type: ignore[index,call-overload]


def _of_evaluation(name: str, words: Sequence[str]) -> list[str]:
    return [word.removeprefix(f"evaluate.{name}.") for word in words if word.startswith(f"evaluate.{name}.")]


def _check_evaluations(declaration: Declaration, words: Sequence[str]) -> None:
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    known = {name for spec in declaration.runs.values() for name in spec.get("evaluate", {})}
    for word in words:
        name = word.split(".")[1]
        if name not in known:
            raise ConfigError(f"{word}: table {declaration.name} has no evaluation {name!r}{hint(name, sorted(known))}")


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
