"""Run a sweep's controller for a person: settings to executor, progress, Ctrl-C."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from segexp.console import say
from segexp.errors import ConfigError, Preempted, SegexpError
from segexp.sweeps.controller import Controller, Executor, Outcome
from segexp.sweeps.job import Job
from segexp.sweeps.manifest import Sweep
from segexp.sweeps.report import Report

COMMANDS = ("setup", "python", "srun_args", "additional_parameters")
"""Settings of a launcher that may run commands: never taken from a manifest, which may be a stranger's."""
LAUNCHER = ("hydra/launcher=", "hydra.launcher.")
SECONDS_TO_SAVE = 300.0


def make_executor(sweep: Sweep, settings: Mapping[str, Any], allow: Sequence[str] = ()) -> Executor:
    """Return the executor that a launcher's settings describe.

    Args:
        sweep: whose jobs it will run.
        settings: ``{"kind": "local" or "slurm", ...}``; the rest are its arguments.
        allow: module prefixes of the user that a ``_target_`` may name.

    Raises:
        ConfigError: an unknown setting, or one that does not fit this machine.
    """
    from segexp.config.names import hint

    kinds = ("local", "slurm")
    settings = dict(settings)
    kind = settings.pop("kind", "local")
    if kind not in kinds:
        raise ConfigError(f"hydra/launcher={kind}: jobs of a sweep are started by {' or '.join(kinds)}")
    if kind == "slurm":
        from segexp.sweeps.slurm import Slurm

        return Slurm(sweep, allow, **settings)
    from segexp.sweeps.local import Local

    known = ("slots", "gpus_per_job", "gpus", "resubmit")
    for key in settings:
        if key not in known:
            raise ConfigError(f"hydra.launcher has no {key!r}{hint(key, known)}")
    return Local(sweep, allow=allow, **settings)


def chosen(words: Sequence[str], config_dirs: Sequence[str] = (), before: str = "local") -> dict[str, Any]:
    """Return what ``hydra/launcher=NAME`` and ``hydra.launcher.KEY=VALUE`` say.

    Args:
        words: of a command line; others are left aside.
        config_dirs: more folders with configuration.
        before: the launcher that is meant where none is named.

    Returns:
        All settings of a launcher that is named, with its ``kind``; else only those that are given.

    Raises:
        ConfigError: a launcher, a key or a value that does not exist.
    """
    from omegaconf import OmegaConf

    from segexp.config.composition import launcher_settings

    words = [word for word in words if word.startswith(LAUNCHER)]
    if not words:
        return {}
    group = any(word.startswith("hydra/launcher=") for word in words)
    words = words if group else [f"hydra/launcher={before}", *words]
    found = OmegaConf.to_container(launcher_settings(words, config_dirs), resolve=True)
    kind = str(found.pop("_target_")).rpartition(".")[2].lower()
    found.pop("_convert_", None)
    keys = {word.partition("=")[0].removeprefix("hydra.launcher.").partition(".")[0] for word in words}
    return {"kind": kind, **found} if group else {key: found[key] for key in keys if key in found}


def recorded(sweep: Sweep, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the launcher's settings of an earlier start, with ``changes``.

    Raises:
        ConfigError: it had settings that run commands, which have to be given again.
    """
    found = dict(sweep.header.get("launcher") or {})
    if changes.get("kind", found.get("kind")) != found.get("kind"):
        found = {}
    again = [key for key in COMMANDS if found.pop(key, None) and key not in changes]
    if again:
        raise ConfigError(f"{sweep.name} was started with {' and '.join(f'hydra.launcher.{key}' for key in again)}; "
                          "what runs commands is not taken from a file: give it again, or empty (=null)")
    return {**found, **changes}


def drive(sweep: Sweep, executor: Executor, jobs: Sequence[Job] | None = None,
          failed_too: bool = True) -> list[Outcome]:
    """Bring every job of a sweep to an end, telling a person about it.

    Args:
        sweep: the sweep.
        executor: where its jobs run.
        jobs: some of its jobs; None: all.
        failed_too: whether jobs that failed in an earlier start are started again.

    Returns:
        What became of every job.

    Raises:
        KeyboardInterrupt: Ctrl-C; jobs have been asked to save and have ended.
        Preempted: SIGTERM, likewise.
        SegexpError: a job cannot be submitted.
    """
    controller = Controller(sweep, executor, jobs, failed_too)
    try:
        with terminated():
            return controller.run(Report())
    except (KeyboardInterrupt, Preempted):
        end_jobs(controller)
        raise
    except OSError as error:
        raise SegexpError(f"{sweep.name}: a job cannot be started ({error}); those that run go on. Later: segexp "
                          f"sweep resume {sweep.name}") from error
    except SegexpError as error:
        if controller.running:
            say(f"{len(controller.running)} jobs go on; later: segexp sweep resume {sweep.name}")
        raise error


def end_jobs(controller: Controller) -> None:
    """After Ctrl-C: give a second to say it again, then let the jobs save and end."""
    name, running = controller.sweep.name, len(controller.running)
    later = f"go on with: segexp sweep resume {name}"
    if controller.executor.detached:
        say(f"{name}: {running} jobs stay in the queue; {later}")
        return
    if not running:
        say(f"{name}: stopped; {later}")
        return
    try:
        say(f"{name}: {running} jobs are asked to save and to end; Ctrl-C again leaves them running")
        time.sleep(1)
    except KeyboardInterrupt:
        say(f"{name}: {running} jobs go on; {later}")
        return
    try:
        controller.stop_all(SECONDS_TO_SAVE)
    except KeyboardInterrupt:
        pass
    left = len(controller.running)
    say(f"{name}: stopped" + (f", {left} jobs are still saving" if left else "") + f"; {later}")


@contextmanager
def terminated() -> Iterator[None]:
    """Raise Preempted when this process gets SIGTERM."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted("the sweep was stopped by SIGTERM")

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
