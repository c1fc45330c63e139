"""Images that could not be labelled: a record each, with its reason, until the image changes or someone says retry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from segexp.errors import SegexpError
from segexp.files import write_json, written_whole
from segexp.predictions.images import Image

COLUMNS = ("image", "name", "stage", "type", "reason", "input")


class Reason(NamedTuple):
    """Why: stage (name, read, network, write), type (unreadable, data, memory, killed, error) and a sentence."""

    stage: str
    type: str
    reason: str


def reason_of(stage: str, error: BaseException) -> Reason:
    """Return what to write about an error of an image's own; the same error gives the same words everywhere."""
    if is_memory(error):
        return Reason(stage, "memory", "not enough memory for this image; try another device, or inference= with "
                                       "smaller parts, with retry=quarantined")
    if isinstance(error, SegexpError):
        unreadable = stage == "read" and isinstance(error.__cause__, OSError)
        kind = "unreadable" if unreadable else getattr(error, "kind", "data")
        return Reason(getattr(error, "stage", stage), kind, str(error))
    if isinstance(error, OSError):
        return Reason(stage, "unreadable", f"{error.filename or 'the file'}: {error.strerror or error}")
    first = str(error).strip().split("\n", 1)[0]
    return Reason(stage, "error", f"{type(error).__name__}: {first}{_place(error)}")


def is_memory(error: BaseException) -> bool:
    """Say whether an error means that there was not enough memory, of the machine or of a device."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _place(error: BaseException) -> str:
    """Return where an unexpected error came from, without the folders of this machine."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""


def record_file(folder: Path, image: Image) -> Path:
    """Return where the record of an image lies, in a folder per subject."""
    return folder / "quarantine" / image.subject / f"{image.name}.json"


def put(folder: Path, image: Image, source: str, reason: Reason, digest: str | None,
        maker: Mapping[str, str]) -> Path:
    """Write the record of an image, whole; return its file. ``digest``: of the image; None: it could not be read."""
    file = record_file(folder, image)
    write_json(file, {"image": source, "name": image.name, **reason._asdict(), "input": digest, **maker})
    return file


def take_out(folder: Path, image: Image) -> None:
    """Remove the record of an image that is labelled now."""
    file = record_file(folder, image)
    try:
        file.unlink()
        file.parent.rmdir()
    except OSError:
        pass  # there was none, or others of its subject are left


def find(folder: Path, image: Image) -> dict[str, Any] | None:
    """Return the record of an image; None: there is none that can be read."""
    try:
        found = json.loads(record_file(folder, image).read_text(encoding="utf-8"))
        return found if set(COLUMNS) <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None


def write_table(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write ``quarantine.csv``, sorted by name; remove it when nothing is in quarantine."""
    import csv

    rows = sorted(records, key=lambda record: record["name"])
    if not rows:
        (folder / "quarantine.csv").unlink(missing_ok=True)
        return
    with (written_whole(folder / "quarantine.csv") as temporary,
          temporary.open("w", newline="", encoding="utf-8") as file):
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "reason": plain(row["reason"])} for row in rows)


def plain(text: str) -> str:
    """Return a text in one line that no spreadsheet takes for a formula."""
    line = " ".join(str(text).split())
    return f"'{line}" if line[:1] in "=+-@" else line


def summary(records: Iterator[Mapping[str, Any]] | Iterable[Mapping[str, Any]], most: int = 20) -> str:
    """Return the lines that name the images in quarantine, at most ``most`` of them."""
    rows = sorted(records, key=lambda record: record["name"])
    lines = [f"  {row['name']} ({row['stage']}, {row['type']}): {row['reason']}" for row in rows[:most]]
    return "\n".join([*lines, *([f"  and {len(rows) - most} more"] if len(rows) > most else [])])


