"""What a sweep consists of, on disk, so that any later process can go on with it.

``<outputs>/sweeps/<name>-<hash of the job ids>/`` holds

===================  =================================================================================
manifest.jsonl       a line about the sweep, then a line per job
jobs/<id>/           config.yaml: the resolved configuration that the job's process trains
events.jsonl         what was given to the executor when; a line per submission
logs/                submitit's files: what each job printed, and ``<key>_<rank>_end.json``: how it ended
===================  =================================================================================

What became of a job is said by its run, never by these files.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from segexp.console import say
from segexp.errors import SegexpError
from segexp.files import write_text
from segexp.redaction import redacted_words
from segexp.runs.directory import Run
from segexp.sweeps.job import Job
from segexp.sweeps.plain import write_config

SCHEMA = 1
ID = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory."""

    folder: Path

    @property
    def name(self) -> str:
        """The directory's name: ``neuronet-3f2a9c1b``."""
        return self.folder.name

    @property
    def outputs(self) -> Path:
        """The folder that holds the runs."""
        return self.folder.parent.parent

    @property
    def logs(self) -> Path:
        """Where submitit's files go."""
        return self.folder / "logs"

    def config_file(self, job_id: str) -> Path:
        """Return the file with a job's resolved configuration."""
        return self.folder / "jobs" / job_id / "config.yaml"

    def log_file(self, key: str) -> Path:
        """Return what a job printed; ``key`` is the executor's name for it."""
        return self.logs / f"{key}_0_log.out"

    @cached_property
    def header(self) -> dict[str, Any]:
        """What is known about the whole: name, command, folder, launcher, created."""
        lines = read_lines(self.folder / "manifest.jsonl")
        return lines[0] if lines and "schema" in lines[0] else {}

    def jobs(self) -> dict[str, Job]:
        """Return id -> job, in order.

        A line that was cut (a full disk, a crash) is left out, with a word about it.
        """
        found = {}
        for line in read_lines(self.folder / "manifest.jsonl", tell=True):
            if "schema" not in line and {"id", "name", "run"} <= set(line) and ID.fullmatch(str(line["id"])):
                known = {key: value for key, value in line.items() if key in Job.__dataclass_fields__}
                run = Run(self.outputs / safe(str(line["run"])))
                found[str(line["id"])] = Job(**{**known, "run": run, "overrides": tuple(line.get("overrides", ())),
                                                "needs": tuple(line.get("needs", ()))})
        return found

    def add(self, job: Job) -> None:
        """Write a job's configuration and append its line: a sweep may grow while it runs."""
        with told(self.folder):
            self.write_config(job)
            append(self.folder / "manifest.jsonl", self.line(job))

    def write_config(self, job: Job) -> None:
        """Write the configuration that the job's process reads."""
        write_config(self.config_file(job.id), job.config, job.overrides)

    def line(self, job: Job) -> dict[str, Any]:
        """Return what the manifest says about a job."""
        try:
            run = job.run.path.relative_to(self.outputs)
        except ValueError:
            run = job.run.path.resolve().relative_to(self.outputs.resolve())
        return {"id": job.id, "name": job.name, "run": run.as_posix(), "overrides": list(job.overrides),
                "needs": list(job.needs), "devices": job.devices, "gpu": job.gpu, "root": job.root}

    def events(self) -> list[dict[str, Any]]:
        """Return what was submitted so far, oldest first."""
        return read_lines(self.folder / "events.jsonl")

    def keys(self) -> dict[str, str]:
        """Return job id -> the executor's name for its last submission."""
        found: dict[str, str] = {}
        for event in self.events():
            if event.get("event") == "submitted":
                found[str(event.get("job"))] = str(event.get("key"))
            elif event.get("event") == "queued":  # an array
                found |= {str(job): str(key) for job, key in event.get("keys", {}).items()}
        return found

    def record(self, **event: Any) -> None:
        """Append an event; a disk that is full must not stop the jobs that run."""
        try:
            append(self.folder / "events.jsonl", event)
        except OSError as error:
            say(f"{self.folder / 'events.jsonl'}: {error.strerror}; the sweep goes on without its record")

    @contextmanager
    def lead(self) -> Iterator[bool]:
        """Yield whether this process is now the one that starts jobs; the system lets go when it dies."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context((self.folder / ".lock").open("a"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass  # a file system without locks: the runs' own holds still keep every run to one process
            yield True


def create_sweep(outputs: str | Path, name: str, jobs: Sequence[Job], *, command: Sequence[str] = (),
                 launcher: Mapping[str, Any] | None = None, folder: Path | None = None) -> Sweep:
    """Write a sweep's manifest and configurations, or find the same sweep of an earlier start.

    Args:
        outputs: the folder that holds the runs.
        name: for people; the hash of the job ids is appended.
        jobs: its jobs, each with its configuration; those with the same id count once.
        command: the words that started it, for the record.
        launcher: the executor's settings, for ``segexp sweep resume``.
        folder: somewhere else than ``<outputs>/sweeps/<name>-<hash>``, also two levels below ``outputs``.

    Raises:
        SegexpError: the files cannot be written.
    """
    from segexp.runs.training import now

    once = {job.id: job for job in jobs}
    digest = hashlib.sha256(" ".join(sorted(once)).encode()).hexdigest()[:8]
    sweep = Sweep(folder or Path(outputs).resolve() / "sweeps" / f"{name}-{digest}")
    header = {"schema": SCHEMA, "name": sweep.name, "command": " ".join(redacted_words(command)),
              "folder": str(Path.cwd()), "launcher": dict(launcher or {}),
              "created": sweep.header.get("created", now())}
    with told(sweep.folder):
        for job in once.values():
            sweep.write_config(job)
        lines = [header, *(sweep.line(job) for job in once.values())]
        # Last: a sweep with a manifest is complete.
        write_text(sweep.folder / "manifest.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    return Sweep(sweep.folder)


def list_sweeps(outputs: str | Path) -> list[Sweep]:
    """Return the sweeps below ``outputs``, oldest first."""
    files = (Path(outputs).resolve() / "sweeps").glob("*/manifest.jsonl")
    return [Sweep(file.parent) for file in sorted(files, key=lambda file: (Sweep(file.parent).header.get("created", ""),
                                                                           file.parent.name))]


def get_sweep(outputs: str | Path, name: str) -> Sweep:
    """Return the sweep with this name, or with a name that begins like it.

    Raises:
        ConfigError: there is none, or several.
    """
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    known = {sweep.name: sweep for sweep in list_sweeps(outputs)}
    if name in known:
        return known[name]
    fits = [one for one in known if one.startswith(name) or one.rpartition("-")[2] == name]
    if len(fits) > 1:
        raise ConfigError(f"{name} fits {len(fits)} sweeps: {', '.join(fits)}; name one")
    if not fits:
        where = Path(outputs) / "sweeps"
        raise ConfigError(f"there is no sweep {name!r} below {where}" +
                          (hint(name, known) if known else "; start one: segexp train -m KEY=A,B ..."))
    return known[fits[0]]


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turn a disk that is full or read-only into an error for the user."""
    try:
        yield
    except OSError as error:
        raise SegexpError(f"{folder}: the sweep's manifest cannot be written ({error.strerror}); nothing was started; "
                          "make room, or choose another place with paths.outputs=FOLDER") from error


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Append a line to a file, after the end of a line that was cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if cut else b"") + json.dumps(value).encode() + b"\n")
    finally:
        os.close(descriptor)


def read_lines(path: Path, tell: bool = False) -> list[dict[str, Any]]:
    """Return the objects of a file with a JSON object per line; lines that are cut are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError:
            value = None
            if tell:
                say(f"{path}, line {number} is cut and left out; the command that started the sweep writes it again")
        if isinstance(value, dict):
            found.append(value)
    return found


def safe(path: str) -> Path:
    """Return a relative path that stays inside its folder.

    Raises:
        SegexpError: it does not.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise SegexpError(f"a sweep's manifest names the run {path!r}, which is outside its outputs folder; refused")
    return Path(path)
