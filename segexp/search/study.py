"""A study on disk: what is searched, Optuna's journal, and which process works on which trial.

``<outputs>/studies/<name>/`` holds

===================  ====================================================================================
study.json           what is searched and how; a later start must mean the same
journal.log          Optuna's journal of trials, locked by Optuna's own file lock
trials.csv           a row per trial, written whenever a process ends
workers/<k>/         one process's jobs, as a sweep has them; its ``.lock`` is held as long as it lives
===================  ====================================================================================

Optuna's heartbeats do not exist for ask and tell: a trial that runs belongs to the worker it names, and a worker that
holds its lock no more is dead. The system lets go of the lock when the process dies, however it dies.
"""

import contextlib
import fcntl
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segexp.errors import ConfigError, SegexpError
from segexp.files import write_json
from segexp.sweeps.manifest import Sweep

SCHEMA = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
SETTLED = ("metric", "direction", "value", "sampler", "sampler_seed", "pruner", "startup", "warmup")
"""Keys of ``segexp tune`` that belong to the study: they cannot change between two starts."""
GRACE = 15
"""Seconds after which a lock on the journal counts as left behind by a process that was killed while it wrote."""


class Worker(Sweep):
    """One process's jobs: a sweep that lies in a study."""

    @property
    def outputs(self) -> Path:
        """The folder that holds the runs."""
        return self.folder.parents[3]


