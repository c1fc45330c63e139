"""Leases: one owner, whoever dies whenever."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segexp.predictions import leases as module
from segexp.predictions.leases import Leases
from tests.predictions.conftest import process


@contextmanager
def workers(folder: Path, count: int, expiry: float = 1000.0) -> Iterator[list[Leases]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Leases(folder, expiry).alive()) for _ in range(count)]


def links(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "leases").iterdir())


def test_only_one_has_a_subject_and_it_can_be_had_again(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (first, second):
        lease = first.claim("sub-1")
        assert lease is not None and lease.mine()
        assert second.claim("sub-1") is None
        assert second.claim("sub-2") is not None
        lease.release()
        assert not lease.mine()
        again = second.claim("sub-1")
        assert again is not None and again.mine()
        again.release()
        once_more = first.claim("sub-1")  # the same worker as at first: under another token
        assert once_more is not None and once_more.mine()
        once_more.release()
        assert links(tmp_path) == ["sub-2.lease"]
    assert not list((tmp_path / "workers").iterdir())


def test_long_names_and_a_read_only_folder(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (first, second):
        assert first.claim("sub-" + "a" * 300) is not None
        assert second.claim("sub-" + "a" * 300) is None
        assert second.claim("sub-" + "a" * 299 + "b") is not None


class Clock:
    """A steady clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    monkeypatch.setattr(module, "_machine", lambda: "")  # as if on other machines: nobody can ask for a process
    return clock


def test_a_worker_without_signs_of_life_is_replaced_after_the_expiry(tmp_path: Path, clock: Clock) -> None:
    with workers(tmp_path, 3, 60) as (dead, second, third):
        lost = dead.claim("sub-1")
        for clock.now in (0, 30, 59.9):
            assert second.claim("sub-1") is None
        os.utime(dead.files[-1])  # a sign of life
        clock.now = 61
        assert second.claim("sub-1") is None
        clock.now = 122
        taken = second.claim("sub-1")
        assert taken is not None and taken.mine() and not lost.mine()
        assert third.claim("sub-1") is None
        lost.release()  # it wakes up and finishes: that must not free the subject
        assert taken.mine() and third.claim("sub-1") is None
        taken.release()
        assert third.claim("sub-1") is not None


@pytest.mark.parametrize("shift", [-3e6, 3e6])
def test_clocks_of_machines_need_not_agree(tmp_path: Path, clock: Clock, shift: float) -> None:
    """A file server that is a month ahead or behind changes nothing: only whether signs come is looked at."""
    with workers(tmp_path, 2, 60) as (first, second):
        os.utime(first.files[-1], (time.time() + shift,) * 2)
        first.claim("sub-1")
        assert second.claim("sub-1") is None
        clock.now = 59
        assert second.claim("sub-1") is None
        clock.now = 60
        assert second.claim("sub-1") is not None


def test_signs_of_life_come_by_themselves(tmp_path: Path) -> None:
    with workers(tmp_path, 2, 0.2) as (first, second):
        second.dead = lambda link: False if module._gone(link.worker) else Leases.dead(second, link)
        lease = first.claim("sub-1")
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            assert second.claim("sub-1") is None
            time.sleep(0.05)
        assert lease.mine()


