"""Hydra's and OmegaConf's exceptions, said so that the reader knows what to type instead."""

import re
from collections.abc import Sequence
from pathlib import Path

from segexp.config import folder
from segexp.config.names import hint, nearest
from segexp.errors import ConfigError


def explain(error: BaseException, primary: str = "train", overrides: Sequence[str] = (),
            folders: Sequence[Path] = (), key: str = "") -> ConfigError:
    """Turn an exception of Hydra or OmegaConf into a ``ConfigError``.

    Args:
        error: what was raised.
        primary: the primary configuration that was composed.
        overrides: the overrides it was composed with.
        folders: the configuration folders, for the names that would have been valid.
        key: the key being worked on, where the exception does not know it.

    Returns:
        An error that names the override or key and, where one is close, the nearest valid name.
    """
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return ConfigError(f"{mark.name}, line {mark.line + 1}: is not valid YAML ({error.problem})")
    if isinstance(error, OverrideParseException):
        return ConfigError(_syntax(error.override, str(error.message)))
    if isinstance(error, MissingConfigException):
        return ConfigError(_missing_config(error, primary, overrides, folders))
    ours = _own_cause(error)
    if ours is not None:
        return ours
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and not str(error).startswith("Could not"):
        return ConfigError(_omegaconf(cause, key, overrides, str(error)))
    return ConfigError(_composition(str(error), primary, overrides, folders))


def _own_cause(error: BaseException) -> ConfigError | None:
    """Return the ConfigError that a resolver of ours raised and OmegaConf wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConfigError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _syntax(override: str, message: str) -> str:
    if "=" not in override and not override.startswith("~"):
        return f"{override}: expected KEY=VALUE, as in data.root=/data/ukbb or experiment=neuronet/nn_all"
    lines = [line.strip() for line in message.splitlines() if not line.startswith(("Error parsing", "See "))]
    reason = lines[0] if lines else "bad syntax"
    return (f"{override}: cannot be read ({reason}); put values with spaces, commas, brackets or = in quotes, "
            f"as in 'tag=\"a = b\"'")


def _key(override: str) -> str:
    """Return the key or group of an override, without signs and package."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _named(overrides: Sequence[str], key: str) -> str | None:
    """Return the last override of ``key``."""
    return next((override for override in reversed(overrides) if _key(override) == key), None)


def _is_choice(override: str) -> bool:
    """Say whether an override's value can be the name of a choice: text, not a number, null or a mapping."""
    value = override.partition("=")[2]
    named = re.fullmatch(r"['\"]?[A-Za-z_][\w./-]*['\"]?", value)
    return bool(named) and value.lower() not in ("null", "true", "false")


def _not_a_choice(override: str, folders: Sequence[Path]) -> str:
    group = _key(override)
    names = hint(override.partition("=")[2], folder.choices(folders, group), f"segexp list {group}")
    return f"{override}: {group} takes the name of one of its files{names}; single values are set as {group}.KEY=VALUE"


