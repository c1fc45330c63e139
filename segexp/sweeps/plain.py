"""Resolved configurations as plain YAML: written once per job, read back by its process, trusted in nothing."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segexp.errors import ConfigError
from segexp.files import write_text

LARGEST = 4_000_000  # bytes; a resolved configuration has some 10 kB
COMMAND = "# segexp train "
OF_THE_RUN = ("${paths.run}", "${start_step}")
"""Interpolations that stay: their values are known when the run starts."""


def resolved(config: Any) -> dict[str, Any]:
    """Return a composed configuration as plain containers, resolved but for ``OF_THE_RUN``.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    from omegaconf import OmegaConf

    from segexp.config import register_resolvers
    from segexp.config.objects import plain

    register_resolvers()
    return keep(OmegaConf.to_container(config, resolve=False), plain(config))


def keep(raw: Any, value: Any) -> Any:
    """Return ``value`` with the texts of ``raw`` that name something of the run."""
    if isinstance(raw, str) and any(one in raw for one in OF_THE_RUN):
        return raw
    if isinstance(raw, dict) and isinstance(value, dict):
        return {key: keep(raw.get(key), child) for key, child in value.items()}
    if isinstance(raw, list) and isinstance(value, list) and len(raw) == len(value):
        return [keep(*pair) for pair in zip(raw, value, strict=True)]
    return value


def write_config(path: str | Path, content: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Write plain containers as YAML; the first line tells people which overrides gave them."""
    import yaml

    words = shlex.join(overrides).replace("\n", " ")
    write_text(path, f"{COMMAND}{words}\n" + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def read_config(path: str | Path) -> Any:
    """Return a resolved configuration as an OmegaConf node; nothing in the file is executed or looked up.

    Raises:
        ConfigError: the file is not there, is no YAML of plain values, holds aliases or interpolations, or is no
            training configuration.
    """
    from omegaconf import OmegaConf

    content = read_plain(path)
    missing = [key for key in ("method", "data", "network", "trainer", "paths", "steps", "seed") if key not in content]
    if missing:
        raise ConfigError(f"{path} is not a resolved training configuration: it has no {', '.join(missing)}; "
                          "`segexp train --cfg job --resolve ...` prints one")
    forget_run(content)
    for key, text in texts(content):
        for one in OF_THE_RUN:
            text = text.replace(one, "")
        if "${" in text:
            raise ConfigError(f"{path}: {key} is {text!r}, but a resolved configuration holds no interpolations")
    return OmegaConf.create(content)


def forget_run(content: dict[str, Any]) -> None:
    """Make of a finished run's configuration, which names its directory and step, one that starts a run."""
    paths = content["paths"] if isinstance(content["paths"], dict) else {}
    before, paths["run"] = paths.get("run"), None
    content["start_step"] = 0
    for group in ("callbacks", "logger"):
        for node in (content.get(group) or {}).values() if isinstance(content.get(group), dict) else ():
            if isinstance(node, dict):
                for key, value in node.items():
                    if before and isinstance(value, str) and value.startswith(str(before)):
                        node[key] = OF_THE_RUN[0] + value.removeprefix(str(before))
                if "start_step" in node:
                    node["start_step"] = OF_THE_RUN[1]


def read_plain(path: str | Path) -> dict[str, Any]:
    """Return the mapping of a YAML without aliases, tags and duplicates of other files.

    Raises:
        ConfigError: as for ``read_config``.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases: a few lines of them stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ConfigError(f"{path}: aliases (*name) have no place in a resolved configuration")
            return super().compose_node(parent, index)

    try:
        size = Path(path).stat().st_size
        if size > LARGEST:
            raise ConfigError(f"{path} has {size} bytes; a resolved configuration has {LARGEST} at most")
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values")
    return content


def command_of(path: str | Path) -> list[str]:
    """Return the words that people would type for a job's configuration: its overrides, else ``--config FILE``."""
    with Path(path).open(encoding="utf-8") as file:
        first = file.readline()
    if first.startswith(COMMAND):
        try:
            return ["segexp", "train", *shlex.split(first.removeprefix(COMMAND))]
        except ValueError:
            pass
    return ["segexp", "train", "--config", str(path)]


def texts(node: Any, key: str = "") -> Any:
    """Yield ``(key, text)`` for every text in nested containers, keys included."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, child in node.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, str(name)
            yield from texts(child, inner)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from texts(child, f"{key}[{index}]")
