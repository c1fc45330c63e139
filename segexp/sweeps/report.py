"""What a person sees while a sweep runs."""

import time
from collections.abc import Sequence
from typing import Any

from segexp.console import duration, say
from segexp.sweeps.controller import Controller, Outcome
from segexp.sweeps.job import Job

SECONDS_BETWEEN_REPORTS = 10.0
MOST = 6  # jobs in a line


class Report:
    """Says what has ended as it ends, and every few seconds what runs."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.known: set[str] = set()
        self.watching = False

    def __call__(self, controller: Controller, ended: Sequence[Outcome]) -> None:
        """Take in what has ended."""
        total, done = len(controller.jobs), len(controller.outcomes)
        if not controller.leading and not self.watching:
            say(f"another process starts the jobs of {controller.sweep.name}; this one waits, and goes on if it ends")
        self.watching = not controller.leading
        before = [outcome for outcome in ended if outcome.already]
        if before:
            say(f"{len(before)} of {total} jobs are done already")
        for outcome in ended:
            if not outcome.already:
                reason = outcome.reason.strip().splitlines()
                say(f"[{done}/{total}] {outcome.job.name}: {outcome.status}"
                    + (f" after {duration(outcome.seconds)}" if outcome.seconds else "")
                    + (f": {reason[0]}" if reason else ""))
        for job_id in controller.elsewhere:
            if job_id not in self.known:
                self.known.add(job_id)
                say(f"{controller.jobs[job_id].name}: another process trains this run; waiting for it")
        if time.monotonic() - self.said > SECONDS_BETWEEN_REPORTS and not controller.finished:
            self.said = time.monotonic()
            say(f"[{done}/{total}, {duration(self.said - self.began)}] {line(controller)}")


def line(controller: Controller) -> str:
    """Return what the jobs do at the moment."""
    active = [controller.jobs[job_id] for job_id in (*controller.running, *controller.elsewhere)]
    if controller.executor.detached:
        held = [job for job in active if job.run.held()]
        queued, active = len(active) - len(held), held
    else:
        queued = 0
    parts = [doing(job) for job in active[:MOST]]
    if len(active) > MOST:
        parts.append(f"{len(active) - MOST} more")
    if queued:
        parts.append(f"{queued} in the queue")
    if controller.waiting:
        parts.append(f"{len(controller.waiting)} wait")
    return "; ".join(parts)


def doing(job: Job) -> str:
    """Return how far a job is."""
    progress: dict[str, Any] = job.run.progress()
    if not progress:
        return f"{job.name} prepares"
    text = f"{job.name} {progress['stage']} {progress['done']}/{progress['total']}"
    text += f" about {duration(progress['seconds_left'])} left"
    return text + (f" ({progress['note']})" if progress.get("note") else "")
