"""Reading, work and writing at the same time: threads that read ahead and write behind, with bounded queues between.

Decompressing, compressing and disks do their work outside Python's lock, so that threads overlap with the network,
which keeps the caller's thread. A full queue blocks who fills it: at most ``readers + ahead`` tasks are read and not
worked on yet, at most ``ahead + writers`` worked on and not written.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
NOTHING, END = object(), object()


@dataclass
class Pipeline(Generic[T]):
    """Three stages that a task goes through.

    Args:
        read: task -> what was read, or `NOTHING`: the task is over.
        work: task, what was read -> result; in the thread that iterates.
        write: task, result.
        failed: task, stage, error of its own. What it raises, and a ``fatal`` error anywhere, ends everything.
        fatal: errors that are no task's own.
        readers: threads that read; 0: no threads at all, one stage after the other.
        writers: threads that write.
        ahead: length of each queue.
        ended: called when it ends, however it does: ``tasks`` must not wait for anything any more.

    """

    read: Callable[[T], Any]
    work: Callable[[T, Any], Any]
    write: Callable[[T, Any], None]
    failed: Callable[[T, str, Exception], None]
    fatal: tuple[type[BaseException], ...] = ()
    readers: int = 1
    writers: int = 1
    ahead: int = 2
    ended: Callable[[], None] = lambda: None

    def __call__(self, tasks: Iterator[T]) -> Iterator[T]:
        """Yield every task when it has been worked on; when the last is yielded and taken, all are written.

        ``tasks`` is advanced by one thread at a time. Closing the iterator stops: what is being written is written.
        """
        return self._threads(tasks) if self.readers else self._plain(tasks)

    def _plain(self, tasks: Iterator[T]) -> Iterator[T]:
        for task in tasks:
            value = self._try("read", task, self.read, task)
            if value is not NOTHING:
                value = self._try("network", task, self.work, task, value)
            if value is not NOTHING:
                self._try("write", task, self.write, task, value)
            yield task

    def _try(self, stage: str, task: T, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a stage returns; an error of the task's own is reported, and there is nothing to go on with."""
        try:
            return call(*arguments)
        except self.fatal:
            raise
        except Exception as error:
            self.failed(task, stage, error)
            return NOTHING

    def _threads(self, tasks: Iterator[T]) -> Iterator[T]:
        flow = _Flow(self, tasks)
        try:
            yield from flow.work()
        finally:
            flow.stop.set()
            self.ended()
            for thread in flow.threads:
                thread.join()
        if flow.error is not None:
            raise flow.error


class _Flow(Generic[T]):
    """One run of a pipeline: its threads, its queues, the error that ends it."""

    def __init__(self, pipeline: Pipeline[T], tasks: Iterator[T]) -> None:
        self.pipeline, self.tasks, self.next = pipeline, tasks, threading.Lock()
        self.read: queue.Queue = queue.Queue(pipeline.ahead)
        self.worked: queue.Queue = queue.Queue(pipeline.ahead)
        self.stop, self.error = threading.Event(), None
        loops = [self._reader] * pipeline.readers + [self._writer] * max(1, pipeline.writers)
        self.threads = [threading.Thread(target=self._guarded, args=(loop,), daemon=True) for loop in loops]
        for thread in self.threads:
            thread.start()

    def work(self) -> Iterator[T]:
        """Yield tasks in the order in which they were read."""
        readers, writers = self.pipeline.readers, max(1, self.pipeline.writers)
        while readers and not self.stop.is_set():
            with contextlib.suppress(queue.Empty):
                task, value = self.read.get(timeout=0.5)
                if task is END:
                    readers -= 1
                    continue
                if value is not NOTHING:
                    value = self.pipeline._try("network", task, self.pipeline.work, task, value)
                if value is not NOTHING:
                    self._put(self.worked, (task, value))
                del value  # large: not kept while the next one is waited for
                yield task
        for _ in range(writers):
            self._put(self.worked, (END, None))
        for thread in self.threads:
            while thread.is_alive():  # so that a signal is answered in between
                thread.join(0.5)
                if self.stop.is_set():
                    return

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # handed to the caller's thread
            self.error = self.error or error
            self.stop.set()

    def _reader(self) -> None:
        while not self.stop.is_set():
            with self.next:
                task = next(self.tasks, END) if not self.stop.is_set() else END
            if task is END:
                break
            value = self.pipeline._try("read", task, self.pipeline.read, task)
            self._put(self.read, (task, value))
            del value
        self._put(self.read, (END, None))

    def _writer(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Empty):
                task, value = self.worked.get(timeout=0.5)
                if task is END:
                    return
                self.pipeline._try("write", task, self.pipeline.write, task, value)
                del value

    def _put(self, into: queue.Queue, item: Any) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                into.put(item, timeout=0.5)
                return
