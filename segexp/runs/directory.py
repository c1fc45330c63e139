"""The directory of a run, and finding it again.

``<outputs>/runs/<method>/<name>-seed<seed>-<hash>/`` holds

=================  ====================================================================
run.json           what it is, its status, where it ran, what it used
config.yaml        the resolved configuration
split.csv          which case was in which split
log.txt            what was printed
progress.json      how far it is, while it is running
metrics/           curves (CSV)
checkpoints/       last.ckpt, previous.ckpt and their hashes
figures/           overlay pictures
scores.csv         one row per case, target, structure and metric
report.html        all of it on one page
=================  ====================================================================
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segexp.errors import BusyError, ConfigError, SegexpError
from segexp.files import write_json
from segexp.runs.identity import run_hash

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One run's directory. It may not exist yet."""

    path: Path

    @property
    def id(self) -> str:
        """Name, seed and hash: ``nn_all-seed1-3f2a9c1b``."""
        return self.path.name

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of the semantic configuration."""
        return self.id.rpartition("-")[2]

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json; empty before the run has started.

        Raises:
            SegexpError: run.json cannot be read.

        """
        file = self.path / "run.json"
        if not file.exists():
            return {}
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SegexpError(f"{file} is not readable ({error}); remove {self.path} and train again") from error

    @property
    def status_on_disk(self) -> str:
        """What run.json says; ``new`` before the run has started."""
        return self.info.get("status", "new")

    @property
    def status(self) -> str:
        """``new``, ``running``, ``done``, ``failed``, ``preempted`` (asked to stop, and saved) or ``interrupted``.

        Interrupted is also what says running while nobody holds it: its process was killed.
        """
        status = self.status_on_disk
        return "interrupted" if status == "running" and not self.held() else status

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain containers; ConfigError where it cannot be read."""
        from segexp.config.yaml_files import read_yaml

        content = read_yaml(self.path / "config.yaml")
        if not isinstance(content, dict):
            raise ConfigError(f"{self.path / 'config.yaml'}: expected a mapping")
        return content

    def scores(self) -> "pd.DataFrame":
        """Return the rows of scores.csv."""
        from segexp.metrics.scores import read_scores

        return read_scores(self.path / "scores.csv")

    def progress(self) -> dict[str, Any]:
        """Return the last written progress: stage, step, steps, seconds_left; empty when there is none."""
        try:
            return json.loads((self.path / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.path / "run.json", {**self.info, **values})

    def held(self) -> bool:
        """Say whether a living process writes this run."""
        try:
            with (self.path / ".lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only writer of this run; the system lets go when the process dies, however it dies.

        Raises:
            BusyError: another process writes it.

        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise BusyError(
                    f"run {self.id} is being written by another process ({file.read().strip() or 'unknown'}); "
                    f"wait for it, or look at it with: segexp runs show {self.id}"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}")
            file.flush()
            yield


def list_runs(outputs: str | Path) -> list[Run]:
    """Return every run below ``outputs``, in the order of their ids."""
    files = (Path(outputs) / "runs").glob("*/*/run.json")
    return sorted((Run(file.parent) for file in files), key=lambda run: run.id)


def find_run(outputs: str | Path, name: str) -> Run | None:
    """Return the run with this directory, id, hash or unique beginning of an id; None when there is none.

    Raises:
        ConfigError: several runs fit.

    """
    path = Path(name)
    if (path / "run.json").is_file():
        return Run(path.resolve())
    runs = list_runs(outputs)
    for fits in (lambda run: run.id == name, lambda run: run.hash == name, lambda run: run.id.startswith(name)):
        found = [run for run in runs if fits(run)]
        # One that is done is meant before failed starts of the same name.
        found = [run for run in found if run.status_on_disk == "done"] or found
        if len(found) > 1:
            raise ConfigError(f"run={name} fits {len(found)} runs: {', '.join(run.id for run in found)}; name one")
        if found:
            return found[0]
    return None


def get_run(outputs: str | Path, name: str) -> Run:
    """Return the run that ``find_run`` finds.

    Raises:
        ConfigError: no run fits, or several do; the message lists what there is.

    """
    from segexp.config.names import hint

    run = find_run(outputs, name)
    if run is None:
        ids = [run.id for run in list_runs(outputs)]
        known = hint(name, ids) if ids else f"; there is no run below {Path(outputs) / 'runs'} yet"
        raise ConfigError(f"run={name}: there is no such run{known}")
    return run


def locate_run(config: Any) -> Run:
    """Return the run that a composed configuration means; its directory exists if it was ever started.

    A run of the same meaning under another name is the same run.
    """
    digest = run_hash(config)
    existing = find_run(config["paths"]["outputs"], digest)
    if existing is not None:
        return existing
    target = str(config["method"].get("_target_", "") if isinstance(config["method"], Mapping) else config["method"])
    # segexp.methods.<method>...: its folder; a method of the user: its package. It names a folder, whatever it is.
    parts = re.sub(r"[^\w.-]", "_", target).split(".")
    method = (parts[2] if parts[:2] == ["segexp", "methods"] and len(parts) > 3 else parts[0])[:100] or "method"
    folder = Path(config["paths"]["outputs"]).resolve() / "runs" / method
    return Run(folder / f"{config['name']}-seed{config['seed']}-{digest}")
