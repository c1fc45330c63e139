"""Which job starts when, and what became of it.

The controller holds nothing that is not on disk too: it may be killed at any moment, and the next one goes on. The
runs say what is done; the events say what was submitted; the processes of jobs belong to nobody.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from segexp.errors import BusyError, Preempted, SegexpError
from segexp.sweeps.job import Job
from segexp.sweeps.manifest import Sweep
from segexp.sweeps.work import End, read_end

STOPPED = (Preempted.exit_code, -15, -1, 130)
"""Exit codes of a job that somebody stopped: the same job goes on from its checkpoint."""
SAID = {"failed": "failed", "stopped": "was stopped", "blocked": "was not started"}
SECONDS_BETWEEN_LOOKS = 0.1


class Task(Protocol):
    """A job's process, wherever it runs."""

    key: str
    log: Path

    def poll(self) -> End | None:
        """Return how it ended, None while it runs."""

    def stop(self) -> None:
        """Ask it to save and to end."""


class Executor(Protocol):
    """Where jobs run.

    Attributes:
        resubmit: how often a job that the machine ended is submitted again by itself.
        detached: whether its jobs go on when the controller is stopped.
    """

    resubmit: int
    detached: bool

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Get ready for jobs that will be submitted; raise ConfigError where one cannot."""

    def fitting(self, waiting: Sequence[Job]) -> list[Job]:
        """Return which of the jobs can start now."""

    def submit(self, jobs: Sequence[Job]) -> Sequence[Task]:
        """Start jobs; return their tasks in the same order."""

    def adopt(self, event: Mapping[str, Any]) -> Task | None:
        """Return the task of a job that an earlier controller submitted, if it is still there."""

    def recover(self, events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return submissions that the events do not tell plainly."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        status: done, failed, stopped (it saved; starting it again goes on) or blocked (a job it needs failed).
        reason: why it is not done.
        log: what its process printed, where there was one.
        code: the process's exit code; None where nobody knows.
        seconds: since this controller submitted it.
        already: whether it was done before.
    """

    job: Job
    status: str
    reason: str = ""
    log: Path | None = None
    code: int | None = None
    seconds: float = 0.0
    already: bool = False


