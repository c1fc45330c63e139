"""Leases: which of many workers, on one machine or several, works on a subject; safe when workers die at any time.

A worker has one file, ``workers/<token>.json``, that says who it is and whose modification time it sets again and again
as its sign of life. A lease is a hard link to that file: making it is one exclusive, atomic call that works on network
file systems, and its content says whose it is. The leases of a subject form a chain:

    sub-01.lease                    the first worker that claimed it, A
    sub-01.1.<token of A>.lease     who took over from A when A was dead, B
    sub-01.2.<token of B>.lease     who took over from B ...

The end of the chain has the subject. Two that take over from A at once make the same link, so one of them fails. To let
go, the owner takes over from itself (now nobody else can) and removes the first link, then the others. A link
that is not reached from the first one means nothing.

A worker that is taken for dead wrongly, because it stood still for so long, asks `Lease.mine` before it writes. If it
stood still between these last calls, two may work on the same subject once; they write the same bytes.

No clock is compared with another machine's: a worker is dead when this machine's own steady clock has seen it give no
sign of life for ``expiry`` seconds, or, for one of this machine, when its process is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LONGEST = 100  # characters of a subject in a lease's name; longer ones are hashed
FORGOTTEN = 86400  # seconds after which what nobody reaches any more is removed


class Link(NamedTuple):
    """One link of a chain as read: its path, its place in the chain, and the worker that made it."""

    path: Path
    place: int
    token: str
    signed_ns: int  # the sign of life, by whatever clock the file system has: only ever compared with itself
    worker: dict


class Lease:
    """The right to work on one subject."""

    def __init__(self, leases: Leases, name: str, link: Link) -> None:
        self.leases, self.name, self.link = leases, name, link

    def mine(self) -> bool:
        """Say whether it still is: a worker that did not move for long may have been taken for dead."""
        end = self.leases.end(self.name)
        return end is not None and end.path == self.link.path and end.token == self.link.token

    def release(self) -> None:
        """Let go, if it is still mine; never raises."""
        self.leases.held.discard(self)
        with contextlib.suppress(OSError):
            self.leases.release(self)


class Leases:
    """The leases below ``folder``, claimed as one worker.

    Args:
        folder: on a file system that all workers share.
        expiry: seconds without a sign of life after which a worker is dead.

    """

    def __init__(self, folder: Path, expiry: float = 120.0) -> None:
        self.folder, self.workers, self.expiry = folder / "leases", folder / "workers", expiry
        self.token, self.files = "", list[Path]()
        self.claimed: set[str] = set()
        self.held: set[Lease] = set()
        self.seen: dict[str, tuple[int, float]] = {}  # token -> last sign of life, when it was first seen here
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def alive(self) -> Iterator[Leases]:
        """Be a worker in this block: sign on, give signs of life from a thread, sign off."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workers.mkdir(parents=True, exist_ok=True)
        self._sign_on()
        self.tidy()
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop,), daemon=True, name="segexp-signs-of-life")
        beat.start()
        try:
            yield self
        finally:
            for lease in list(self.held):  # the work was broken off
                lease.release()
            stop.set()
            beat.join()
            for file in self.files:
                _remove(file)
            self.tidy()

    def claim(self, name: str) -> Lease | None:
        """Return the lease of a subject; None: another worker that lives has it."""
        with self.lock:
            if name in self.claimed:  # links of a former claim must never be taken for this one's
                self._sign_on()
            link = Link(self._path(name, 0, ""), 0, self.token, 0, {})
            for _ in range(8):
                if self._link(link.path):
                    self.claimed.add(name)
                    lease = Lease(self, name, link)
                    if link.place == 0 or lease.mine():
                        self.held.add(lease)
                        return lease
                    if link.path in [one.path for one in self.chain(name)]:
                        return None  # taken for dead already; the link carries the one who took over
                    _remove(link.path)  # the chain was let go meanwhile
                    link = Link(self._path(name, 0, ""), 0, self.token, 0, {})
                    continue
                end = self.end(name)
                if end is None:
                    link = Link(self._path(name, 0, ""), 0, self.token, 0, {})
                elif not self.dead(end):
                    return None
                else:
                    link = Link(self._path(name, end.place + 1, end.token), end.place + 1, self.token, 0, {})
            return None

    def release(self, lease: Lease) -> None:
        """Take over from oneself, so that nobody else can, and remove the chain from its beginning."""
        links = self.chain(lease.name)
        if not links or links[-1].path != lease.link.path or links[-1].token != lease.link.token:
            return
        last = self._path(lease.name, lease.link.place + 1, lease.link.token)
        if not self._link(last):
            return
        for link in links:
            _remove(link.path)
        _remove(last)

    def end(self, name: str) -> Link | None:
        """Return the last link of a subject's chain; None: nobody has it."""
        chain = self.chain(name)
        return chain[-1] if chain else None

    def chain(self, name: str) -> list[Link]:
        """Return the links of a subject, first to last."""
        links: list[Link] = []
        while True:
            place = len(links)
            link = _read(self._path(name, place, links[-1].token if links else ""), place)
            if link is None:
                return links
            links.append(link)

    def dead(self, link: Link) -> bool:
        """Say whether the worker of a link is dead, as far as this process has seen."""
        if _gone(link.worker):
            return True
        now = time.monotonic()
        signed_ns, since = self.seen.get(link.token, (None, now))
        if signed_ns != link.signed_ns:
            self.seen[link.token] = (link.signed_ns, now)
            return False
        return now - since >= self.expiry

    def tidy(self) -> None:
        """Remove the files of workers that are dead for certain, and links that no chain reaches."""
        for file in self.workers.glob("*.json"):
            found = _read(file, 0)
            if found is None or found.token == self.token:
                continue
            if _gone(found.worker) or time.time() - found.signed_ns / 1e9 > FORGOTTEN:
                _remove(file)
        for file in self.folder.glob("*.lease"):
            with contextlib.suppress(OSError):
                beyond = file.name.count(".") > 1
                if beyond and time.time() - file.stat().st_mtime > FORGOTTEN:
                    _remove(file)

    def _sign_on(self) -> None:
        """Get a token and a file that nobody had before."""
        token = uuid.uuid4().hex
        file = self.workers / f"{token}.json"
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps({"token": token, **_myself()}), encoding="utf-8")
        temporary.rename(file)
        self.token, self.files, self.claimed = token, [*self.files, file], set()

    def _beat(self, stop: threading.Event) -> None:
        """Set the time of the worker's file, which is that of all its leases, by the file system's clock."""
        while not stop.wait(self.expiry / 4):
            for file in self.files:
                with contextlib.suppress(OSError):
                    os.utime(file)

    def _path(self, name: str, place: int, after: str) -> Path:
        if len(name) > LONGEST:
            name = name[:40] + "-" + hashlib.sha256(name.encode()).hexdigest()[:32]
        return self.folder / (f"{name}.{place}.{after}.lease" if place else f"{name}.lease")

    def _link(self, path: Path) -> bool:
        """Make a link to the worker's file; False: there is one already."""
        try:
            os.link(self.files[-1], path)
        except FileExistsError:
            # The answer of a network file system may have got lost, and the call was made twice.
            found = _read(path, 0)
            return found is not None and found.token == self.token
        return True


def _read(path: Path, place: int) -> Link | None:
    """Return a link as it is now; None: there is none."""
    try:
        with path.open("rb") as file:  # opening asks the server, however long attributes are cached
            worker = json.loads(file.read())
            return Link(path, place, worker["token"], os.fstat(file.fileno()).st_mtime_ns, worker)
    except OSError:
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _myself() -> dict[str, object]:
    """Return what tells a process from all others, here and on other machines."""
    return {"machine": _machine(), "host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}


def _machine() -> str:
    """Return what two processes share that can see each other's process ids: one boot, one set of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process was started, in the system's ticks; empty: there is no such process, or none to ask."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # dead, though its parent has not asked yet
    except (OSError, IndexError):
        return ""


def _gone(worker: dict) -> bool:
    """Say whether a worker was a process of this machine that is no more."""
    if not worker.get("machine") or worker["machine"] != _machine():
        return False
    return _started(int(worker["pid"])) != worker["started"]
