"""Probes that really try: locks and renames where runs will be written, and convolutions in both precisions."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segexp.machine.facts import Place, existing, file_system

EDGE = {"cpu": 16, "cuda": 96, "mps": 48}
CHANNELS = 32
REPEATS = 7
MOST_SECONDS = 0.5  # of one measurement: what takes longer is known to be slow


def place(path: Path) -> Place:
    """Try what a run does to its folder: create, lock, find locked, rename over a file and over nothing, flush.

    Nothing is left behind; a folder that is not there yet is tried where it would be made.
    """
    folder = existing(path)
    free = shutil.disk_usage(folder).free / 1e9
    problems = []
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".segexp-doctor-") as name:
            problems = [said for probe in (lock_problem, rename_problem, folder_problem) if (said := probe(Path(name)))]
    except OSError as error:
        problems.append(f"cannot be written: {error.strerror or error}")
    return Place(str(path), free, file_system(folder), tuple(problems))


def lock_problem(folder: Path) -> str:
    """Say what is wrong with flock: two open files of a process must exclude each other as two processes do."""
    try:
        with (folder / "lock").open("a") as first, (folder / "lock").open("a") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return "" if error.errno in (errno.EAGAIN, errno.EACCES) else f"flock: {error.strerror}"
        return "flock excludes nobody: two processes could write one run"
    except OSError as error:
        return f"flock does not work: {error.strerror or error}"


def rename_problem(folder: Path) -> str:
    """Say what is wrong with replacing a file by another."""
    try:
        (folder / "old").write_text("old")
        with (folder / "new").open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        (folder / "new").replace(folder / "old")
        return "" if (folder / "old").read_text() == "new" else "a renamed file has its old content"
    except OSError as error:
        return f"rename does not work: {error.strerror or error}"


def folder_problem(folder: Path) -> str:
    """Say what is wrong with renaming a folder and flushing its entries."""
    try:
        (folder / "a").mkdir()
        (folder / "a").rename(folder / "b")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return ""
    except OSError as error:
        return f"folders cannot be renamed and flushed: {error.strerror or error}"


def bf16_ratio(device: str = "cpu") -> tuple[float, float]:
    """Return seconds of a 3D convolution in float32 and under bfloat16 autocast, forward."""
    import torch

    convolution = torch.nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(device).eval()
    image = torch.rand(1, CHANNELS, *(EDGE[device],) * 3, device=device)

    def plain() -> None:
        convolution(image)

    def half() -> None:
        with torch.autocast(device, torch.bfloat16):
            convolution(image)

    with torch.inference_mode():
        return seconds((plain, half), device)


def layout_ratio(norm: str, device: str = "cpu") -> float:
    """Return how much faster a training step is in channels_last_3d than contiguous: below 1 it is slower.

    Args:
        norm: ``batch`` or ``instance``.
        device: where.
    """
    import torch

    def step(layout: Any) -> Callable[[], None]:
        kind = torch.nn.BatchNorm3d if norm == "batch" else torch.nn.InstanceNorm3d
        network = torch.nn.Sequential(*(layer for _ in range(2) for layer in (
            torch.nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, bias=False), kind(CHANNELS, affine=True),
            torch.nn.ReLU()))).to(device, memory_format=layout)
        image = torch.rand(1, CHANNELS, *(EDGE[device],) * 3, device=device).to(memory_format=layout)
        return lambda: network(image).sum().backward()

    usual, other = seconds((step(torch.contiguous_format), step(torch.channels_last_3d)), device)
    return usual / other


def seconds(pair: tuple[Callable[[], None], Callable[[], None]], device: str = "cpu") -> tuple[float, float]:
    """Return the shortest times of two things that are done in turn, so that a busy machine is so for both.

    Each is done once to warm up; about `MOST_SECONDS` are spent.
    """
    import torch

    def once(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - started

    spent = once(pair[0]) + once(pair[1])
    found: list[tuple[float, float]] = []
    while len(found) < REPEATS and (not found or spent < MOST_SECONDS):
        found.append((once(pair[0]), once(pair[1])))
        spent += sum(found[-1])
    return min(one for one, _ in found), min(other for _, other in found)
