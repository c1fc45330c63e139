"""Which files may be read: those below the folders that the user named, links followed.

Data sets, layouts and lists may come from a stranger: a link, an absolute path or ``../`` in them must not reach what
the user did not name. A link inside a root may lead anywhere inside the roots. One that leads out of them, as those of
UK Biobank users who link their archive on purpose, needs the folder it leads to on the command line:
``--allow-root /archive``.
"""

from __future__ import annotations

import csv
import json
import os
import re
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segexp.config.flags import ALLOWED_ROOTS
from segexp.errors import ConfigError, DataError

LARGEST = 64_000_000  # bytes of a text file that describes a data set
MOST_COLUMNS = 1_000
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^[=+\-@]|^\s|\s$")
"""What the name of a case cannot hold: control characters and bytes that are no UTF-8; what a spreadsheet would run."""


class Roots:
    """Folders below which files may be read: those of the data set and those of ``--allow-root``.

    Args:
        folders: the roots as configured; None and absent ones are passed over.
    """

    def __init__(self, *folders: str | Path | None) -> None:
        declared = [folder for folder in os.environ.get(ALLOWED_ROOTS, "").split(os.pathsep) if folder]
        named = [*(folder for folder in folders if folder is not None), *declared]
        self.folders = [Path(os.path.realpath(folder)) for folder in named]
        self.named = list(map(str, named))
        self.real: dict[Path, str] = {}

    def problem(self, path: Path) -> str:
        """Say where a path leads if it leads out of the roots; "" where it does not."""
        if "\0" in str(path):
            return f"{str(path)!r} is no path"
        parent = path.parent
        if parent not in self.real:
            self.real[parent] = os.path.realpath(parent)
        direct = Path(self.real[parent], path.name)
        real = Path(os.path.realpath(direct)) if path.name == ".." or direct.is_symlink() else direct
        if any(real.is_relative_to(folder) for folder in self.folders):
            return ""
        return (f"{path} leads to {real}, outside {' and '.join(self.named) or 'every root'}; if that is meant, name "
                f"the folder on the command line: --allow-root {real.parent}")

    def check(self, path: Path) -> Path:
        """Return the path; DataError where it leads out of the roots."""
        problem = self.problem(path)
        if problem:
            raise DataError(problem)
        return path


def unfit(name: str) -> str:
    """Say why a name cannot be a case's; "" where it can."""
    if UNFIT.search(name):
        return (f"the name {name!r} holds control characters or bytes that are no UTF-8, or begins like a formula of a "
                "spreadsheet; rename it")
    return "" if len(name) <= 255 else f"the name {name[:40]!r}... has {len(name)} characters, at most 255 are read"


def read_text(path: Path) -> str:
    """Return the text of a file that describes a data set; DataError when it cannot be read or is too large."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: {path.stat().st_size} bytes; such a file has at most {LARGEST}")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; DataError when it cannot be read, is too large or nested too deeply."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of a table; cells that a row lacks are None.

    Raises DataError when it cannot be read, has more than `MOST_COLUMNS` columns, or a row has more cells than columns.
    """
    lines = read_text(path).splitlines()
    head = lines[0] if lines else ""
    if head.count(delimiter) >= MOST_COLUMNS:
        raise DataError(f"{path}: {head.count(delimiter) + 1} columns; at most {MOST_COLUMNS} are read")
    try:
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        columns, rows = list(reader.fieldnames or []), []
        for row in reader:
            if None in row:
                raise DataError(f"{path}, line {reader.line_num}: more cells than the {len(columns)} columns")
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    return columns, rows


def check_template(key: str, template: str, fields: Iterable[str]) -> None:
    """Raise ConfigError unless a template of a path holds nothing but plain ``{field}`` of the given fields."""
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ConfigError(f"{key}: {template!r} is no template of a path ({error})") from error
    known = set(fields)
    for _, name, form, conversion in parts:
        if name not in known or form or conversion:
            raise ConfigError(f"{key}: {template!r} may hold {', '.join(f'{{{one}}}' for one in sorted(known))} only")


def check_inside(key: str, paths: Sequence[str | Path | None]) -> None:
    """Raise ConfigError for a path below a root that is absolute or goes up."""
    for path in paths:
        if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts or "\0" in str(path)):
            raise ConfigError(f"{key}: {str(path)!r} leads out of the data's root; expected a path below it")
