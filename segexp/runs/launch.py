"""Run several trainings, each in a process of its own, and say how far they are.

The processes are forked from one that has imported torch and Lightning but computed nothing: a job starts in
milliseconds and cannot take the others with it when it dies.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.console import duration, say

PRELOAD = ["segexp.runs.preload"]
SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True)
class Job:
    """One ``segexp train``: a name for people and its overrides."""

    name: str
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: str  # "done" or "failed"
    run_id: str | None
    error: str
    seconds: float


def launch(jobs: Sequence[Job], slots: int = 1) -> list[Outcome]:
    """Run ``jobs``, at most ``slots`` at a time, and return how each ended, in the order of ``jobs``.

    CPU threads are divided among the slots unless a job sets ``threads`` itself. A failing or killed job does not
    touch the others. Progress of all jobs is said every few seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    threads = max(1, (os.cpu_count() or 1) // max(1, slots))
    waiting = list(enumerate(jobs))
    running: dict[int, Running] = {}
    outcomes: dict[int, Outcome] = {}
    started = said = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                index, job = waiting.pop(0)
                running[index] = Running(context, job, threads)
            time.sleep(0.1)
            for index, process in list(running.items()):
                outcome = process.outcome()
                if outcome is not None:
                    outcomes[index] = outcome
                    del running[index]
                    say(f"[{len(outcomes)}/{len(jobs)}] {outcome.job.name}: {outcome.status} after "
                        f"{duration(outcome.seconds)}" + (f": {outcome.error}" if outcome.error else ""))
            if time.monotonic() - said > SECONDS_BETWEEN_REPORTS and running:
                said = time.monotonic()
                say(f"[{len(outcomes)}/{len(jobs)}, {duration(said - started)}] " + report(running.values()))
    finally:
        for process in running.values():
            process.stop()
    return [outcomes[index] for index in range(len(jobs))]


def report(processes: Iterable["Running"]) -> str:
    """Return one line: what every running job does."""
    return "; ".join(process.report() for process in processes)


class Running:
    """A job's process."""

    def __init__(self, context: Any, job: Job, threads: int) -> None:
        self.job, self.started = job, time.monotonic()
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(job, threads, sender), name=job.name)
        self.process.start()
        sender.close()
        self.path: Path | None = None
        self.error: str | None = None
        self.ended = False

    def listen(self) -> None:
        """Take in what the process has said about itself."""
        with contextlib.suppress(EOFError, OSError):
            while self.receiver.poll():
                key, value = self.receiver.recv()
                if key == "path":
                    self.path = Path(value)
                elif key == "failed":
                    self.error = value
                else:
                    self.ended = True

    def outcome(self) -> Outcome | None:
        """Return how the job ended, None while it runs."""
        self.listen()
        if self.process.is_alive():
            return None
        self.process.join()
        self.listen()
        code = self.process.exitcode or 0
        error = self.error or ""
        if not self.ended and not error:
            error = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if self.path is not None:
                error += f"; see {self.path / 'log.txt'}"
        return Outcome(self.job, "failed" if error else "done", self.path.name if self.path else None, error,
                       time.monotonic() - self.started)

    def report(self) -> str:
        """Return what the job does at the moment."""
        self.listen()
        from segexp.runs.directory import Run

        progress = Run(self.path).progress() if self.path else {}
        if not progress:
            return f"{self.job.name} prepares"
        text = f"{self.job.name} {progress['stage']} {progress['done']}/{progress['total']}"
        text += f" about {duration(progress['seconds_left'])} left"
        return text + (f" ({progress['note']})" if progress.get("note") else "")

    def stop(self) -> None:
        """End the process: it is interrupted, its checkpoint stays."""
        self.process.terminate()
        self.process.join()


def work(job: Job, threads: int, sender: Any) -> None:
    """Train in this process; what is printed goes to the run's log."""
    from segexp.config import compose
    from segexp.errors import SegexpError
    from segexp.runs.directory import locate_run
    from segexp.runs.training import train

    try:
        config = compose("train", job.overrides, job.config_dirs)
        if not config.threads:
            config.threads = threads
        run = locate_run(config)
        run.path.mkdir(parents=True, exist_ok=True)
        sender.send(("path", str(run.path)))
        print_to(run.path / "output.txt")
        train(config, ["segexp", "train", *job.overrides], job.allow)
        sender.send(("done", ""))
    except SegexpError as error:
        sender.send(("failed", str(error)))
    except Exception as error:
        sender.send(("failed", f"{type(error).__name__}: {error}"))


def print_to(path: Path) -> None:
    """Send this process's standard output and error to ``path``."""
    import sys

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
