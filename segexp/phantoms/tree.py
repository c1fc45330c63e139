"""Trees of synthetic cases: claimed by their settings, every case written whole, the same bytes always."""

import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from segexp.console import track
from segexp.errors import ConfigError
from segexp.files import write_json

Job = TypeVar("Job")


def claim(root: Path, phantom: str, version: int, settings: Mapping[str, Any]) -> None:
    """Write phantom.json, which says that the tree below ``root`` is synthetic, or compare with the one that is there.

    ``version`` is raised when the same settings would write other bytes.

    Raises:
        ConfigError: the tree that is there was made with other settings.
    """
    file = root / "phantom.json"
    content = json.loads(json.dumps({"phantom": phantom, "format": version, **settings}))
    if not file.exists():
        write_json(file, content)
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    other = [key for key in content if there.get(key) != content[key]]
    if other:
        differences = ", ".join(f"{key}: {there.get(key)} there, {content[key]} asked for" for key in other)
        raise ConfigError(f"{root} holds a phantom with other settings ({differences}); choose another output= or "
                          "remove the folder")


def place(folder: Path, files: Mapping[str, bytes], afterwards: Callable[[Path], None] = lambda folder: None) -> None:
    """Write the files of a folder beside its place, do ``afterwards`` with it, and move it there.

    What a killed writer leaves behind has a hidden name and is no part of the tree.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing") as temporary:
        beside = Path(temporary) / folder.name
        for path, content in files.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_bytes(content)
        afterwards(beside)
        if folder.exists():  # left by a writer that was killed before its mark
            shutil.rmtree(folder)
        beside.rename(folder)


def write_all(write: Callable[[Job], None], jobs: Iterable[Job], processes: int, title: str) -> None:
    """Call ``write`` with every job, in up to ``processes`` processes, and show how far it is."""
    jobs = list(jobs)
    if min(processes, len(jobs)) < 2:
        for job in track(jobs, title, len(jobs)):
            write(job)
        return
    with ProcessPoolExecutor(min(processes, len(jobs))) as pool:
        for _ in track(pool.map(write, jobs), title, len(jobs)):
            pass


def compressed(content: bytes) -> bytes:
    """Return the gzipped bytes, without a time stamp."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0, compresslevel=3) as file:
        file.write(content)
    return buffer.getvalue()
