"""Compose a configuration as the command line does, from Python."""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segexp.config.engine import check_choices, check_node, check_words, of_launcher
from segexp.config.paths import search_dirs
from segexp.config.resolvers import register_resolvers
from segexp.config.yaml_files import check_folders
from segexp.errors import ConfigError
from segexp.redaction import secret_in

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERSION_BASE = "1.3"


def compose(primary: str, overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> "DictConfig":
    """Compose ``conf/<primary>.yaml`` with Hydra overrides.

    Args:
        primary: name of a primary configuration: ``train``, ``phantom``, ...
        overrides: as on the command line: ``experiment=neuronet/nn_all``, ``network.units=3``, ``+a.b=1``, ``~a.b``.
        config_dirs: more folders with configuration, as with ``--config-dir``. Shipped files win over files of the
            same name.

    Returns:
        The configuration without Hydra's own node. Interpolations stay as they are, except those that ask Hydra
        (``${hydra:...}``), which could not be resolved later; values that are still ``???`` stay missing.

    Raises:
        ConfigError: an override, group, option, file or value that does not exist or cannot be read; the message
            names the override and the nearest valid name.
    """
    return compose_from(search_dirs(config_dirs), primary, overrides)


def compose_from(folders: Sequence[Path], primary: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """Compose like ``compose`` from absolute ``folders``, of which the first holds the primary configuration."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from segexp.config.explanation import explain

    check_words(overrides)
    check_folders(folders[1:])
    try:
        config = compose_raw(primary, overrides, folders)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise explain(error, primary, overrides, folders) from error
    except RecursionError as error:
        raise ConfigError(f"the configuration {primary} refers to itself, or is nested too deeply") from error
    found = secret_in(OmegaConf.to_container(config, resolve=False))
    if found:
        raise ConfigError(f"{found}; configurations are recorded with every run, so they cannot hold secrets")
    return config


@contextmanager
def initialised(folders: Sequence[Path]):
    """Hold Hydra ready for ``folders``; what was initialised before comes back afterwards."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_resolvers()
    # Hydra refuses to be initialised twice, also inside a job of its own.
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folders[0]), version_base=VERSION_BASE, job_name="segexp"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def searchpath(folders: Sequence[Path]) -> list[str]:
    """Return the override that adds the folders after the first to Hydra's search path."""
    if len(folders) < 2:
        return []
    quoted = ("'file://" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders[1:])
    return [f"hydra.searchpath=[{','.join(quoted)}]"]


def launcher_settings(overrides: Sequence[str], config_dirs: Sequence[str | Path] = ()) -> Any:
    """Return the node ``hydra.launcher`` of ``conf/train.yaml`` with overrides such as ``hydra.launcher.slots=2``.

    Raises:
        ConfigError: a launcher or a key that does not exist.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.explanation import explain
    from segexp.config.names import hint
    from segexp.errors import ConfigError

    folders = search_dirs(config_dirs)
    try:
        with initialised(folders):
            choice = [word for word in overrides if word.startswith("hydra/launcher=")]
            known = hydra.compose("train", [*searchpath(folders), *choice], return_hydra_config=True).hydra.launcher
            for word in overrides:
                key = word.partition("=")[0].removeprefix("hydra.launcher.").partition(".")[0]
                if word.startswith("hydra.launcher.") and key not in known:
                    raise ConfigError(f"{word}: the launcher has no {key!r}"
                                      + hint(key, [str(name) for name in known if not str(name).startswith("_")]))
            return hydra.compose("train", [*searchpath(folders), *overrides], return_hydra_config=True).hydra.launcher
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", overrides, folders) from error


def compose_raw(primary: str, overrides: Sequence[str], folders: Sequence[Path]) -> "DictConfig":
    """Compose like ``compose`` but leave Hydra's exceptions as they are."""
    import hydra
    from omegaconf import open_dict

    with initialised(folders):
        cfg = hydra.compose(primary, [*searchpath(folders), *overrides], return_hydra_config=True)
        check_choices(cfg)
        own = of_launcher(overrides)
        if own or len(folders) > 1:
            check_node(cfg, hydra.compose(primary, [*searchpath(folders), *own], return_hydra_config=True))
    _settle(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def _settle(cfg: "DictConfig") -> None:
    """Replace interpolations that ask Hydra by their values while Hydra's node is still there."""
    from hydra.core.hydra_config import HydraConfig

    holder = HydraConfig.instance()
    before = holder.cfg
    holder.set_config(cfg)
    try:
        for key in list(cfg):
            if key != "hydra":
                _settle_node(cfg, key)
    finally:
        holder.cfg = before


def _settle_node(parent: Any, key: Any) -> None:
    from omegaconf import OmegaConf

    node = parent._get_node(key)
    if node is None or node._is_none() or node._is_missing():
        return
    if node._is_interpolation():
        if "${hydra:" in str(node._value()):
            parent[key] = parent[key]
    elif OmegaConf.is_config(node):
        for child in list(node) if OmegaConf.is_dict(node) else range(len(node)):
            _settle_node(node, child)
