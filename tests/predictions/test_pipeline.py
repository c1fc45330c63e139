"""Reading, work and writing beside each other: bounded, whole, errors where they belong."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from segexp.predictions.pipeline import NOTHING, Pipeline


class Fatal(Exception):
    """No task's own."""


def run(tasks: Any, read: Callable = lambda task: task, work: Callable = lambda task, value: value,
        write: Callable = lambda task, value: None, **more: Any) -> tuple[list, list]:
    problems: list = []
    flow = Pipeline(read, work, write, lambda task, stage, error: problems.append((task, stage, str(error))), (Fatal,),
                    **more)
    before = threading.active_count()
    try:
        return list(flow(iter(tasks))), sorted(problems)
    finally:
        assert threading.active_count() == before


@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("writers", [1, 2])
def test_every_task_goes_through_and_errors_are_its_own(readers: int, writers: int) -> None:
    written: list = []

    def fail(stage: int) -> Callable:
        def call(task: int, value: Any = 0) -> int:
            if task % 10 == stage:
                raise ValueError(f"{stage}")
            if stage == 3:
                written.append(task)
            return task
        return call

    def read(task: int) -> Any:
        return NOTHING if task % 10 == 9 else fail(1)(task)

    done, problems = run(range(50), read, fail(2), fail(3), readers=readers, writers=writers)
    assert sorted(done) == list(range(50))
    assert sorted(written) == [task for task in range(50) if task % 10 not in (1, 2, 3, 9)]
    assert problems == sorted((task, {1: "read", 2: "network", 3: "write"}[task % 10], str(task % 10))
                              for task in range(50) if task % 10 in (1, 2, 3))


def test_queues_are_bounded() -> None:
    """A slow disk holds the reader back: memory does not grow with what is left to do."""
    lock, alive, most = threading.Lock(), [0], [0]

    def read(task: int) -> int:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return task

    def write(task: int, value: int) -> None:
        time.sleep(0.005)
        with lock:
            alive[0] -= 1

    run(range(60), read, write=write, readers=2, writers=1, ahead=2)
    assert alive == [0]
    assert most[0] <= 2 + 2 + 1 + 2 + 1  # readers, queue, network, queue, writer


def test_stages_overlap() -> None:
    def slow(task: int, value: int = 0) -> int:
        time.sleep(0.05)
        return task

    started = time.monotonic()
    run(range(8), slow, slow, slow, readers=0)
    one_by_one, started = time.monotonic() - started, time.monotonic()
    run(range(8), slow, slow, slow)
    assert time.monotonic() - started < 0.75 * one_by_one  # 10 of 24 steps, on a machine that does nothing else


@pytest.mark.parametrize("stage", ["tasks", "read", "work", "write", "failed"])
@pytest.mark.parametrize("readers", [0, 2])
def test_a_fatal_error_ends_everything(stage: str, readers: int) -> None:
    def tasks() -> Any:
        for number in range(1000):
            if stage == "tasks" and number == 7:
                raise Fatal(stage)
            yield number

    def at(here: str) -> Callable:
        def call(task: int, value: Any = 0, error: Any = None) -> int:
            if task == 7 and here == stage:
                raise Fatal(stage)
            if task == 7 and stage == "failed" and here == "work":
                raise ValueError("its own")
            return task
        return call

    flow = Pipeline(at("read"), at("work"), at("write"), at("failed"), (Fatal,), readers)
    before, seen = threading.active_count(), 0
    with pytest.raises(Fatal, match=stage):
        for _ in flow(tasks()):
            seen += 1
    assert seen < 100 and threading.active_count() == before


def test_tasks_that_wait_are_told_of_the_end() -> None:
    over = threading.Event()

    def tasks() -> Any:
        yield 1
        assert over.wait(20), "nobody said so"

    def broken(task: int, value: Any) -> None:
        raise Fatal("full")

    flow = Pipeline(lambda task: task, lambda task, value: value, broken, lambda *_: None, (Fatal,), ended=over.set)
    with pytest.raises(Fatal):
        list(flow(tasks()))


def test_whoever_stops_looking_stops_the_threads() -> None:
    written: list = []
    flow = Pipeline(lambda task: task, lambda task, value: value, lambda task, value: written.append(task),
                    lambda *_: None)
    before, tasks = threading.active_count(), flow(iter(range(10**9)))
    for task in tasks:
        if task == 20:
            break
    tasks.close()
    assert threading.active_count() == before and len(written) <= 21
