"""Jobs on this machine: submitit's local executor, with slots, GPUs dealt out, and warm processes.

Importing torch and Lightning takes seconds, so a job is forked from a process that has imported them and computed
nothing. It runs submitit's own job protocol in a session of its own: it outlives the process that started it, and
takes no other job with it when it dies.
"""

import contextlib
import fcntl
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit.core import utils

from segexp.errors import ConfigError, Preempted
from segexp.sweeps.forking import ForkingExecutor, lock_file, warm_up
from segexp.sweeps.gpus import visible_gpus
from segexp.sweeps.job import Job
from segexp.sweeps.manifest import Sweep
from segexp.sweeps.work import End, read_end, work

SECONDS_TO_START = 5.0  # between the note that a job is submitted and its process's lock


class Local:
    """At most ``slots`` jobs at a time on this machine.

    Args:
        sweep: where submitit's files go.
        slots: jobs at a time; None: one per GPU (or per ``gpus_per_job`` of them), one per CPU core without a GPU.
        gpus_per_job: GPUs of every job that takes any; None: as many as its ``trainer.devices``.
        gpus: which GPUs are dealt out; None: all that are visible.
        resubmit: how often a job that was stopped by SIGTERM is started again by itself.
        allow: module prefixes of the user that a ``_target_`` may name.
    """

    detached = False

    def __init__(self, sweep: Sweep, slots: int | None = None, gpus_per_job: int | None = None,
                 gpus: Sequence[int | str] | None = None, resubmit: int = 0, allow: Sequence[str] = ()) -> None:
        for key, value, least in (("slots", slots, 1), ("gpus_per_job", gpus_per_job, 0), ("resubmit", resubmit, 0)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ConfigError(f"hydra.launcher.{key}={value}: expected {least} or more")
        self.sweep, self.gpus_per_job, self.resubmit, self.allow = sweep, gpus_per_job, resubmit, tuple(allow)
        self.gpus = [str(one) for one in gpus] if gpus is not None else visible_gpus()
        self.slots = slots or (max(1, len(self.gpus) // (gpus_per_job or 1)) if self.gpus else cores())
        self.running: dict[str, Forked] = {}
        self.executor: ForkingExecutor | None = None

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Start the warm process.

        Raises:
            ConfigError: a job takes more GPUs than there are.
        """
        for job in jobs:
            if self.gpus and self.need(job) > len(self.gpus):
                raise ConfigError(f"{job.name} takes {self.need(job)} GPUs, but there are {len(self.gpus)}; set "
                                  "trainer.devices or hydra.launcher.gpus_per_job")
        if jobs:
            warm_up()

    def need(self, job: Job) -> int:
        """Return how many GPUs a job takes."""
        if not self.gpus or not job.gpu:
            return 0
        return self.gpus_per_job if self.gpus_per_job is not None else job.devices or len(self.gpus)

    def free(self) -> list[str]:
        """Return the GPUs that no job has."""
        taken = {gpu for task in self.running.values() for gpu in task.gpus}
        return [gpu for gpu in self.gpus if gpu not in taken]

    def fitting(self, waiting: Sequence[Job]) -> list[Job]:
        """Return the jobs that can start now: the first of ``waiting``, while slots and GPUs last."""
        self.running = {key: task for key, task in self.running.items() if task.poll() is None}
        free, room, found = len(self.free()), self.slots - len(self.running), []
        for job in waiting:
            if len(found) >= room or self.need(job) > free:
                break
            free -= self.need(job)
            found.append(job)
        return found

    def submit(self, jobs: Sequence[Job]) -> list["Forked"]:
        """Start jobs that fit; return their tasks in the same order."""
        self.executor = self.executor or ForkingExecutor(self.sweep.logs)
        tasks = []
        for job in jobs:
            gpus, key = self.free()[: self.need(job)], f"{job.id}-{uuid.uuid4().hex[:6]}"
            # Before it starts: whoever goes on after this process may wait for it instead of starting it again.
            self.sweep.record(event="submitted", job=job.id, key=key, gpus=gpus, host=os.uname().nodename,
                              time=time.time())
            self.executor.settings = {"key": key, "gpus": gpus, "hide": bool(self.gpus), "threads": self.threads(),
                                      "ranks": job.devices or 1}
            submitted = self.executor.submit(work, str(self.sweep.config_file(job.id)), self.allow,
                                             self.sweep.header.get("folder", ""))
            task = Forked(self.sweep.logs, key, gpus, submitted._process)
            self.running[task.key] = task
            tasks.append(task)
        return tasks

    def threads(self) -> int | None:
        """Return the CPU threads of a job; None where the user has said how many."""
        return None if "OMP_NUM_THREADS" in os.environ else max(1, cores() // self.slots)

    def adopt(self, event: Mapping[str, Any]) -> "Forked | None":
        """Return the task of a job that an earlier controller submitted, None when its process is gone."""
        if event.get("event") != "submitted" or event.get("host") != os.uname().nodename:
            return None
        task = Forked(self.sweep.logs, str(event["key"]), [str(gpu) for gpu in event.get("gpus", [])])
        while not task.alive():
            if task.lock.exists() or time.time() - float(event.get("time", 0)) > SECONDS_TO_START:
                return None
            time.sleep(0.1)
        self.running[task.key] = task
        return task

    def recover(self, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the submissions of which nobody has written down that they took place: none here."""
        return []


class Forked:
    """A job's process, of this controller or of an earlier one."""

    def __init__(self, logs: Path, key: str, gpus: Sequence[str] = (), process: Any = None) -> None:
        self.logs, self.key, self.gpus, self.process = logs, key, tuple(gpus), process
        self.end: End | None = None

    @property
    def log(self) -> Path:
        """What the job printed."""
        return utils.JobPaths(self.logs, self.key, 0).stdout

    @property
    def lock(self) -> Path:
        """Held by the process as long as it lives; holds its number."""
        return lock_file(self.logs, self.key)

    def alive(self) -> bool:
        """Say whether the process lives, whoever started it."""
        try:
            with self.lock.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def poll(self) -> End | None:
        """Return how the job ended, None while it runs."""
        if self.end is None:
            code = self.process.poll() if self.process is not None else None
            # 255: the process that forked it is gone, and with it the exit code.
            if (code is None and self.process is not None) or (code in (None, 255) and self.alive()):
                return None
            end = read_end(self.logs, self.key) or End(code if code != 255 else None, killed(code))
            self.end = replace(end, again=end.code in (Preempted.exit_code, -signal.SIGTERM))
        return self.end

    def stop(self) -> None:
        """Ask the process to save and to end."""
        with contextlib.suppress(OSError, ValueError):
            number = int(self.lock.read_text()) if self.process is None else self.process.pid
            if number > 0 and self.poll() is None:
                os.kill(number, signal.SIGTERM)


def killed(code: int | None) -> str:
    """Return in words how a process ended that could not say it itself."""
    if code is None or code == 255:
        return "its process is gone without a word, perhaps killed"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (", perhaps by the system for want of memory" if name == "SIGKILL" else "")


def cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
