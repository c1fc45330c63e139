"""A table as its YAML declares it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segexp.errors import ConfigError

KEYS = {"title", "source", "seeds", "runs", "cell", "rows", "columns", "published", "notes", "claims",
        "figures"}
CELL_KEYS = {"run", "evaluation", "metric", "target", "structure", "statistic", "spread", "factor", "digits",
             "reason", "comparable"}
RUN_KEYS = {"overrides", "needs", "evaluate"}
FIGURES = ("avd_by_density",)
STATISTICS = ("mean", "sd", "min", "max")


@dataclass(frozen=True)
class Declaration:
    """One file of ``conf/table``.

    Attributes:
        name: its file name.
        title: what it shows.
        source: where the paper has it.
        seeds: seeds of every run.
        runs: run -> ``{"overrides": [...], "needs": [names of runs that come first], "evaluate": {name: [changes]}}``;
            an evaluation scores the finished run again, with these changes of its configuration (other data).
        cell: settings of every cell: run, evaluation (absent: the run's own test), metric, target,
            structure (absent: mean over all), statistic (mean, sd, min, max), spread (a mean shows its sd), factor,
            digits. A cell without a run (``run: null``) only shows what is published, and the reason for that.
        rows: row -> settings that the row changes; ``comparable: false`` takes no difference to the paper, whose data
            nobody else has.
        columns: column -> settings that the column changes.
        published: row -> column -> the paper's value: a number, ``{mean, sd}``, several that contradict each other, or
            a text.
        notes: sentences below the table.
        claims: claim -> its check (see ``segexp.tables.claims``).
        figures: figure -> how it is drawn (see ``segexp.tables.figures``).
    """

    name: str
    title: str
    source: str
    seeds: tuple[int, ...]
    runs: Mapping[str, Mapping[str, Any]]
    cell: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cells(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return (row, column) -> settings of the cell."""
        return {(row, column): {"digits": 1, "factor": 1, **self.cell, **self.rows[row], **self.columns[column]}
                for row, column in itertools.product(self.rows, self.columns)}

    def order(self) -> list[str]:
        """Return the runs, every one after those that it needs."""
        done: list[str] = []
        while len(done) < len(self.runs):
            ready = [run for run, spec in self.runs.items()
                     if run not in done and set(spec.get("needs", ())) <= set(done)]
            if not ready:
                raise ConfigError(f"table {self.name}: `needs` of {sorted(set(self.runs) - set(done))} cannot be met")
            done += ready
        return done


def table_folder(config_dirs: Sequence[str] = ()) -> list[Path]:
    """Return the folders that hold declarations, the shipped one first."""
    from segexp.config.paths import search_dirs

    return [folder / "table" for folder in search_dirs(config_dirs) if (folder / "table").is_dir()]


def table_names(config_dirs: Sequence[str] = ()) -> list[str]:
    """Return the names of all declared tables."""
    return sorted({file.stem for folder in table_folder(config_dirs) for file in folder.glob("*.yaml")})


def read_declaration(name: str, config_dirs: Sequence[str] = ()) -> Declaration:
    """Read ``conf/table/<name>.yaml``.

    Raises:
        ConfigError: there is no such table, or its file has a key, run, row or statistic that does not fit.
    """
    from segexp.config.names import hint
    from segexp.config.yaml_files import leads_out, read_yaml

    if leads_out(name) or Path(name).is_absolute():
        raise ConfigError(f"table {name!r} leads out of the folders of tables; give yours with --config-dir")
    files = [folder / f"{name}.yaml" for folder in table_folder(config_dirs)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ConfigError(f"there is no table {name!r}{hint(name, table_names(config_dirs))}")
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping with title, source and runs")
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{file}: unknown key {key!r}{hint(key, sorted(KEYS))}")
    for key in ("runs", "cell", "rows", "columns", "published", "claims", "figures"):
        if not isinstance(content.get(key, {}), dict):
            raise ConfigError(f"{file}: {key} is {str(content[key])[:80]!r}, expected names and what belongs to them")
    missing = [key for key in ("title", "source", "runs") if key not in content]
    if missing:
        raise ConfigError(f"{file}: {', '.join(missing)} is missing")
    declaration = Declaration(name=name, **{**content, "seeds": tuple(content.get("seeds", (1,)))})
    for run, spec in declaration.runs.items():
        for key in spec:
            if key not in RUN_KEYS:
                raise ConfigError(f"{file}: run {run}: unknown key {key!r}{hint(key, sorted(RUN_KEYS))}")
    for where, cell in declaration.cells().items():
        _check_cell(file, where, cell, declaration)
    for row, values in declaration.published.items():
        for column in values:
            if (row, column) not in declaration.cells():
                raise ConfigError(f"{file}: published.{row}.{column} is no cell of the table")
    for figure, settings in declaration.figures.items():
        _check_figure(file, figure, settings, declaration)
    declaration.order()
    return declaration


def _check_figure(file: Path, name: str, settings: Mapping[str, Any], declaration: Declaration) -> None:
    missing = [key for key in ("kind", "runs", "title") if key not in settings]
    if missing:
        raise ConfigError(f"{file}: figures.{name}: {', '.join(missing)} is missing")
    if settings["kind"] not in FIGURES:
        raise ConfigError(f"{file}: figures.{name}: kind={settings['kind']}: expected one of {', '.join(FIGURES)}")
    for run in settings["runs"]:
        known = declaration.runs.get(run, {}).get("evaluate", {})
        if run not in declaration.runs or settings.get("evaluation") not in (None, *known):
            raise ConfigError(f"{file}: figures.{name}: there is no run {run}, or it is not evaluated on "
                              f"{settings.get('evaluation')}")


def _check_cell(file: Path, where: tuple[str, str], cell: Mapping[str, Any], declaration: Declaration) -> None:
    from segexp.config.names import hint

    for key in cell:
        if key not in CELL_KEYS:
            raise ConfigError(f"{file}: cell {where}: unknown key {key!r}{hint(key, sorted(CELL_KEYS))}")
    if cell.get("run", "") is None:
        if "reason" not in cell:
            raise ConfigError(f"{file}: cell {where} has no run; `reason` must say why nothing is measured")
        return
    for key, known in (("run", list(declaration.runs)), ("statistic", list(STATISTICS))):
        if cell.get(key) not in known:
            raise ConfigError(f"{file}: cell {where}: {key}={cell.get(key)}{hint(str(cell.get(key)), known)}")
    evaluations = declaration.runs[cell["run"]].get("evaluate", {})
    if cell.get("evaluation") is not None and cell["evaluation"] not in evaluations:
        raise ConfigError(f"{file}: cell {where}: run {cell['run']} has no evaluation {cell['evaluation']!r}"
                          f"{hint(str(cell['evaluation']), list(evaluations))}")
    if "metric" not in cell or "target" not in cell:
        raise ConfigError(f"{file}: cell {where}: metric and target are needed")
