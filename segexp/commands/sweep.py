"""``segexp sweep``: sweeps that were started, what became of their jobs, and going on with them."""

from collections.abc import Sequence
from typing import Any

SUMMARY = "list sweeps, show what became of their jobs, resume them"
HELP = """\
usage: segexp sweep [list] [paths.outputs=FOLDER]
       segexp sweep status NAME
       segexp sweep resume|retry NAME [hydra.launcher.KEY=VALUE ...] [--allow-target PREFIX]

  segexp sweep                       every sweep: how many jobs are done, run, wait, failed
  segexp sweep status nn_all-3f2a    every job: status, run, and why one failed; submitted: to a cluster's queue
  segexp sweep resume nn_all-3f2a    start what is missing, interrupted or preempted; wait for what runs
  segexp sweep retry nn_all-3f2a     the same, and what failed

A sweep is started with segexp train -m, or segexp table run. NAME is a directory of outputs/sweeps, or its beginning,
or its hash. Jobs train the configuration that was composed when the sweep was started; where the data have moved since,
give the line that started it again with the new data.root. Jobs start where they were started before
(hydra/launcher=local|slurm changes it, and so does every hydra.launcher.KEY). A sweep on disk grants no rights:
--allow-target and --allow-root have to be given again.
"""
WORDS = ("list", "status", "resume", "retry")


def run(arguments: list[str]) -> int | None:
    """List sweeps, show one, or go on with one."""
    from segexp.config.flags import split_flags
    from segexp.config.names import hint
    from segexp.errors import ConfigError
    from segexp.sweeps.manifest import get_sweep

    flags = split_flags(arguments)
    words = [word for word in flags.overrides if "=" not in word]
    options = [word for word in flags.overrides if "=" in word]
    verb, names = (words[0], words[1:]) if words else ("list", [])
    if verb not in WORDS:
        raise ConfigError(f"segexp sweep {verb}: there is no such action{hint(verb, WORDS)}")
    given = dict(word.partition("=")[::2] for word in options)
    outputs = given.pop("paths.outputs", "outputs")
    launcher = {key: value for key, value in given.items() if key.startswith(("hydra.launcher.", "hydra/launcher"))}
    other = [word for word in options if word.partition("=")[0] not in (*launcher, "paths.outputs")]
    if other or (launcher and verb in ("list", "status")):
        raise ConfigError(f"segexp sweep {verb} takes no {' '.join(other or launcher)}; "
                          "a job's configuration is what it was when the sweep was started")
    if verb == "list":
        return list_all(outputs)
    if len(names) != 1:
        raise ConfigError(f"segexp sweep {verb} needs one NAME; `segexp sweep` lists them")
    sweep = get_sweep(outputs, names[0])
    if verb == "status":
        return status(sweep)
    return go_on(sweep, options, flags, failed_too=verb == "retry")


def list_all(outputs: str) -> None:
    """Print a line for every sweep."""
    from collections import Counter

    from segexp.console import say
    from segexp.sweeps.manifest import list_sweeps

    sweeps = list_sweeps(outputs)
    if not sweeps:
        say(f"no sweep below {outputs}/sweeps; start one: segexp train -m experiment=neuronet/nn_all seed=1,2,3")
        return
    width = max(len(sweep.name) for sweep in sweeps)
    say(f"{'sweep':<{width}}  jobs  {'started':<26}what became of them")
    for sweep in sweeps:
        found = Counter(state(job) for job in sweep.jobs().values())
        text = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        say(f"{sweep.name:<{width}}  {sum(found.values()):>4}  {sweep.header.get('created', ''):<26}{text}")


def state(job: Any) -> str:
    """Return what became of a job, in a word."""
    from segexp.errors import SegexpError

    try:
        status = job.run.status
    except SegexpError:
        return "unreadable"
    if status == "new":
        return "running" if job.run.held() else "missing"
    return "stale" if status == "done" and not job.done else status


def status(sweep: Any) -> int:
    """Print what became of every job and return 0 when all is done, else 4."""
    from segexp.console import say
    from segexp.sweeps.report import doing

    jobs = sweep.jobs()
    say(f"{sweep.name}, started {sweep.header.get('created', '')} with: {sweep.header.get('command', '')}")
    width = max((len(job.name) for job in jobs.values()), default=0)
    open_jobs = 0
    last = sweep.keys()
    for job in jobs.values():
        now, key = state(job), last.get(job.id)
        if now in ("missing", "interrupted", "preempted") and key and submitted(sweep, key):
            now = "submitted"
        open_jobs += now != "done"
        say(f"  {now:<12}{job.name:<{width}}  {job.run.id}" + (f"  {doing(job)}" if now == "running" else ""))
        if now in ("failed", "interrupted", "missing", "preempted"):
            for text in why(sweep, job, key):
                say(f"{'':<14}{text}")
    if open_jobs:
        say(f"go on with: segexp sweep resume {sweep.name} (retry: also what failed)")
    return 4 if open_jobs else 0


def submitted(sweep: Any, key: str) -> bool:
    """Say whether a job was given to a cluster that has not said yet how it ended: it may wait in the queue."""
    from segexp.sweeps.work import read_end

    kind = (sweep.header.get("launcher") or {}).get("kind")
    return kind == "slurm" and read_end(sweep.logs, key) is None


def why(sweep: Any, job: Any, key: str | None) -> list[str]:
    """Return what is known about a job that is not done: its last word and its log."""
    from segexp.sweeps.work import read_end

    end = read_end(sweep.logs, key) if key else None
    reason = str(job.run.info.get("error") or "") or (end.reason if end else "")
    lines = reason.strip().splitlines()[:3]
    log = sweep.log_file(key) if key else None
    return [*lines, f"log: {log}"] if log is not None and log.exists() else lines


def go_on(sweep: Any, options: Sequence[str], flags: Any, failed_too: bool) -> int:
    """Start what is not done, wait for what runs.

    Raises:
        PartialError: some jobs are not done in the end.
    """
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.sweeps.controller import raise_failures
    from segexp.sweeps.drive import chosen, drive, make_executor, recorded

    jobs = sweep.jobs()
    if not jobs:
        raise ConfigError(f"{sweep.folder / 'manifest.jsonl'} names no job; start the sweep again")
    lost = [job for job in jobs.values() if not job.done and not sweep.config_file(job.id).exists()]
    if lost:
        raise ConfigError(f"{sweep.config_file(lost[0].id)} is gone; the line that started the sweep writes it again: "
                          f"{sweep.header.get('command', '')}")
    before = (sweep.header.get("launcher") or {}).get("kind", "local")
    settings = recorded(sweep, chosen(options, flags.config_dirs, before))
    say(f"sweep {sweep.name}: {len(jobs)} jobs")
    outcomes = drive(sweep, make_executor(sweep, settings, flags.allow), list(jobs.values()), failed_too)
    raise_failures(outcomes, f"segexp sweep retry {sweep.name} starts them again")
    say(f"sweep {sweep.name}: all done")
    return 0
