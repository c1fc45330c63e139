"""Reading YAML that a stranger may have written: plain values only, and not more of them than a person writes.

The text is looked at event by event before anything is built, so that neither a tag, nor depth, nor aliases that
stand for millions of values can do harm.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from segexp.errors import ConfigError

LARGEST = 2_000_000  # bytes of a file
MOST_VALUES = 50_000  # values of a file, aliases counted as often as they are used
DEEPEST = 50  # levels
LONGEST_KEY = 500  # characters
TAGS = re.compile(r"tag:yaml\.org,2002:(str|int|float|bool|null|seq|map|merge|binary|timestamp)|!")


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file as plain containers.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is larger or stranger than a configuration is.
    """
    path = Path(path)
    return parse_yaml(_text(path), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return what ``read_yaml`` does of a text; ``name`` is for the messages."""
    import yaml

    check_yaml(text, name)
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{name}: not readable as YAML: {_first(error)}") from error


def check_yaml(text: str, name: str) -> None:
    """Raise a ConfigError unless a YAML text holds plain values within the limits."""
    import yaml

    counted: dict[str, int] = {}
    levels: list[list[Any]] = []  # open collections: anchor, values so far

    def add(values: int, line: int) -> None:
        if levels:
            levels[-1][1] += values
            values = levels[-1][1]
        if values > MOST_VALUES:
            raise ConfigError(f"{name}, line {line}: more than {MOST_VALUES} values, aliases counted as often as they "
                              "are used; no configuration needs that many")

    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            line = event.start_mark.line + 1 if event.start_mark else 0
            tag = getattr(event, "tag", None)
            if tag and not TAGS.fullmatch(tag):
                raise ConfigError(f"{name}, line {line}: the tag {tag[:80]} is refused: a configuration holds plain "
                                  "values only")
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in counted:
                    raise ConfigError(f"{name}, line {line}: the alias *{event.anchor} refers to itself or to nothing")
                add(counted[event.anchor], line)
            elif isinstance(event, yaml.ScalarEvent):
                if event.anchor:
                    counted[event.anchor] = 1
                add(1, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(levels) == DEEPEST:
                    raise ConfigError(f"{name}, line {line}: more than {DEEPEST} levels")
                counted.pop(event.anchor, None)
                levels.append([event.anchor, 1])
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, values = levels.pop()
                if anchor:
                    counted[anchor] = values
                add(values, line)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{where}: is not valid YAML ({getattr(error, 'problem', None) or _first(error)})"
                          ) from error


def check_folders(folders: Sequence[Path]) -> None:
    """Check every YAML file of the user's configuration folders, each once as long as it stays the same.

    Raises:
        ConfigError: as `read_yaml`; or a defaults list leads out of the folder (``../``), or a key is too long.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            if path.is_file():
                state = path.stat()
                _checked(path, state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=10_000)
def _checked(path: Path, *state: int) -> None:
    content = read_yaml(path)
    for key in _keys(content):
        if len(key) > LONGEST_KEY:
            raise ConfigError(f"{path}: a key of {len(key)} characters ({key[:30]}...); at most {LONGEST_KEY} are read")
    defaults = content.get("defaults") if isinstance(content, dict) else None
    for word in _words(defaults):
        if leads_out(word):
            raise ConfigError(f"{path}: the defaults list names {word!r}, which leads out of the configuration folder")


def leads_out(choice: str) -> bool:
    """Say whether the name of a choice leads out of its folder."""
    return ".." in re.split(r"[/\\]", choice.split("@")[0]) or choice.startswith(("~", "//")) or "\0" in choice


def _words(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _words(value)
    elif isinstance(node, list):
        for one in node:
            yield from _words(one)
    elif isinstance(node, str):
        yield node


def _keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _keys(value)
    elif isinstance(node, list):
        for one in node:
            yield from _keys(one)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; a configuration has at most {LARGEST}")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {_first(error)}") from error


def _first(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
