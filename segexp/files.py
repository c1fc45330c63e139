"""Whole files or none: write beside the target, flush to disk, rename."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segexp.redaction import redacted


@contextmanager
def written_whole(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends without an error.

    ``suffix`` is for writers that choose a format by the file name (".nii.gz", ".npy"). On an error, or when the
    process dies, ``path`` keeps its old content or stays absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix or ".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; the result follows the user's umask as any other file does.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the file system lets folders be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    r"""Write ``text`` (UTF-8) to ``path``, whole or not at all, without what `redacted` takes for a secret.

    Parts of file names that are not UTF-8 are written as ``\udcXX``.
    """
    with written_whole(path) as temporary:
        temporary.write_text(redacted(text), encoding="utf-8", errors="backslashreplace")


def plain_cell(value: object) -> object:
    """Return a cell of a table for people so that no spreadsheet takes it for a formula: a text is put after a ``'``.

    Numbers, also in texts, stay as they are.
    """
    first = ("=", "+", "-", "@", "\t", "\r", "|", "%")
    if not isinstance(value, str) or len(value) < 2 or not value.lstrip().startswith(first):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return f"'{value}"


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
