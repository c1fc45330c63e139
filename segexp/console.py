"""What a person sees while work is done: bars with the time left on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from segexp.redaction import redacted

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


_log: Path | None = None
# Of several ranks, started by torchrun or Slurm, the first speaks.
_silent = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0


def say(text: str) -> None:
    """Print one line at once, also through a pipe; append it to the log that ``logged_to`` names."""
    if _silent:
        return
    text = redacted(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # names of files may be anything
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    if _log is not None:
        with _log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{text}\n")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append every line that is said in this block to ``path`` too."""
    global _log
    before, _log = _log, path
    try:
        yield
    finally:
        _log = before


def duration(seconds: float) -> str:
    """Return a duration for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class PlainProgress:
    """Progress as lines, at most one every ``SECONDS_BETWEEN_LINES`` and one at the end."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total = description, total
        self.started = self.said = time.monotonic()
        self.done = self.first = 0

    def start_at(self, done: int) -> None:
        """Go on from ``done`` units that were done before."""
        self.done = self.first = done

    def advance(self, note: str = "") -> None:
        """Count one unit of work; print a line when it is time for one."""
        self.done += 1
        now = time.monotonic()
        last = self.done == self.total
        if not last and now - self.said < SECONDS_BETWEEN_LINES:
            return
        self.said = now
        spent = now - self.started
        line = f"{self.description}: {self.done}" + (f"/{self.total}" if self.total else "")
        if last:
            line += f", done in {duration(spent)}"
        elif self.total:
            line += f", about {duration(spent / (self.done - self.first) * (self.total - self.done))} left"
        say(line + (f"  {note}" if note else ""))


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while showing how many are done and how long the rest will take."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if not sys.stdout.isatty():
        progress = PlainProgress(description, total)
        for item in items:
            yield item
            progress.advance()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        yield from bar.track(items, total=total, description=description)
