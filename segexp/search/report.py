"""What a search has found: lines while it goes on, a table of its trials, the best one."""

import csv
import io
import shlex
from collections.abc import Sequence
from typing import Any

from segexp.files import write_text
from segexp.search.space import Parameter
from segexp.search.study import StudyFolder, Trials


def state_of(trial: Any, folder: StudyFolder | None = None) -> str:
    """Return a trial's state in a word; one that runs without a living process is ``interrupted``."""
    state = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
    found = state[trial.state.name]
    if found == "running" and folder is not None and not folder.alive(trial.user_attrs.get("worker")):
        return "interrupted"
    return found


def told_end(trial: Any, metric: str, best: Any) -> str:
    """Return the line about a trial that has ended."""
    state = state_of(trial)
    if state == "failed":
        return f"trial {trial.number} failed: {trial.user_attrs.get('reason')}"
    value = "" if trial.value is None else f", {metric} {trial.value:.4f}"
    where = f" at step {trial.user_attrs['pruned']}" if state == "pruned" else ""
    leader = f"; best: trial {best.number}, {best.value:.4f}" if best else ""
    return f"trial {trial.number} {state}{where}{value}{leader}"


def write_table(folder: StudyFolder, trials: Trials, space: Sequence[Parameter]) -> None:
    """Write trials.csv: a row per trial."""
    text = io.StringIO()
    keys = [one.key for one in space]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", "last_step", "run", "started", "ended", *keys, "reason"])
    for trial in trials.all():
        started, ended = (one.isoformat(timespec="seconds") if one else ""
                          for one in (trial.datetime_start, trial.datetime_complete))
        writer.writerow([trial.number, state_of(trial, folder), "" if trial.value is None else repr(trial.value),
                         "" if trial.last_step is None else trial.last_step, trial.user_attrs.get("run", ""), started,
                         ended, *(trial.params.get(key, "") for key in keys), trial.user_attrs.get("reason", "")])
    write_text(folder.path / "trials.csv", text.getvalue())


def train_line(trial: Any) -> str:
    """Return the exact ``segexp train`` line of a trial."""
    return shlex.join(["segexp", "train", *trial.user_attrs.get("overrides", [])])


def summary(folder: StudyFolder, trials: Trials, space: Sequence[Parameter], every: bool = False) -> list[str]:
    """Return the lines about a study.

    Args:
        folder: the study.
        trials: its trials.
        space: what it searches.
        every: also a line per trial.
    """
    found = trials.all()
    states = [state_of(trial, folder) for trial in found]
    counts = ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states)) or "none yet"
    metric = trials.definition["metric"]
    lines = [f"study {folder.name}: {len(found)} of {trials.definition['trials']} trials: {counts} "
             f"({trials.definition['direction']} {metric} of the validation cases; test cases are never looked at)"]
    for trial, state in zip(found, states, strict=True) if every else ():
        value = "" if trial.value is None else f"{trial.value:.4f}"
        chosen = " ".join(one.word(trial.params[one.key]) for one in space if one.key in trial.params)
        lines.append(f"  {trial.number:>4}  {state:<12}{value:>8}  {chosen}  {trial.user_attrs.get('run', '')}")
        if state == "failed":
            lines.append(f"        {trial.user_attrs.get('reason', '')}")
    best = trials.best()
    if best is not None:
        lines += [f"best: trial {best.number}, {metric} {best.value:.4f}, run {best.user_attrs.get('run')}",
                  f"  {train_line(best)}"]
    lines.append(f"trials: {folder.path / 'trials.csv'}")
    return lines
