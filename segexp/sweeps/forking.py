"""Processes forked from a warm one, which has imported what every job needs and computed nothing.

``ForkingExecutor`` is submitit's local executor with such processes; they speak submitit's own job protocol.
"""

import contextlib
import fcntl
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core import utils
from submitit.local.local import LocalExecutor, LocalJob

from segexp.errors import SegexpError

PRELOAD = ["segexp.sweeps.warm", "segexp.runs.preload"]


def warm_up() -> None:
    """Start importing what every job needs, in a process of its own, while this one goes on."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    multiprocessing.forkserver.ensure_running()


def ask_warm(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process forked from the warm one; return its result, raise its error."""
    receiver, sender = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    warm_up()
    process = multiprocessing.get_context("forkserver").Process(target=answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        error, result = receiver.recv()
    except EOFError:
        raise SegexpError("checking the jobs ended without a word; is there enough memory?") from None
    finally:
        process.join()
    if error is not None:
        raise error
    return result


def answer(sender: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Send a function's error and result."""
    try:
        sender.send((None, function(*arguments)))
    except Exception as error:
        sender.send((error, None))


class ForkingExecutor(LocalExecutor):
    """submitit's local executor, except that a job's process is forked from a warm one.

    Attributes:
        settings: of the next job: its ``key``, ``gpus``, ``hide`` (whether it sees no others), ``threads``, ``ranks``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, max_num_timeout=0)
        self.settings: dict[str, Any] = {}

    @classmethod
    def name(cls) -> str:
        """As submitit calls its own: the job's environment is that of a local job."""
        return "local"

    def _internal_process_submissions(self, delayed_submissions: list[Any]) -> list[Any]:
        """Write what is to be called and fork a process that does it."""
        jobs = []
        for delayed in delayed_submissions:
            key = self.settings["key"]
            delayed.set_timeout(0, 0)
            delayed.dump(utils.JobPaths(self.folder, key).submitted_pickle)
            process = multiprocessing.get_context("forkserver").Process(
                target=forked, args=(str(self.folder), dict(os.environ), self.settings), name=f"job {key}")
            process.start()
            multiprocessing.process._children.discard(process)  # type: ignore[attr-defined] # else Python's exit waits
            jobs.append(LocalJob(self.folder, key, process=Polled(process)))  # type: ignore[arg-type]
        return jobs


class Polled:
    """A multiprocessing process with the face of a subprocess, which submitit expects."""

    def __init__(self, process: Any) -> None:
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def lock_file(logs: Path, key: str) -> Path:
    """Return the file that a job's process holds as long as it lives; it holds the process's number."""
    return logs / f"{key}.lock"


def forked(folder: str, environment: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Be the process of a local job: what submitit's local controller and its task do, in one."""
    key = settings["key"]
    os.setsid()  # Ctrl-C and a closed terminal are the controller's matter
    leave_tracker()
    os.environ.clear()
    os.environ.update(environment)
    os.environ |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": key, "SUBMITIT_LOCAL_NTASKS": "1",
                   "SUBMITIT_LOCAL_JOB_NUM_NODES": "1", "SUBMITIT_LOCAL_NODEID": "0",
                   "SUBMITIT_LOCAL_GLOBALID": "0", "SUBMITIT_LOCAL_LOCALID": "0"}
    if settings["hide"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(settings["gpus"])
    logs = Path(folder)
    holding = lock_file(logs, key).open("a")  # until the process ends
    fcntl.flock(holding, fcntl.LOCK_EX)
    holding.write(str(os.getpid()))
    holding.flush()
    print_to(utils.JobPaths(logs, key, 0).stdout)
    if settings["threads"]:
        import torch

        torch.set_num_threads(settings["threads"])
        os.environ["OMP_NUM_THREADS"] = str(max(1, settings["threads"] // settings["ranks"]))  # of its ranks
    from submitit.core.submission import process_job

    process_job(folder)
    holding.close()


def leave_tracker() -> None:
    """Let go of the controller's resource tracker, which would live, and hold its pipe, as long as the job."""
    from multiprocessing import resource_tracker

    tracker = resource_tracker._resource_tracker  # type: ignore[attr-defined]
    with contextlib.suppress(AttributeError, OSError):
        if tracker._fd is not None:
            os.close(tracker._fd)
            tracker._fd = None  # the job starts one of its own when it needs one


def print_to(path: Path) -> None:
    """Send this process's standard output and error to ``path``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
