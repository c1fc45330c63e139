"""What is known to be done, without reading a file again: hashes that were verified, and the state of the files then.

A file's state is its size, times and inode. Every worker appends lines to a file of its own, ``index/<token>.jsonl``;
all read all, each only what is new since it last looked. It is a memory, not the truth: a line that is lost, or that
no longer fits the files, only means that hashes are computed again. The truth are the sidecars.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SEPARATOR = b"\t"
CLOSED = b"closed\n"
FORGOTTEN = 86400  # seconds after which nobody appends to a file any more


def state(path: str | Path) -> list[int] | None:
    """Return size, times and inode of a file; None: there is none. Any change of its content changes one of them."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


class Entry(NamedTuple):
    """What is known of one image.

    ``input`` is the image's state and hash. ``targets``: target -> [state of the label map, state of its sidecar, the
    label map's hash]. ``quarantined``: the state of the record that says why there is none.
    """

    input: list
    targets: dict[str, list]
    quarantined: list[int] | None = None


class Index:
    """The lines of all workers below ``folder``; ``fresh`` ones were written after this object was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "index"
        self.lines: dict[str, tuple[bytes, bool]] = {}
        self.read_to: dict[str, int] = {}
        self.own: int | None = None
        self.name = ""
        self.lock = threading.RLock()
        self.refresh(fresh=False)

    def get(self, name: str, fresh: bool = False) -> Entry | None:
        """Return what is known under a name; with ``fresh`` only what was found since this object was made."""
        line, new = self.lines.get(name, (b"", False))
        if not line or (fresh and not new):
            return None
        try:
            return Entry(*json.loads(line))
        except (ValueError, TypeError):  # the end of a line that a killed worker began
            return None

    def add(self, name: str, entry: Entry) -> None:
        """Remember an entry and tell the other workers, at once. A full disk is no error here: it is a memory."""
        line = json.dumps(entry, separators=(",", ":")).encode()
        with self.lock:
            self.lines[name] = (line, True)
            with contextlib.suppress(OSError):
                if self.own is None:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.name = f"{uuid.uuid4().hex}.jsonl"
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                    self.own = os.open(self.folder / self.name, flags, 0o666)
                os.write(self.own, name.encode() + SEPARATOR + line + b"\n")

    def refresh(self, fresh: bool = True) -> None:
        """Read what the other workers have found since the last time."""
        with self.lock:
            for path in self._files():
                if path.name != self.name:
                    self._read(path, fresh)

    def close(self) -> None:
        """Write no more."""
        with self.lock:
            if self.own is not None:
                with contextlib.suppress(OSError):
                    os.write(self.own, CLOSED)
                os.close(self.own)
                self.own, self.read_to[self.name] = None, -1

    def compact(self) -> None:
        """Make one file of those that are closed. Only one worker may do so at a time."""
        self.close()
        files = [path for path in self._files() if self._is_closed(path)]
        if len(files) < 2:
            return
        self.refresh()
        new = self.folder / f"{uuid.uuid4().hex}.jsonl"
        temporary = new.with_suffix(".part")
        with contextlib.suppress(OSError):
            with temporary.open("wb") as file:
                for name, (line, _) in self.lines.items():
                    file.write(name.encode() + SEPARATOR + line + b"\n")
                file.write(CLOSED)
            temporary.rename(new)
            self.read_to[new.name] = -1
            for path in files:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterable[Path]:
        """Return the files, those last written last: what they say of an image is newer."""
        try:
            with os.scandir(self.folder) as found:
                files = [(entry.stat().st_mtime_ns, entry.path) for entry in found if entry.name.endswith(".jsonl")]
        except OSError:
            return []
        return [Path(path) for _, path in sorted(files)]

    def _read(self, path: Path, fresh: bool) -> None:
        begin = self.read_to.get(path.name, 0)
        if begin < 0:
            return
        try:
            with path.open("rb") as file:
                file.seek(begin)
                content = file.read()
        except OSError:
            return
        whole = content.rfind(b"\n") + 1
        self.read_to[path.name] = begin + whole
        for line in content[:whole].splitlines():
            name, _, entry = line.partition(SEPARATOR)
            if entry:
                self.lines[name.decode(errors="replace")] = (entry, fresh)
            elif line == CLOSED.strip():
                self.read_to[path.name] = -1

    def _is_closed(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - len(CLOSED)))
                return file.read() == CLOSED or time.time() - os.fstat(file.fileno()).st_mtime > FORGOTTEN
        except OSError:
            return False


def maker_key(maker: Mapping[str, Any]) -> str:
    """Return a short name of what makes label maps: weights, configuration."""
    import hashlib

    return hashlib.sha256(json.dumps(dict(maker), sort_keys=True).encode()).hexdigest()[:16]
