"""Jobs on a Slurm cluster, through submitit: one array per start, one task per device, started again when time is up.

A job's process saves and asks Slurm to start it again when it gets SIGUSR2, which Slurm sends before the time is up.
Jobs that lost their node, or were preempted, are submitted again by the controller. What became of a job is said by
its run and its last word; ``squeue`` and ``sacct`` are asked about jobs that say nothing.
"""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from submitit import AutoExecutor
from submitit.core import utils

from segexp.errors import ConfigError, SegexpError
from segexp.sweeps.job import Job
from segexp.sweeps.manifest import Sweep
from segexp.sweeps.work import End, read_end, work

RUNNING = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING", "REQUEUE_HOLD",
           "REQUEUE_FED", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT")
MACHINE = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "TIMEOUT", "REVOKED")
"""States in which the cluster ended the job, not the job itself."""
GENERIC = ("nodes", "cpus_per_task", "gpus_per_node", "mem_gb")
SPECIFIC = ("partition", "account", "qos", "constraint", "setup", "array_parallelism", "signal_delay_s",
            "additional_parameters", "srun_args")


class Slurm:
    """Jobs of a sweep in Slurm's queue; all that can start are submitted at once.

    Args:
        sweep: where submitit's files go.
        allow: module prefixes of the user that a ``_target_`` may name.
        cluster: slurm; local and debug are submitit's own stand-ins.
        timeout_min: minutes that a job may take before it is started again from its checkpoint.
        max_num_timeout: how often that may happen.
        resubmit: how often a job is submitted again after its node failed or it was preempted.
        tasks_per_node: processes of a job on a node; None: as many as ``trainer.devices``.
        poll: seconds between two questions to the queue.
        python: how python is called on the nodes; None: as here.
        **parameters: of Slurm: partition, account, qos, constraint, nodes, cpus_per_task, gpus_per_node, mem_gb,
            setup, array_parallelism, signal_delay_s, additional_parameters, srun_args.
    """

    detached = True

    def __init__(self, sweep: Sweep, allow: Sequence[str] = (), cluster: str = "slurm", timeout_min: int = 1440,
                 max_num_timeout: int = 10, resubmit: int = 3, tasks_per_node: int | None = None, poll: float = 15.0,
                 python: str | None = None, **parameters: Any) -> None:
        unknown = sorted(set(parameters) - set(GENERIC) - set(SPECIFIC))
        if unknown:
            raise ConfigError(f"hydra.launcher has no {', '.join(unknown)}; what sbatch takes beyond "
                              f"{', '.join((*GENERIC, *SPECIFIC))} goes in hydra.launcher.additional_parameters")
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError("hydra/launcher=slurm: there is no sbatch and srun on this machine; start the sweep on a "
                              "login node of the cluster, or use hydra/launcher=local")
        self.sweep, self.allow, self.cluster, self.timeout_min = sweep, tuple(allow), cluster, timeout_min
        self.max_num_timeout, self.resubmit, self.tasks_per_node = max_num_timeout, resubmit, tasks_per_node
        self.python, self.parameters = python, {key: value for key, value in parameters.items() if value is not None}
        self.queue = Queue(sweep, poll)

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Nothing has to be warm."""

    def fitting(self, waiting: Sequence[Job]) -> list[Job]:
        """Return all: the queue is Slurm's."""
        return list(waiting)

    def submit(self, jobs: Sequence[Job]) -> list["Queued"]:
        """Submit jobs, those with the same number of tasks as one array; return their tasks in the same order."""
        found: dict[str, Queued] = {}
        for tasks in dict.fromkeys(self.tasks_of(job) for job in jobs):
            found |= self.submit_array([job for job in jobs if self.tasks_of(job) == tasks], tasks)
        return [found[job.id] for job in jobs]

    def tasks_of(self, job: Job) -> int:
        """Return how many processes a job has on a node: one per device."""
        return int(self.tasks_per_node or job.devices or self.parameters.get("gpus_per_node") or 1)

    def submit_array(self, jobs: Sequence[Job], tasks: int) -> dict[str, "Queued"]:
        """Submit jobs of the same shape.

        Raises:
            SegexpError: sbatch refuses them.
        """
        name = f"segexp-{self.sweep.name}-{uuid.uuid4().hex[:6]}"
        ids = [job.id for job in jobs]
        self.sweep.record(event="submitting", name=name, jobs=ids, time=time.time())
        files = [str(self.sweep.config_file(job.id)) for job in jobs]
        folders = [self.sweep.header.get("folder", "")] * len(jobs)
        try:
            submitted = self.executor(name, tasks).map_array(
                work, files, [self.allow] * len(jobs), folders, [self.max_num_timeout] * len(jobs))
        except (OSError, ValueError, subprocess.CalledProcessError, utils.FailedJobError,
                utils.FailedSubmissionError) as error:
            raise SegexpError(f"{self.sweep.name}: sbatch refused {len(jobs)} jobs: {str(error).strip()}") from error
        self.sweep.record(event="queued", name=name, time=time.time(),
                          keys={job.id: done.job_id for job, done in zip(jobs, submitted, strict=True)})
        return {job.id: Queued(self, done.job_id, name, done) for job, done in zip(jobs, submitted, strict=True)}

    def executor(self, name: str, tasks: int) -> AutoExecutor:
        """Return submitit's executor with the parameters of one array."""
        options = {f"{self.cluster}_python": self.python} if self.python and self.cluster != "debug" else {}
        if self.cluster != "debug":
            options[f"{self.cluster}_max_num_timeout"] = self.max_num_timeout
        executor = AutoExecutor(self.sweep.logs, cluster=self.cluster, **options)
        generic = {key: self.parameters[key] for key in GENERIC if key in self.parameters}
        specific = {f"slurm_{key}": self.parameters[key] for key in SPECIFIC if key in self.parameters}
        executor.update_parameters(name=name, timeout_min=self.timeout_min, tasks_per_node=tasks, stderr_to_stdout=True,
                                   **generic, **specific)
        return executor

    def adopt(self, event: Mapping[str, Any]) -> "Queued | None":
        """Return the task of a job that an earlier controller submitted, None when it is in no queue any more."""
        if event.get("event") != "submitted" or self.cluster != "slurm":
            return None
        task = Queued(self, str(event["key"]), str(event["name"]))
        return task if self.queue.state(task.key, task.name) in RUNNING else None

    def recover(self, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return a ``submitted`` event for every job that was given to Slurm, also where the answer was not noted."""
        noted = {event["name"] for event in events if event.get("event") == "queued"}
        found = [{"event": "submitted", "job": job, "key": key, "name": event["name"]}
                 for event in events if event.get("event") == "queued" for job, key in event["keys"].items()]
        for event in events:
            if event.get("event") == "submitting" and event["name"] not in noted and self.cluster == "slurm":
                for key in self.queue.named(event["name"]):
                    index = int(key.partition("_")[2] or 0)
                    if index < len(event["jobs"]):
                        found.append({"event": "submitted", "job": event["jobs"][index], "key": key,
                                      "name": event["name"]})
        return found


class Queued:
    """A job in Slurm's queue."""

    gpus: tuple[str, ...] = ()

    def __init__(self, executor: Slurm, key: str, name: str, job: Any = None) -> None:
        self.executor, self.key, self.name, self.job = executor, key, name, job
        self.gone = 0.0

    @property
    def log(self) -> Path:
        """What the job printed."""
        return utils.JobPaths(self.executor.sweep.logs, self.key, 0).stdout

    def alive(self) -> bool:
        """Say whether the job is in the queue or runs."""
        return self.poll() is None

    def poll(self) -> End | None:
        """Return how the job ended, None while it waits or runs."""
        if self.job is not None and self.executor.cluster == "debug":
            self.run_here()
        end = read_end(self.executor.sweep.logs, self.key)
        if end is not None:
            return End(end.code, end.reason, again=end.code == 143)
        state = self.state()
        if state in RUNNING or state == "UNKNOWN":
            self.gone = 0.0
            return None
        # Its last word may still be on the way through the shared file system.
        self.gone = self.gone or time.monotonic()
        if time.monotonic() - self.gone < 2 * self.executor.queue.seconds:
            return None
        return End(None, f"Slurm says {state}", again=state.split()[0] in MACHINE)

    def state(self) -> str:
        """Return what the queue says."""
        if self.executor.cluster == "slurm":
            return self.executor.queue.state(self.key, self.name)
        return "RUNNING" if self.job is not None and not self.job.done() else "GONE"

    def run_here(self) -> None:
        """Let submitit's debug executor work in this process."""
        listening = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
        with suppress(SystemExit):
            self.job.results()
        for number, handler in listening.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Ask the job to save and to end."""
        if self.executor.cluster == "slurm":
            subprocess.run(["scancel", "--signal=TERM", self.key], capture_output=True, check=False)
        elif self.job is not None:
            self.job.cancel(check=False)


class Queue:
    """What ``squeue`` and ``sacct`` say about the jobs of a sweep, asked every few seconds at most."""

    def __init__(self, sweep: Sweep, seconds: float) -> None:
        self.sweep, self.seconds = sweep, seconds
        self.names: set[str] = set()
        self.live: dict[str, str] = {}
        self.asked = float("-inf")
        self.trusted = False
        self.ended: dict[str, str] = {}

    def state(self, key: str, name: str) -> str:
        """Return a job's state in Slurm's words; GONE: no queue knows it; UNKNOWN: the queue does not answer."""
        if name not in self.names:
            self.names.add(name)
            self.asked = float("-inf")
        if time.monotonic() - self.asked >= self.seconds:
            self.ask()
        if not self.trusted:
            return "UNKNOWN"
        if key in self.live:
            return self.live[key]
        return self.account(key)

    def ask(self) -> None:
        """Ask the queue for all jobs of the known names."""
        self.asked = time.monotonic()
        answer = output(["squeue", "--noheader", "--array", "--format=%i|%T", f"--name={','.join(sorted(self.names))}"])
        self.trusted = answer is not None
        if answer is not None:
            self.live = dict(line.split("|", 1) for line in answer.split() if "|" in line)
            self.ended.clear()

    def account(self, key: str) -> str:
        """Return how a job that left the queue ended, by Slurm's books where it keeps any."""
        if key not in self.ended:
            answer = output(["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State",
                             f"--jobs={key}"])
            lines = [line.split("|", 1) for line in (answer or "").splitlines() if "|" in line]
            self.ended[key] = next((state for one, state in lines if one == key), "GONE")
        return self.ended[key]

    def named(self, name: str) -> list[str]:
        """Return the ids of the jobs with this name that are in the queue."""
        answer = output(["squeue", "--noheader", "--array", "--format=%i", f"--name={name}"])
        return answer.split() if answer else []


def output(command: Sequence[str]) -> str | None:
    """Return what a command printed, None when it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=dict(os.environ))
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
