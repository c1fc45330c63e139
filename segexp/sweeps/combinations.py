"""From the combinations of a sweep to its jobs: each composed once and checked before the first one starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from segexp.console import say
from segexp.errors import ConfigError
from segexp.sweeps.job import Job, make_job, names_of


def compose_jobs(combinations: Sequence[Sequence[str]], config_dirs: Sequence[str] = (),
                 allow: Sequence[str] = (), warm: bool = False) -> list[Job]:
    """Return the jobs of a sweep; combinations that mean the same run are one job.

    Args:
        combinations: the overrides of each.
        config_dirs: more folders with configuration.
        allow: module prefixes of the user that a ``_target_`` may name.
        warm: whether they are checked in a process forked from the warm one of local jobs.

    Raises:
        ConfigError: a combination does not compose or does not fit together; the message says which.
    """
    from segexp.config import compose

    jobs: dict[str, Job] = {}
    for words, name in zip(combinations, names_of(combinations), strict=True):
        job = make_job(compose("train", words, config_dirs), words, name)
        jobs.setdefault(job.id, job)
    if len(jobs) < len(combinations):
        say(f"{len(combinations)} combinations mean {len(jobs)} different runs")
    check_all([job for job in jobs.values() if not job.done], allow, config_dirs, warm)
    return list(jobs.values())


def check_all(jobs: Sequence[Job], allow: Sequence[str], config_dirs: Sequence[str], warm: bool) -> None:
    """Raise one ConfigError that lists what is wrong with any of the jobs, each thing once."""
    if not jobs:
        return
    arguments = [job.config for job in jobs], [job.name for job in jobs], allow, config_dirs
    if warm:
        from segexp.sweeps.forking import ask_warm

        problems = ask_warm(problems_of, *arguments)  # which has imported what checking needs
    else:
        problems = problems_of(*arguments)
    if problems:
        raise ConfigError("\n".join(text if len(names) == len(jobs) else f"{text} (with {'; '.join(names[:3])}"
                                    + (f" and {len(names) - 3} more)" if len(names) > 3 else ")")
                                    for text, names in problems.items()))


def problems_of(configs: Sequence[Mapping[str, Any]], names: Sequence[str], allow: Sequence[str],
                config_dirs: Sequence[str]) -> dict[str, list[str]]:
    """Return what is wrong -> the names of the configurations in which it is."""
    from segexp.config import check

    found: dict[str, list[str]] = {}
    for config, name in zip(configs, names, strict=True):
        for problem in check(config, allow=allow, may_miss=(), config_dirs=config_dirs):
            found.setdefault(str(problem), []).append(name)
    return found


def sweep_name(jobs: Sequence[Job]) -> str:
    """Return what a sweep is called: the name that its runs share, else their method, else ``sweep``."""
    for of in (lambda job: str(job.config.get("name")), lambda job: job.config["method"]["_target_"].split(".")[2]):
        found = {of(job) for job in jobs}
        if len(found) == 1:
            name = "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in found.pop())
            return name.strip(".-")[:60] or "sweep"
    return "sweep"
