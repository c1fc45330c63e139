"""Where the configuration lies: beside the package in a checkout, inside it in an installed wheel."""

from collections.abc import Iterable
from pathlib import Path

from segexp.errors import ConfigError

PRIMARY = "train.yaml"


def conf_dir() -> Path:
    """Return the absolute path of the shipped ``conf`` folder.

    The first of ``<package>/conf`` (wheel) and ``<repository>/conf`` (checkout, editable install) that holds
    ``train.yaml``. A path, not ``pkg://``: Hydra's package search fails in editable installs.

    Raises:
        ConfigError: neither exists; the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    places = (package / "conf", package.parent / "conf")
    for place in places:
        if (place / PRIMARY).is_file():
            return place
    raise ConfigError(f"no {PRIMARY} in {places[0]} or {places[1]}: install segexp again, its configuration is missing")


def plugins_dir() -> Path:
    """Return the folder to append to ``sys.path`` so that Hydra finds our launchers."""
    return Path(__file__).resolve().parent.parent / "_plugins"


def search_dirs(config_dirs: Iterable[str | Path] = ()) -> list[Path]:
    """Return every folder that configuration is read from: the shipped one, then the user's, all absolute.

    Raises:
        ConfigError: a folder of the user does not exist.
    """
    folders = [conf_dir()]
    for folder in config_dirs:
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder; give a folder laid out like {folders[0]}")
        folders.append(path)
    return folders
