"""The cache of decoded volumes: named by content, checked when opened, safe for many processes at once.

Layout below the cache folder::

    volumes/<2 digits>/<key>/{volume.npy, samples.npy (label maps), meta.json}
    pairs/<key>.json       results that need several volumes (agreement, differing voxels, regions)
    sources.json           (path, size, times, inode) -> SHA-256, so that unchanged files are not read again
    locks/<2 digits>       one process at a time decodes what falls under these digits

A key is the SHA-256 of the file's bytes and of everything else the entry depends on, so a changed source is another
entry and nothing is ever stale. Entries are built in a folder of their own and renamed: half an entry is never seen.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segexp.console import say
from segexp.data.decoding import decode_image, decode_labels
from segexp.data.labelmap import LabelMap
from segexp.data.store import StoredImage, StoredLabels, StoredVolume
from segexp.errors import DataError, SegexpError
from segexp.files import write_json

FORMAT = 3  # raise it when the meaning of an entry changes
SETTLED = 20_000_000  # nanoseconds after which a file system gives another change another time
ABANDONED = 3600  # seconds after which a folder that is still being built has no builder


class CacheError(SegexpError):
    """The cache folder cannot be written."""


class Cache:
    """Decoded volumes below ``folder``; made on first use. Threads of one process may share an instance.

    With ``spacing``, mm along the canonical axes, volumes are kept on a grid of that spacing, see `resampling`.
    ``unplaced`` says what becomes of files with neither sform nor qform, see `nifti.read`.
    """

    def __init__(self, folder: str | Path, spacing: Sequence[float] | None = None, unplaced: str = "error") -> None:
        self.folder, self.unplaced = Path(folder), unplaced
        self.spacing = None if spacing is None else tuple(float(size) for size in spacing)
        self.hashes = ContentHashes(self.folder / "sources.json")
        self._failed: dict[str, str] = {}

    def image(self, path: Path) -> StoredImage:
        """Return the decoded image of ``path``, decoding it when it is not there yet.

        Raises DataError as `nifti.read` does, CacheError when the cache cannot be written.
        """
        decode = partial(decode_image, spacing=self.spacing, unplaced=self.unplaced)
        return self._entry(path, ["image"], decode, StoredImage)

    def labels(self, path: Path, label_map: LabelMap, on_unknown: str = "error") -> StoredLabels:
        """Return the label map of ``path`` as class indices, decoding it when it is not there yet.

        Raises DataError as `nifti.read_labels` and `LabelMap.encode` do, CacheError as above.
        """
        depends = ["labels", label_map.target, label_map.values, label_map.names, on_unknown]
        decode = partial(decode_labels, label_map=label_map, on_unknown=on_unknown, spacing=self.spacing,
                         unplaced=self.unplaced)
        return self._entry(path, depends, decode, StoredLabels)

    def pair(self, name: str, first: StoredVolume, second: StoredVolume, compute: Callable[[], float]) -> float:
        """Return a number that depends on two volumes, computed once."""
        return float(self.remember(f"{name} {first.key} {second.key}", compute, name))

    def remember(self, depends: str, compute: Callable[[], Any], name: str = "") -> Any:
        """Return what ``compute`` makes of everything that ``depends`` names; plain JSON, computed once."""
        key = hashlib.sha256(f"{FORMAT} {depends}".encode()).hexdigest()[:32]
        path = self.folder / "pairs" / key[:2] / f"{key}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["crc32"] == _crc32_of(known["value"]):
                return known["value"]
            say(f"cache: {path} is damaged; it is computed again")
        value = json.loads(json.dumps(compute()))
        with _writing(self.folder):
            write_json(path, {"name": name or depends, "value": value, "crc32": _crc32_of(value)})
        return value

    def _entry(self, path: Path, depends: list[Any], decode: Callable[..., dict], kind: type) -> Any:
        content, digest = None, self.hashes.get(path)
        if digest is None:
            content, digest = self.hashes.read(path)
        grid = [] if self.spacing is None else ["spacing", *self.spacing]
        grid += [] if self.unplaced == "error" else ["unplaced", self.unplaced]
        key = hashlib.sha256(json.dumps([FORMAT, digest, *depends, *grid]).encode()).hexdigest()[:32]
        if key in self._failed:
            raise DataError(f"{path}: {self._failed[key]}")
        folder = self.folder / "volumes" / key[:2] / key
        stored = _open(folder, key, kind)
        if stored is not None:
            return stored
        if content is None:
            content, now = self.hashes.read(path)
            if now != digest:
                return self._entry(path, depends, decode, kind)
        with _writing(self.folder), self._lock(key):
            stored = _open(folder, key, kind)
            if stored is None:
                self._build(folder, key, path, content, decode, kind)
                stored = _open(folder, key, kind)
        if stored is None:
            raise CacheError(f"{folder}: the entry just written cannot be read back; is the disk sound?")
        return stored

    def _build(
        self, folder: Path, key: str, path: Path, content: bytes, decode: Callable[..., dict], kind: type
    ) -> None:
        """Decode into a folder beside the entry and rename it; what lies there already is damaged and goes."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".*"):  # by a process that was killed
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
        try:
            try:
                meta = decode(path, content, temporary)
            except DataError as error:
                self._failed[key] = str(error).removeprefix(f"{path}: ")
                raise
            files = {}
            for file in sorted(temporary.iterdir()):
                state = _flush(file)
                files[file.name] = {**_times(state), "crc32": _crc32(file)}
            _write_meta(temporary, {"format": FORMAT, "source": str(path), "files": files, **meta})
            temporary.chmod(0o755)
            if folder.exists() and _open(folder, key, kind) is None:
                say(f"cache: the entry of {path} is damaged ({folder}); it is decoded again")
                # Moved away first: a rename onto a folder that holds files is refused.
                damaged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".damaged-"))
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(damaged / "entry")
                shutil.rmtree(damaged, ignore_errors=True)
            try:
                temporary.rename(folder)
            except OSError as error:
                # Without locks another process may have been faster; its entry says the same.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Let one process or thread at a time decode entries with the same first digits."""
        path = self.folder / "locks" / key[:2]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            # Some shared file systems have no locks. Then two processes may decode the same file; the rename keeps
            # the result whole all the same.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class ContentHashes:
    """SHA-256 of files, remembered as long as path, size, times and inode are the same.

    The change time is part of it because the modification time can be set back, as unpacking and copying do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.known = self._load()
        self.fresh: dict[str, list] = {}

    def get(self, path: Path) -> str | None:
        """Return the hash if it is known and the file has not changed since; DataError when there is no file."""
        entry = self.known.get(str(path))
        return entry[-1] if entry and entry[:-1] == _state(path) else None

    def read(self, path: Path) -> tuple[bytes, str]:
        """Return the bytes of ``path`` and their hash, and remember the hash; DataError if they change meanwhile."""
        before = _state(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        if _state(path) != before:
            raise DataError(f"{path}: changed while it was read; is something still writing it?")
        digest = hashlib.sha256(content).hexdigest()
        if time.time_ns() - before[2] < SETTLED:
            return content, digest  # another change right now could leave the same times
        with self.lock:
            self.known[str(path)] = self.fresh[str(path)] = [*before, digest]
        return content, digest

    def save(self) -> None:
        """Write what is new; what another process wrote meanwhile is kept."""
        with self.lock:
            if self.fresh:
                with _writing(self.path.parent):
                    write_json(self.path, {**self._load(), **self.fresh})
                self.fresh = {}

    def _load(self) -> dict[str, list]:
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _open(folder: Path, key: str, kind: type) -> Any:
    """Return the entry if it is whole, else None.

    Sizes and the checksum of what is known about it are always compared. Checksums of the voxels are too when a file
    was touched since it was written; otherwise every start would read the whole cache.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta.pop("crc32") != _crc32_of(meta):
            return None
        touched = False
        for name, expected in meta["files"].items():
            times = _times((folder / name).stat())
            if times["size"] != expected["size"]:
                return None
            if any(times[key] != expected[key] for key in times):
                if _crc32(folder / name) != expected["crc32"]:
                    return None
                expected.update(times)
                touched = True
        if touched:  # a copied cache is sound: the next start need not read all of it again
            with contextlib.suppress(OSError):
                _write_meta(folder, meta)
        fields = {name: _tuple(meta[name]) for name in kind.__dataclass_fields__ if name in meta}
        return kind(folder=folder, key=key, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write what is known about an entry, with its own checksum."""
    plain = json.loads(json.dumps(meta))
    write_json(folder / "meta.json", {**plain, "crc32": _crc32_of(plain)})


def _times(state: os.stat_result) -> dict[str, int]:
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}


def _crc32_of(value: Any) -> int:
    """Return the checksum of plain JSON."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _tuple(value: Any) -> Any:
    return tuple(_tuple(part) for part in value) if isinstance(value, list) else value


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _flush(path: Path) -> os.stat_result:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a failed write into a CacheError that names the key to set."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{folder}: the cache cannot be written: {error.strerror or error}; "
            f"free some space or set data.cache to another folder"
        ) from error
