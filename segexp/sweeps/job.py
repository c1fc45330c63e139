"""One training of a sweep: what it is called, which run it is, what it needs before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segexp.config import folder
from segexp.runs.directory import Run, locate_run
from segexp.sweeps.plain import resolved


@dataclass(frozen=True)
class Job:
    """One run to be trained.

    Attributes:
        id: the run's hash; two jobs that mean the same run are one.
        name: for people: the overrides that tell it from the other jobs of its sweep.
        run: the run's directory.
        overrides: the words that gave its configuration.
        needs: ids of the jobs that must be done before it starts.
        devices: processes of a machine that train it together; 0: as many as it has GPUs.
        gpu: whether it takes GPUs where there are some.
        root: where its data lie.
        config: its resolved configuration as plain containers; empty for a job read from a manifest, which has it
            in a file.
    """

    id: str
    name: str
    run: Run
    overrides: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    devices: int = 1
    gpu: bool = True
    root: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def done(self) -> bool:
        """Say whether the run is done, on the data where they lie now."""
        if self.run.status_on_disk != "done":
            return False
        file = self.run.path / "config.yaml"
        data = folder.load(file).get("data") if file.exists() else None
        then = data.get("root") if isinstance(data, dict) else None
        return self.root is None or Path(str(then)).resolve() == Path(self.root).resolve()


def make_job(config: Any, overrides: Sequence[str] = (), name: str = "", needs: Sequence[str] = ()) -> Job:
    """Return the job that trains a composed configuration.

    Args:
        config: what ``segexp.config.compose("train", ...)`` returned.
        overrides: the words that gave it.
        name: for people; default: the configuration's name and seed.
        needs: ids of jobs that come before.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    content = resolved(config)
    # Relative to the folder where the sweep was started, from wherever it is resumed.
    content["paths"]["outputs"] = str(Path(content["paths"]["outputs"]).resolve())
    run = locate_run(content)
    trainer, root = content["trainer"], content["data"].get("root")
    return Job(id=run.hash, name=name or f"{content['name']} seed {content['seed']}", run=run,
               overrides=tuple(overrides), needs=tuple(needs), devices=devices_of(trainer),
               gpu=trainer.get("accelerator") != "cpu",
               root=None if root in (None, "???") else str(Path(root).expanduser().absolute()), config=content)


def devices_of(trainer: Mapping[str, Any]) -> int:
    """Return how many processes of one machine train together; 0: as many as it has GPUs."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return max(1, len(devices))
    return int(devices) if str(devices).isdigit() else 0


def names_of(combinations: Sequence[Sequence[str]]) -> list[str]:
    """Return what tells each combination of overrides from the others; empty where there is only one."""
    split = [dict(word.partition("=")[::2] for word in words) for words in combinations]
    keys = dict.fromkeys(key for words in split for key in words)
    varying = [key for key in keys if len({words.get(key) for words in split}) > 1]
    return [" ".join(f"{key}={words[key]}" for key in varying if key in words) for words in split]