class Controller:
    """Brings every job of a sweep to an end, each once.

    ``run`` does all of it; a search calls ``add``, ``step`` and ``stop`` itself.

    Args:
        sweep: the sweep.
        executor: where its jobs run.
        jobs: some of its jobs; None: all.
        failed_too: whether jobs that failed in an earlier start are started again.
    """

    def __init__(self, sweep: Sweep, executor: Executor, jobs: Sequence[Job] | None = None,
                 failed_too: bool = True) -> None:
        self.sweep, self.executor, self.failed_too = sweep, executor, failed_too
        self.jobs: dict[str, Job] = {}
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Task] = {}
        self.elsewhere: dict[str, Job] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.submitted: dict[str, int] = {}
        self.started: dict[str, float] = {}
        self.unsaid: list[Outcome] = []
        self.leading = False
        self.locks = ExitStack()
        for job in sweep.jobs().values() if jobs is None else jobs:
            self.jobs.setdefault(job.id, job)

    def __enter__(self) -> "Controller":
        """Look at what there is and become the one that starts jobs, unless somebody else is."""
        try:
            self.lead()
        except BaseException:
            self.locks.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Let others start jobs; jobs that run go on."""
        self.locks.close()
        self.leading = False

    def lead(self) -> None:
        """Try to become the one that starts this sweep's jobs, and sort them."""
        with ExitStack() as attempt:
            self.leading = attempt.enter_context(self.sweep.lead())
            if self.leading:
                self.locks = attempt.pop_all()
        if self.leading:
            self.sort(self.jobs.values())
            self.executor.prepare(list(self.waiting.values()))

    def add(self, job: Job) -> None:
        """Take a job more, which ``Sweep.add`` or ``create_sweep`` has written."""
        self.jobs[job.id] = job
        self.outcomes.pop(job.id, None)
        if self.leading:
            self.sort([job])

    def sort(self, jobs: Collection[Job]) -> None:
        """Say of every job whether it is done, runs, failed, or waits."""
        events, keys = self.sweep.events(), self.sweep.keys()
        last = {event["job"]: event for event in (*events, *self.executor.recover(events))
                if event.get("event") == "submitted"}
        for job in jobs:
            if job.id in self.running or job.id in self.outcomes:
                continue
            task = self.executor.adopt(last[job.id]) if job.id in last and not job.done else None
            if task is not None:
                self.running[job.id] = task
                self.started[job.id], self.submitted[job.id] = time.monotonic(), 1
            elif job.done:
                self.end(Outcome(job, "done", already=True))
            elif job.run.held():
                self.elsewhere[job.id] = job
            else:
                outcome = None if self.failed_too else self.failure(job, keys.get(job.id))
                if outcome is None:
                    self.waiting[job.id] = job
                else:
                    self.end(outcome)

    def failure(self, job: Job, key: str | None) -> Outcome | None:
        """Return how a job failed in an earlier start, None where it did not."""
        end = read_end(self.sweep.logs, key) if key else None
        said = str(job.run.info.get("error") or "")
        if job.run.status_on_disk == "failed":
            return Outcome(job, "failed", said, job.run.path / "log.txt", end.code if end else None)
        if end is None or not end.code or end.code in (*STOPPED, BusyError.exit_code):
            return None
        return Outcome(job, "failed", end.reason, self.sweep.log_file(str(key)), end.code)

    def step(self) -> list[Outcome]:
        """See what has ended, start what can start; return what has ended since the last step."""
        if not self.leading:
            self.watch()
        for job_id, task in list(self.running.items()):
            end = task.poll()
            if end is not None:
                del self.running[job_id]
                self.judge(self.jobs[job_id], task, end)
        for job in list(self.elsewhere.values()):
            if not job.run.held():
                del self.elsewhere[job.id]
                self.sort([job])
        self.block()
        self.start()
        said, self.unsaid = self.unsaid, []
        return said

    def watch(self) -> None:
        """While another controller leads, wait; take over when it is gone, and do not repeat what failed there."""
        self.failed_too = False
        self.lead()

    def judge(self, job: Job, task: Task, end: End) -> None:
        """Decide what an ended process means for its job."""
        seconds = time.monotonic() - self.started.get(job.id, time.monotonic())
        if end.code == 0 or (end.code is None and job.done):
            self.end(Outcome(job, "done", log=task.log, code=0, seconds=seconds))
        elif end.code == BusyError.exit_code:
            self.elsewhere[job.id] = job  # another process trains this run; it is looked at when it lets go
        elif end.again and self.submitted.get(job.id, 0) <= self.executor.resubmit:
            self.waiting[job.id] = job
        else:
            stopped = end.code in STOPPED or end.again
            self.end(Outcome(job, "stopped" if stopped else "failed", end.reason, task.log, end.code, seconds))

    def block(self) -> None:
        """End the jobs whose parents will not be done, and their children in turn."""
        blocked = True
        while blocked:
            blocked = False
            for job in list(self.waiting.values()):
                bad = [self.outcomes[parent] for parent in job.needs
                       if parent in self.outcomes and self.outcomes[parent].status != "done"]
                if bad:
                    blocked = True
                    del self.waiting[job.id]
                    self.end(Outcome(job, "blocked", f"not started: parent {bad[0].job.name} {SAID[bad[0].status]}"))

    def start(self) -> None:
        """Submit the jobs that can start now."""
        if not self.leading:
            return
        ready = [job for job in self.waiting.values() if all(
            parent not in self.jobs or parent in self.outcomes for parent in job.needs)]
        chosen = self.executor.fitting(ready) if ready else []
        if not chosen:
            return
        for job, task in zip(chosen, self.executor.submit(chosen), strict=True):
            del self.waiting[job.id]
            self.running[job.id] = task
            self.submitted[job.id] = self.submitted.get(job.id, 0) + 1
            self.started.setdefault(job.id, time.monotonic())

    def end(self, outcome: Outcome) -> None:
        """Note what became of a job."""
        self.outcomes[outcome.job.id] = outcome
        self.unsaid.append(outcome)

    def stop(self, job_id: str) -> None:
        """Ask a job that runs to save and to end; its outcome comes with a later step."""
        if job_id in self.running:
            self.running[job_id].stop()

    @property
    def finished(self) -> bool:
        """Say whether every job has ended."""
        return len(self.outcomes) == len(self.jobs)

    def run(self, tell: Callable[["Controller", Sequence[Outcome]], None] = lambda controller, ended: None,
            ) -> list[Outcome]:
        """Bring every job to an end.

        Args:
            tell: called after every look with what has ended since the last one.

        Returns:
            What became of every job, in their order.
        """
        with self:
            while True:
                tell(self, self.step())
                if self.finished:
                    return [self.outcomes[job_id] for job_id in self.jobs]
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop_all(self, seconds: float) -> None:
        """Ask every job that runs to save and to end, and wait for that as long as ``seconds``."""
        for task in self.running.values():
            task.stop()
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            self.running = {job_id: task for job_id, task in self.running.items() if task.poll() is None}
            time.sleep(SECONDS_BETWEEN_LOOKS)


def raise_failures(outcomes: Sequence[Outcome], advice: str = "") -> None:
    """Raise what a list of outcomes amounts to, nothing where all is done.

    Raises:
        PartialError: several jobs, and some are not done; the message names each with its reason and its log.
        SegexpError: the only job is not done; the exit code is the job's.
    """
    from segexp.errors import PartialError

    bad = [outcome for outcome in outcomes if outcome.status != "done"]
    if not bad:
        return
    lines = [line for outcome in bad for line in told(outcome)]
    if len(outcomes) == 1:
        error = SegexpError("\n".join([*lines, advice]).strip())
        if bad[0].code is not None and bad[0].code > 0:
            error.exit_code = bad[0].code
        raise error
    raise PartialError("\n".join([f"{len(bad)} of {len(outcomes)} jobs are not done:", *lines, advice]).strip())


def told(outcome: Outcome) -> list[str]:
    """Return the lines that say why a job is not done."""
    first = f"  {outcome.job.name}: {outcome.status}" if outcome.status != "blocked" else f"  {outcome.job.name}"
    reason = outcome.reason.strip().replace("\n", "\n    ")
    lines = [f"{first}: {reason}" if reason else first]
    if outcome.log is not None:
        lines.append(f"    {outcome.job.run.id}, log: {outcome.log}")
    return lines