def _missing_config(error: BaseException, primary: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    missing = str(getattr(error, "missing_cfg_file", "") or "")
    if missing == primary:
        names = folder.primaries(folders)
        return f"there is no primary configuration {primary!r}{hint(primary, names)}"
    for override in overrides:
        group, equals, value = override.lstrip("+").partition("=")
        group, value = group.partition("@")[0], value.strip("'\"")
        if equals and f"{group}/{value}" == missing:
            known = folder.files(folders, group) if "/" in value else folder.choices(folders, group)
            return f"{override}: {group} has no choice {value}{hint(value, known, f'segexp list {group}')}"
    parent = re.match(r"In '([^']*)'", str(error))
    group, _, value = missing.rpartition("/")
    by = f", which {parent[1]}.yaml asks for" if parent else ""
    return f"{missing}.yaml does not exist{by}{hint(value, folder.choices(folders, group))}"


def _composition(message: str, primary: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    first = message.partition("\n")[0].strip()
    known = folder.own_groups(folders)
    if first.startswith("Config group override must be"):
        wrong = next((text for text in overrides if _key(text) in known and not _is_choice(text)), "")
        return _not_a_choice(wrong, folders) if wrong else first
    several = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?: requires|$)", first)
    if several:
        name, _, value = several[1].partition("=")
        as_list = f"; for one list write '{name}=[{value}]'" if "(" not in value else ""
        return f"{several[1]}: several values make several runs and need -m (segexp train -m ...){as_list}"
    package = re.match(r"Override (\S+) looks like a config group override, but config group '([^']*)'", first)
    if package:
        return f"{package[1]}: there is no group {package[2]}{hint(package[2], known, 'segexp list')}"
    found = re.search(r"Could not (?:override|delete)(?: from config\.)? '([^']*)'", first)
    if not found:
        return first or f"the configuration {primary} cannot be composed"
    key = found[1].partition("@")[0]
    inside = re.match(r"In '([^']*)'", first)
    override = _named(overrides, key)
    where = f"{inside[1]}.yaml" if inside else override or key
    if key in known and override and not _is_choice(override):
        return _not_a_choice(override, folders)
    if key in known:
        return f"{where}: {primary} has no group {key}; add it with +{override or key}"
    return f"{where}: there is no key {key}{_key_hint(key, primary, overrides, folders)}"


def _key_hint(key: str, primary: str, overrides: Sequence[str], folders: Sequence[Path]) -> str:
    """Return what ``key`` may have meant: a group, a key at the level where it leaves the configuration, a leaf."""
    known = folder.own_groups(folders)
    if "/" in key:
        found = nearest(key, known)
        return f"; did you mean {found}?" if found else "; segexp list shows all groups"
    content = _valid_part(primary, overrides, folders)
    level, node = "", content
    for part in key.split("."):
        if isinstance(node, dict) and part in node:
            level, node = f"{level}{part}.", node[part]
            continue
        if not isinstance(node, dict):
            return f"; {level.rstrip('.')} is a value, it has no keys"
        found = nearest(part, [*map(str, node), *([] if level else known)])
        if found:
            return f"; did you mean {level}{found}{key.removeprefix(level + part)}?{_adding(level)}"
        elsewhere = sorted(name for name in folder.dotted(content) if name.endswith(f".{key}"))
        if elsewhere:
            return f"; did you mean {' or '.join(elsewhere[:3])}?"
        return f"; {level.rstrip('.') or primary} has {', '.join(sorted(map(str, node)))}{_adding(level)}"
    return ""


def _adding(level: str) -> str:
    return " (a new key needs +)" if level else ""


def _valid_part(primary: str, overrides: Sequence[str], folders: Sequence[Path]) -> dict:
    """Return the composition of the overrides that choose options of existing groups, or of none of them."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.composition import compose_raw

    known = {*folder.groups(folders), *folder.own_groups(folders)}
    chosen = [text for text in overrides if _key(text) in known]
    for attempt in (chosen, []):
        try:
            return OmegaConf.to_container(compose_raw(primary, attempt, folders), resolve=False)
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    return {}


def _omegaconf(cause: BaseException, key: str, overrides: Sequence[str], outer: str) -> str:
    from omegaconf import errors

    where = getattr(cause, "full_key", None) or key
    message = str(cause).partition("\n")[0].strip()
    merging = outer.removeprefix("Error merging override ") if outer.startswith("Error merging override") else ""
    if merging:
        return f"{merging}: does not fit what is there ({message})"
    if isinstance(cause, errors.MissingMandatoryValue):
        named = re.search(r"Missing mandatory value: (\S+)", message)
        where = where or (named[1] if named else key)
        return f"{where} has no value; give one: {where}=..."
    if isinstance(cause, errors.InterpolationToMissingValueError):
        named = re.search(r"Missing mandatory value: (\S+)", message)
        source = named[1] if named else "a key it is derived from"
        return f"{where} needs {source}, which has no value; give one: {source}=..."
    if isinstance(cause, errors.InterpolationKeyError):
        named = re.search(r"Interpolation key '([^']*)' not found", message)
        return f"{where}: ${{{named[1] if named else '?'}}} names a key that does not exist"
    if isinstance(cause, errors.InterpolationResolutionError | errors.UnsupportedInterpolationType):
        return f"{where}: cannot be resolved: {message}"
    by = _named(overrides, where) if where else None
    return f"{by or where or 'configuration'}: {message}"
