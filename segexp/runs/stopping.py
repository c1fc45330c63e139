"""Being asked to stop: SIGTERM and SIGUSR2 from a scheduler, Ctrl-C from a person.

Lightning 2.6 answers SIGTERM without a checkpoint and with exit code 0; a preempted job would look like a finished
one. Here the request waits for the end of a step, where the run is saved, and the process says how it ended.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from segexp.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class StopRequest:
    """What the process has been asked so far.

    Attributes:
        signal: the signal that came, None before.
        waits: True while training or testing look at it themselves at the next step's end; otherwise the request ends
            the work at once, which then has nothing to save.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.waits = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer the signals in this block; what answered them before does so again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread alone
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def listen(self) -> None:
        """Take the signals, also back from Lightning, which puts its own answer to SIGTERM in front."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.hear)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; a second Ctrl-C ends at once."""
        impatient = number == signal.SIGINT and self.signal == signal.SIGINT
        self.signal = self.signal or signal.Signals(number)
        if impatient or not self.waits:
            raise self.exception()

    def exception(self) -> BaseException:
        """Return what ends the run."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt()
        return Preempted(f"stopped by {self.signal.name if self.signal else 'a signal'}")


class Listening(pl.Callback):
    """Keep the request waiting while Lightning trains and tests, and end a test at the next case."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_train_start(self, *args: Any) -> None:
        """Lightning has put its answer to SIGTERM in front of ours by now."""
        self.request.listen()

    def on_test_start(self, *args: Any) -> None:
        """As in training."""
        self.request.listen()

    def on_test_batch_end(self, *args: Any) -> None:
        """Stop between two cases; the weights are saved already."""
        if self.request.signal is not None:
            raise self.request.exception()