def test_a_killed_process_of_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    def hold() -> int:
        with Leases(tmp_path).alive() as leases:
            leases.claim("sub-1")
            time.sleep(60)
        return 0

    holder = process(hold)
    with workers(tmp_path, 1) as (other,):
        while not (tmp_path / "leases" / "sub-1.lease").exists():
            time.sleep(0.01)
        assert other.claim("sub-1") is None
        os.kill(holder.pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while (lease := other.claim("sub-1")) is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert lease.mine()
        holder.join()
        lease.release()
        other.tidy()
        assert links(tmp_path) == [] and [file.stem for file in (tmp_path / "workers").iterdir()] == [other.token]


@pytest.mark.parametrize("rounds", [20, pytest.param(500, marks=pytest.mark.long_faults)])
def test_of_many_who_take_over_at_once_one_has_it(tmp_path: Path, clock: Clock, rounds: int) -> None:
    with workers(tmp_path, 9, 60) as (dead, *others):
        for turn in range(rounds):
            name = f"sub-{turn}"
            dead.claim(name)
            for other in others:
                other.seen[dead.token] = (dead.files[-1].stat().st_mtime_ns, clock.now - 60)
            start, got = threading.Barrier(len(others)), []

            def take(other: Leases, name: str = name, start: threading.Barrier = start, got: list = got) -> None:
                start.wait()
                got.append(other.claim(name))

            threads = [threading.Thread(target=take, args=(other,)) for other in others]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            owners = [lease for lease in got if lease is not None]
            assert len(owners) == 1 and owners[0].mine()


class Turns:
    """Lets one thread at a time make one call to the file system, in an order that is drawn."""

    def __init__(self, choices: list[int]) -> None:
        self.choices, self.waiting, self.condition = list(choices), {}, threading.Condition()
        self.left = 0

    def step(self) -> None:
        me = threading.current_thread()
        with self.condition:
            self.waiting[me] = False
            self._choose()
            self.condition.wait_for(lambda: self.waiting.get(me, True), timeout=20)
            self.waiting.pop(me, None)

    def done(self) -> None:
        with self.condition:
            self.left -= 1
            self._choose()

    def _choose(self) -> None:
        """When all that are left wait, let the drawn one go."""
        blocked = sorted((thread for thread, go in self.waiting.items() if not go), key=lambda one: one.name)
        if blocked and len(blocked) == self.left:
            choice = self.choices.pop(0) if self.choices else 0
            self.waiting[blocked[choice % len(blocked)]] = True
            self.condition.notify_all()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.integers(0, 2), min_size=60, max_size=60), dead_first=st.booleans(),
       suspected=st.booleans(), again=st.lists(st.booleans(), min_size=3, max_size=3))
def test_in_every_order_of_calls_there_is_one_owner(tmp_path_factory: pytest.TempPathFactory, choices: list[int],
                                                    dead_first: bool, suspected: bool, again: list[bool]) -> None:
    """Three workers claim, look, let go and claim again, their calls to the file system in any order.

    ``dead_first``: another one had the subject and died. ``suspected``: the others take the first of them for dead,
    wrongly, unless it is letting go; then it may work on what another one has, but the others never two at once.
    """
    folder, turns = tmp_path_factory.mktemp("leases"), Turns(choices)
    inside: list[Leases] = []
    failures: list[str] = []

    def body(mine: Leases, twice: bool) -> None:
        try:
            for _ in range(1 + twice):
                lease = mine.claim("sub-1")
                if lease is not None and suspected and mine is others[0]:
                    lease.release()
                elif lease is not None:
                    inside.append(mine)
                    if len(inside) > 1:
                        failures.append("two owners")
                    if not lease.mine():
                        failures.append("an owner that does not know it")
                    inside.remove(mine)
                    lease.release()
        except Exception as error:
            failures.append(repr(error))
        finally:
            turns.done()

    with workers(folder, 4) as (gone, *others), pytest.MonkeyPatch.context() as patch:
        if dead_first:
            gone.claim("sub-1")
        dead = [gone, others[0]] if suspected else [gone]
        patch.setattr(Leases, "dead", lambda self, link: link.token not in link.path.name and any(
            link.token == file.stem for leases in dead for file in leases.files))
        threads = [threading.Thread(target=body, args=(mine, twice), name=str(number))
                   for number, (mine, twice) in enumerate(zip(others, again, strict=True))]
        for name in ("_read", "_remove"):
            patch.setattr(module, name, stepped(turns, getattr(module, name), threads))
        patch.setattr(Leases, "_link", stepped(turns, Leases._link, threads))
        turns.left = len(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        turns.left = 0
        patch.undo()
        assert [name for name in links(folder) if name.count(".") == 1] == []  # free again


def stepped(turns: Turns, call, threads):
    def stepping(*arguments):
        if threading.current_thread() in threads:
            turns.step()
        return call(*arguments)
    return stepping