@dataclass(frozen=True)
class StudyFolder:
    """A study's directory."""

    outputs: Path
    name: str

    @property
    def path(self) -> Path:
        """The directory."""
        return self.outputs / "studies" / self.name

    def definition(self) -> dict[str, Any] | None:
        """Return what is searched and how; None before the first start.

        Raises:
            SegexpError: the file cannot be read.
        """
        file = self.path / "study.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or found.get("schema") != SCHEMA:
                raise ValueError("no study of this version")
            return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SegexpError(f"{file} cannot be read ({error}); remove {self.path} and search again: runs that are "
                              "done stay, and are not trained again") from error

    def settle(self, words: list[str], settings: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
        """Write what is searched, or compare it with what an earlier start has written; return it.

        Args:
            words: overrides of ``segexp train``, those that are searched too; empty: as before.
            settings: the keys of `SETTLED`, and ``trials``.
            given: which of them were typed.

        Raises:
            ConfigError: a study of this name searches something else, or there is none and no words were given.
        """
        with self.claiming():
            known = self.definition()
            if known is None:
                if not words:
                    raise ConfigError(f"study={self.name}: there is no such study below {self.outputs / 'studies'}; "
                                      "say what is searched: segexp tune study=NAME experiment=... 'KEY=interval(a,b)'")
                known = {"schema": SCHEMA, "name": self.name, "words": words, "trials": settings["trials"],
                         **{key: settings[key] for key in SETTLED}}
                write_json(self.path / "study.json", known)
                return known
            if words and sorted(words) != sorted(known["words"]):
                raise ConfigError(f"study {self.name} searches something else:\n  {' '.join(known['words'])}\n"
                                  "leave the overrides out to go on with it, or name another: study=NAME")
            changed = [key for key in SETTLED if key in given and settings[key] != known[key]]
            if changed:
                raise ConfigError(f"study {self.name} has " + ", ".join(f"{key}={known[key]}" for key in changed)
                                  + "; go on with it, or name another: study=NAME")
            if "trials" in given and settings["trials"] != known["trials"]:
                known["trials"] = settings["trials"]
                write_json(self.path / "study.json", known)
            return known

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Be the only process that takes trials of this study; held for moments."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".claim").open("a") as file:
            with contextlib.suppress(OSError):  # a file system without locks: one process at a time is the user's care
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def worker(self, number: int) -> Worker:
        """Return the jobs of a worker; its directory is made."""
        found = Worker(self.path / "workers" / str(number))
        found.logs.mkdir(parents=True, exist_ok=True)
        manifest = found.folder / "manifest.jsonl"
        if not manifest.exists():
            manifest.write_text(json.dumps({"schema": 1, "name": f"{self.name}/{number}", "folder": str(Path.cwd())})
                                + "\n", encoding="utf-8")
        return found

    def alive(self, number: Any) -> bool:
        """Say whether the process of a worker lives."""
        try:
            with (self.path / "workers" / str(int(number)) / ".lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (OSError, ValueError, TypeError):
            return False
        return False


def study_folder(outputs: str | Path, name: str) -> StudyFolder:
    """Return the directory of a study; it may not exist yet.

    Raises:
        ConfigError: a name that is no plain word.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"study={name}: expected letters, digits, _, . and -, beginning with a letter or digit")
    return StudyFolder(Path(outputs).resolve(), name)


class Trials:
    """Optuna's study in its journal.

    Args:
        folder: where it lies.
        definition: what `StudyFolder.settle` returned.
    """

    def __init__(self, folder: StudyFolder, definition: Mapping[str, Any]) -> None:
        self.folder, self.definition = folder, definition

    @cached_property
    def storage(self) -> Any:
        """The journal."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

        file = str(self.folder.path / "journal.log")
        return JournalStorage(JournalFileBackend(file, JournalFileSymlinkLock(file, grace_period=GRACE)))

    @cached_property
    def study(self) -> Any:
        """Optuna's study, made when it is not there yet."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(storage=self.storage, study_name=self.folder.name, load_if_exists=True,
                                   direction=self.definition["direction"])

    @cached_property
    def pruner(self) -> Any:
        """What says that a trial is not worth going on with."""
        import optuna

        startup, warmup = int(self.definition["startup"]), int(self.definition["warmup"])
        if self.definition["pruner"] == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        return optuna.pruners.NopPruner()

    def all(self) -> list[Any]:
        """Return every trial, but those that died before they had their parameters."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not trial.user_attrs.get("void")]

    def running(self) -> list[Any]:
        """Return the trials that are not ended."""
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=True, states=(TrialState.RUNNING,))

    def id_of(self, number: int) -> int:
        """Return the journal's name for a trial."""
        return self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def get(self, number: int) -> Any:
        """Return a trial as it is now."""
        return self.storage.get_trial(self.id_of(number))

    def note(self, number: int, **values: Any) -> None:
        """Keep something with a trial."""
        for key, value in values.items():
            self.storage.set_trial_user_attr(self.id_of(number), key, value)

    def ask(self, distributions: Mapping[str, Any], worker: int) -> Any:
        """Return a new trial of this worker; call it while claiming."""
        import optuna

        # Anew for every trial: a process that starts again must not draw what the first one drew.
        seed = (int(self.definition["sampler_seed"]) * 1_000_003 + len(self.study.get_trials(deepcopy=False))) % 2**32
        if self.definition["sampler"] == "random":
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        else:
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=int(self.definition["startup"]),
                                                            constant_liar=True)
        trial = self.study.ask(dict(distributions))
        self.note(trial.number, worker=worker)
        return self.get(trial.number)

    def report(self, number: int, step: int, value: float) -> bool:
        """Keep a validation's value; say whether the trial is not worth going on with."""
        self.storage.set_trial_intermediate_value(self.id_of(number), step, value)
        return bool(self.pruner.prune(self.study, self.get(number)))

    def complete(self, number: int, value: float) -> None:
        """End a trial with its value."""
        self.study.tell(number, value)

    def prune(self, number: int) -> None:
        """End a trial that was not worth going on with."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str, **values: Any) -> None:
        """End a trial that came to nothing, with the reason."""
        from optuna.trial import TrialState

        self.note(number, reason=reason[:1000], **values)
        self.study.tell(number, state=TrialState.FAIL)

    def best(self) -> Any:
        """Return the best trial that was trained to its end; None where there is none."""
        from optuna.trial import TrialState

        done = [trial for trial in self.all() if trial.state == TrialState.COMPLETE and trial.value is not None
                and not math.isnan(trial.value)]
        sign = 1 if self.definition["direction"] == "maximize" else -1
        return max(done, key=lambda trial: sign * trial.value, default=None)
