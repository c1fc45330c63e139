"""What every benchmark shares: alternating timings, peak memory in fresh processes, one report.

A time is worth little on a shared machine; a ratio of two sides that were timed in turn, in the same process
and on the same arrays, is worth more. So nothing here reports one side alone.
"""

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

GIGABYTE = 1e9


class Memory(NamedTuple):
    """Resident memory of a child process in GB: just before the work, and at its highest during the work."""

    before: float
    peak: float

    @property
    def growth(self) -> float:
        """GB that the work itself added."""
        return self.peak - self.before


def alternate(
    sides: Mapping[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Time the sides in turn (A B C A B C ...), so that a slow moment of the machine hits all of them.

    Args:
        sides: name -> call without arguments. The first one is "ours" by convention.
        repeats: timed rounds.
        warmup: rounds before them that are not timed.

    Returns:
        name -> wall seconds of each round, in the order of the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, work in sides.items():
            gc.collect()
            started = time.perf_counter()
            work()
            spent = time.perf_counter() - started
            if turn >= warmup:
                seconds[name].append(spent)
    return seconds


def _status(field: str) -> float | None:
    """Return a field of /proc/self/status in GB, or None where there is none (macOS)."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    line = next(line for line in path.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / GIGABYTE


def _highest() -> float:
    """Return the process's own peak in GB. getrusage would include the parent's, inherited through exec."""
    peak = _status("VmHWM")
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIGABYTE
    return peak


def _measure(connection: Any, prepare: Callable[[], Any], work: Callable[[Any], Any]) -> None:
    inputs = prepare()
    gc.collect()
    marks = Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")  # forget the peak of the preparation
    before = _status("VmRSS") or _highest()
    work(inputs)
    connection.send(Memory(before, _highest()))
    connection.close()


def peak_memory(prepare: Callable[[], Any], work: Callable[[Any], Any]) -> Memory:
    """Run ``work(prepare())`` in a fresh process; return its memory before and at the peak of ``work``.

    Both must be functions at the top level of an importable module (the child imports them by name).
    ``prepare`` should import what ``work`` needs, so that libraries count as "before".
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, prepare, work))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the child process measured nothing, exit code {child.exitcode}") from None
    finally:
        child.join()


class Row(NamedTuple):
    """One entry of a report: what was done, seconds per side (from `alternate`), memory per side."""

    work: str
    seconds: Mapping[str, Sequence[float]]
    memory: Mapping[str, Memory] = {}


def report(rows: Sequence[Row]) -> None:
    """Print medians, fastest rounds and ratios of all sides to the first side of each row ("ours")."""
    load = os.getloadavg()[0]
    print(f"cores {os.cpu_count()}, load {load:.2f}, python {sys.version.split()[0]}")
    for row in rows:
        print(row.work)
        ours, *_ = row.seconds
        base = statistics.median(row.seconds[ours])
        for name, seconds in row.seconds.items():
            median = statistics.median(seconds)
            line = f"  {name:<28} median {median:9.4f} s  min {min(seconds):9.4f} s  n {len(seconds)}"
            if name != ours:
                line += f"  {median / base:8.1f} x the time"
            if name in row.memory:
                memory = row.memory[name]
                line += f"  +{memory.growth:.3f} GB (peak {memory.peak:.2f} GB)"
                if name != ours:
                    # Below a megabyte the pages of the allocator are measured, not the work.
                    least = max(row.memory[ours].growth, 1e-3)
                    line += f", {memory.growth / least:.1f} x the memory"
            print(line)
