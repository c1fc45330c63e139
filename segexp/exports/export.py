"""Export a finished run: write beside the target, read back and compare, then rename the whole folder."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from segexp.errors import ConfigError, SegexpError
from segexp.files import sha256, write_json
from segexp.runs.directory import Run

FORMATS = {"safetensors": "safetensors", "onnx": "onnx", "monai_bundle": "monai_bundle"}
RECORD = "export.json"
SCHEMA = 1


def export(run: Run, form: str, output: str | Path | None = None, size: Sequence[int] | int | None = None,
           allow: Sequence[str] = ()) -> tuple[Path, dict[str, Any], str]:
    """Export a run and return the folder, its record, and what happened: ``written``, ``there`` or ``replaced: why``.

    Args:
        run: a finished run.
        form: one of `FORMATS`.
        output: folder of the export; None: ``<run>/exports/<format>``.
        size: sizes that an ONNX graph is fixed to; None: free where the network permits.
        allow: module prefixes of the user that a ``_target_`` may name.

    Raises:
        ConfigError: no such format, an extra that is not installed, a folder with something else in it.
        SegexpError: the run is not done; the message has its command.
        ParityError: what was written does not compute what the run's network does; nothing is left behind.
    """
    from segexp.config.names import hint

    if form not in FORMATS:
        raise ConfigError(f"format={form}: there is no such format{hint(form, FORMATS)}")
    if size is not None and form != "onnx":
        raise ConfigError(f"size={size} is for format=onnx: {form} takes every size that the network takes")
    refuse_unfinished(run)
    writer = format_module(form)
    folder = Path(output) if output else run.path / "exports" / form
    made_from = {"schema": SCHEMA, "format": form, "run": run.id, "checkpoint_sha256": sha256(run.checkpoint),
                 "size": size if size is None or isinstance(size, int) else list(size)}
    known = record_of(folder)
    problem = problem_of(folder, known, made_from)
    if known is not None and not problem:
        return folder, known, "there"
    if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"output={folder}: holds something that is no export ({RECORD} is not there); name another")
    if hasattr(writer, "require"):
        writer.require()
    from segexp.exports.subject import subject_of

    subject = subject_of(run, size, allow)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        writer.write(subject, temporary)
        record = {**made_from, "files": hashes(temporary), "parity": writer.check(subject, temporary)}
        write_json(temporary / RECORD, record)
        temporary.chmod(0o777 & ~umask())  # mkdtemp makes private folders
        put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, record, f"replaced: {problem}" if known is not None else "written"


def format_module(form: str) -> ModuleType:
    """Return the module that writes and checks a format."""
    return import_module(f"segexp.exports.{FORMATS[form]}")


def refuse_unfinished(run: Run) -> None:
    """Raise SegexpError with the command that finishes the run, unless it is done."""
    if run.status != "done":
        raise SegexpError(f"run {run.id} is {run.status}, not done; finish it first: its command was\n"
                          f"  {run.info.get('command') or 'segexp train ...'}")


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return the record of an export; None where there is none, an empty one where it cannot be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def problem_of(folder: Path, known: Mapping[str, Any] | None, made_from: Mapping[str, Any]) -> str:
    """Say why an export must be made again; "" where every file is what was written from just this run."""
    if known is None:
        return ""
    if not known.get("files"):
        return f"{RECORD} cannot be read"
    for key, value in made_from.items():
        if known.get(key) != value:
            return f"it was made with {key}={known.get(key)}, not {value}"
    found = hashes(folder)
    for name, digest in known["files"].items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} is damaged"
    return ""


def hashes(folder: Path) -> dict[str, str]:
    """Return file -> SHA-256 of everything in a folder but the record; Python's own caches do not count."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files if path != folder / RECORD}


def put(temporary: Path, folder: Path) -> None:
    """Put a finished folder in its place; an export that is there already steps aside until it is."""
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    aside = temporary.with_name(f"{temporary.name}.old")
    there = folder.exists()
    if there:
        folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        if there:
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
