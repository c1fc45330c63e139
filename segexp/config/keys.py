"""The keys of a configuration and the values that their comments list, without composing it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from segexp.config import folder


def chosen_files(folders: Sequence[Path], primary: str, words: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield ``(package, file)`` of the YAML files that a command line pulls in, as far as names alone tell.

    Choices on the command line win over those in defaults lists; lists are followed, later entries last.
    """
    choices = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in words if "=" in word}
    file = folder.primaries(folders).get(primary)
    if file:
        yield from _follow(folders, "", file, choices, set())


def _follow(folders: Sequence[Path], package: str, file: Path, choices: dict[str, str],
            seen: set[Path]) -> Iterator[tuple[str, Path]]:
    if file in seen:
        return
    seen.add(file)
    yield package, file
    here = next((file.parent.relative_to(root).as_posix() for root in folders if file.is_relative_to(root)), ".")
    picked = dict(choices)
    for entry in folder.load(file).get("defaults") or []:
        group, wanted, at = _entry(entry, here, picked)
        for one in wanted:
            found = folder.files(folders, group).get(one)
            if found:
                inside = _package(package, None if group == here else group, at, found)
                yield from _follow(folders, inside, found, choices, seen)


def _entry(entry: object, here: str, picked: dict[str, str]) -> tuple[str, list[str], str]:
    """Return the group, the choices and what follows `@` of an entry of a defaults list in the folder ``here``.

    ``picked`` holds what the command line chose, and gets what the list chooses, for later `${group}` in it.
    """
    if isinstance(entry, dict):
        name, choice = next(iter(entry.items()))
        name, _, at = str(name).removeprefix("override ").partition("@")
    else:
        text = re.sub(r"\$\{([^}]*)\}", lambda found: picked.get(found[1], ""), str(entry))
        text, _, at = text.partition("@")
        if "/" not in text:
            return here, [text], at
        name, _, choice = text.rpartition("/")
    group = name.strip("/") if name.startswith("/") or here == "." else f"{here}/{name}"
    if isinstance(entry, dict):
        choice = picked.setdefault(group, choice) if choice is not None else picked.get(group)
    wanted = choice if isinstance(choice, list) else str(choice or "").split(",")
    return group, [str(one) for one in wanted], at


def _package(parent: str, group: str | None, at: str, file: Path) -> str:
    """Return where the keys of a file go: what follows `@` in the defaults list, its header, its group's name."""
    if at:
        return ".".join(part for part in (parent, at) if part) if at != "_global_" else ""
    if folder.is_global(file):
        return ""
    return parent if group is None else group.replace("/", ".")


def keys_of(folders: Sequence[Path], primary: str, words: Sequence[str], current: str) -> list[str]:
    """Return keys that continue ``current``: leaves as ``data.root=``, branches as ``data.`` at the next dot only."""
    level = current.lstrip("+~").rpartition(".")[0]
    prefix = f"{level}." if level else ""
    leaves: set[str] = set()
    branches: set[str] = set()
    for package, file in chosen_files(folders, primary, words):
        content = {key: value for key, value in folder.load(file).items() if key not in ("defaults", "hydra")}
        for part in reversed(package.split(".")) if package else ():
            content = {part: content}
        node: object = content
        for part in level.split(".") if level else ():
            node = node.get(part) if isinstance(node, dict) else None
        for key, value in node.items() if isinstance(node, dict) else ():
            if not str(key).startswith("_"):
                (branches if isinstance(value, dict) else leaves).add(f"{prefix}{key}")
    signs = current[: len(current) - len(current.lstrip("+~"))]
    return [*(f"{signs}{key}=" for key in leaves - branches), *(f"{signs}{key}." for key in branches)]


def values_of(folders: Sequence[Path], primary: str, words: Sequence[str], key: str) -> list[str]:
    """Return the values that the comment beside a key lists (``mode: offline # offline | online``)."""
    found: list[str] = []
    for package, file in chosen_files(folders, primary, words):
        inner = key.removeprefix(f"{package}.") if package else key
        found = _listed(file, inner) or found
    return found


def _listed(file: Path, key: str) -> list[str]:
    """Return the values listed in the comment of a dotted key in a file, read line by line."""
    path: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        name, colon, rest = line.partition(":")
        if not colon or line.lstrip().startswith(("#", "-")):
            continue
        indent = len(name) - len(name.lstrip())
        path = [*((depth, part) for depth, part in path if depth < indent), (indent, name.strip())]
        if ".".join(part for _, part in path) == key and "#" in rest:
            return _choices(rest.partition("#")[2])
    return []


def _choices(comment: str) -> list[str]:
    """Return the names that a comment lists: ``a | b``, ``a: what it is | b (and this)``, ``a: this; b: that``."""
    parts = (re.fullmatch(r"([\w.-]+)(?::.*|\s*\(.*\))?", part.strip()) for part in re.split(r"[|;]", comment))
    names = [part[1] for part in parts if part]
    return names if len(names) > 1 else []
