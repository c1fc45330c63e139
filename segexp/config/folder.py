"""What the configuration folders offer, read from file names and YAML alone: no Hydra, so it answers at once."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from segexp.config.yaml_files import read_yaml
from segexp.errors import ConfigError

HIDDEN = ("hydra",)


def groups(folders: Sequence[Path]) -> list[str]:
    """Return the names of all config groups: folders that hold at least one YAML, such as ``method/targets``."""
    found = {file.parent.relative_to(folder).as_posix() for folder in folders for file in folder.rglob("*.yaml")}
    # `experiment/neuronet` is a part of the names of `experiment`'s choices; to Hydra it is a group all the same.
    return sorted(name for name in found if name != "." and name.split("/")[0] not in HIDDEN)


def files(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """Return choice -> YAML of a group, with choices in its subfolders as ``folder/choice``; first folder wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / group).rglob("*.yaml")):
            found.setdefault(file.relative_to(folder / group).with_suffix("").as_posix(), file)
    return dict(sorted(found.items()))


def choices(folders: Sequence[Path], group: str) -> list[str]:
    """Return the choices of a group: ``nn_all``, ``neuronet/nn_all``.

    A folder inside a group is either a part of its choices' names (``experiment/neuronet``) or a group of its own
    (``method/targets``). It is a group of its own where the group also has choices of its own beside it.
    """
    found = list(files(folders, group))
    own = [name for name in found if "/" not in name]
    return own or found


def primaries(folders: Sequence[Path]) -> dict[str, Path]:
    """Return name -> YAML of the primary configurations: the files at the top of the folders."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def own_groups(folders: Sequence[Path]) -> list[str]:
    """Return the groups that a person chooses from: without the subfolders that are parts of choices' names."""
    names = groups(folders)
    tops = {name.split("/")[0] for name in names}
    inner = (name for name in names if "/" in name)
    return sorted(tops | {name for name in inner if _is_own(folders, name)})


def _is_own(folders: Sequence[Path], group: str) -> bool:
    parent = group.rpartition("/")[0]
    if not any("/" not in name for name in files(folders, parent)):
        return False
    # Settings merged by a defaults list (`scale/neuronet/demo`) mirror the choices of their parent.
    return not set(files(folders, group)) & set(choices(folders, parent))


def description(file: Path) -> str:
    """Return the first comment line of a YAML that is not Hydra's package header; empty where there is none."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            text = line.strip()
            if text and not text.startswith("#"):
                return ""
            text = text.lstrip("# ")
            if text and not text.startswith("@package"):
                return text
    return ""


def load(file: Path) -> dict:
    """Return a YAML's content as plain dicts; an empty dict where it holds none or cannot be read as YAML."""
    try:
        content = read_yaml(file)
    except ConfigError:
        return {}
    return content if isinstance(content, dict) else {}


def is_global(file: Path) -> bool:
    """Say whether a YAML's keys belong at the top of the configuration (``# @package _global_``)."""
    with file.open(encoding="utf-8") as lines:
        return any(line.replace(" ", "").startswith("#@package_global_") for line in islice(lines, 5))


def dotted(content: object, prefix: str = "") -> Iterable[str]:
    """Yield every key of nested dicts as a dotted name, branches and leaves: ``data``, ``data.root``."""
    if isinstance(content, dict):
        for key, value in content.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            yield name
            yield from dotted(value, name)


def named_groups(folders: Sequence[Path], primary: str) -> list[str]:
    """Return the groups that a primary configuration's defaults list names."""
    file = primaries(folders).get(primary)
    entries = load(file).get("defaults", []) if file else []
    names = (str(next(iter(entry))).split("@")[0].lstrip("/") for entry in entries if isinstance(entry, dict))
    return [name for name in names if " " not in name and "$" not in name]


def default_choice(folders: Sequence[Path], primary: str, group: str) -> str | None:
    """Return what a primary configuration's defaults list chooses from a group; None where it chooses nothing."""
    file = primaries(folders).get(primary)
    entries = load(file).get("defaults", []) if file else []
    return next((entry[group] for entry in entries if isinstance(entry, dict) and group in entry), None)
