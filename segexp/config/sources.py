"""Which file, or which word of the command line, set a key."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from segexp.config import folder
from segexp.config.paths import search_dirs


def origins(primary: str, overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> dict[str, str]:
    """Return dotted key -> what set it last: ``conf/network/neuronet.yaml`` or ``command line``.

    Args:
        primary: as for ``compose``; the composition must be one that works.
        overrides: as for ``compose``.
        config_dirs: as for ``compose``.

    Raises:
        ConfigError: a folder of ``config_dirs`` does not exist.
    """
    return origins_from(search_dirs(config_dirs), primary, overrides)


def origins_from(folders: Sequence[Path], primary: str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return what ``origins`` does for absolute ``folders``, of which the first holds the primary configuration."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    from segexp.config.composition import initialised, searchpath

    with initialised(folders):
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list(primary, [*searchpath(folders), *overrides], RunMode.RUN)
    result: dict[str, str] = {}
    for default in found.defaults:
        file = _file(folders, default.config_path or "")
        if file is None:
            continue
        content = {key: value for key, value in folder.load(file).items() if key != "defaults"}
        package = default.package or ""
        shown = "conf/" + file.relative_to(next(root for root in folders if file.is_relative_to(root))).as_posix()
        if package:
            result[package] = shown  # a missing argument has no line of its own: its node's file is the place for it
        result |= {f"{package}.{key}" if package else key: shown for key in folder.dotted(content)}
    groups = set(folder.groups(folders))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group not in groups and not override.is_delete():
            result[override.key_or_group] = "command line"
    return result


def _file(folders: Sequence[Path], path: str) -> Path | None:
    return next((place for place in (root / f"{path}.yaml" for root in folders) if place.is_file()), None)


def origin(known: Mapping[str, str] | None, key: str) -> str:
    """Return what set ``key`` or, where nothing did by that name, its nearest parent; empty where unknown."""
    while known and key:
        if key in known:
            return known[key]
        key = key.rpartition(".")[0]
    return ""
