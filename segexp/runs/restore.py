"""A finished run's network again, with its configuration changed where the user asks."""

from collections.abc import Sequence
from typing import Any

from segexp.errors import ConfigError, SegexpError
from segexp.runs.directory import Run
from segexp.tensors import not_finite, other_types

KEPT = {"data": ("intensity", "resample")}
"""Group -> keys that an option chosen for a finished run takes from the run: how images were scaled in training."""


GROUPS = ("method", "network", "loss", "optimizer", "scheduler", "sampling", "inference", "metrics", "data", "trainer")
"""What the configuration of every run has."""


def changed_config(run: Run, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Any:
    """Return the run's configuration with ``overrides``.

    They are keys (``data.root=...``) or groups (``metrics=surface``, ``inference/crf=none``); groups go first, outer
    ones before inner ones, as in ``segexp train``. Other data keep what the network was trained on: `KEPT`.

    Raises:
        ConfigError: a key or an option that does not exist.

    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.objects import unresolved_texts
    from segexp.config.paths import search_dirs
    from segexp.config.resolvers import register_resolvers

    content = run.config()
    left = next(unresolved_texts(content), None)
    if left:
        raise ConfigError(f"{run.path / 'config.yaml'}: {left} holds an interpolation; a run has values only")
    register_resolvers()  # takes some away
    try:
        config = OmegaConf.create(content)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{run.path / 'config.yaml'} cannot be used: {error}") from error
    for key in GROUPS:
        if not OmegaConf.is_dict(config.get(key)):
            raise ConfigError(f"{run.path / 'config.yaml'}: {key} is missing or no mapping, as it is in every run")
    OmegaConf.set_struct(config, True)
    folders = search_dirs(config_dirs)
    words = [override.partition("=") for override in overrides]
    for override, (_, equals, _) in zip(overrides, words, strict=True):
        if not equals:
            raise ConfigError(f"{override!r} is not KEY=VALUE")
    groups = {key for key, _, _ in words if any((folder / key).is_dir() for folder in folders)}
    for key, _, value in sorted((word for word in words if word[0] in groups), key=lambda word: word[0].count("/")):
        chosen, before = chosen_option(key, value, config_dirs), config.get(key)
        for name in KEPT.get(key, ()):
            if name in chosen and name in (before or {}):
                chosen[name] = before[name]
        OmegaConf.update(config, key.replace("/", "."), chosen, merge=False, force_add=True)
    for override, (key, _, value) in zip(overrides, words, strict=True):
        if key in groups:
            continue
        if not has_key(config, key):
            raise unknown_key(config, key, override)
        OmegaConf.update(config, key, parsed(value))
    return config


def has_key(config: Any, key: str) -> bool:
    """Say whether a configuration has a key, also one that still waits for its value (``???``)."""
    from omegaconf import OmegaConf

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if OmegaConf.is_dict(node):
        return name in [str(child) for child in node]
    return OmegaConf.select(config, key, default=None) is not None


def chosen_option(group: str, option: str, config_dirs: Sequence[str] = ()) -> Any:
    """Return what an option of a group puts at its place, for ``inference/crf`` that is ``inference.crf``.

    Raises:
        ConfigError: there is no such option.

    """
    from omegaconf import OmegaConf

    from segexp.config import compose

    try:
        config = compose("train", [f"{group}={option}"], config_dirs)
    except ConfigError:
        # A group that only other methods than the usual one have is not in the usual configuration yet.
        if "/" not in group:
            raise
        config = compose("train", [f"+{group}={option}"], config_dirs)
    return OmegaConf.select(config, group.replace("/", "."))


def parsed(text: str) -> Any:
    """Return the value of an override as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_override(f"key={text}").value()
    except OverrideParseException as error:
        raise ConfigError(f"the value {text!r} cannot be read: {error}") from error


def unknown_key(config: Any, key: str, override: str) -> ConfigError:
    """Return the error for a key that the run's configuration does not have."""
    from omegaconf import OmegaConf

    from segexp.config.names import hint

    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    near = hint(name, [str(child) for child in node]) if hasattr(node, "keys") else ""
    return ConfigError(f"{override}: the run's configuration has no key {key!r}{near}")


def restore(run: Run, config: Any, label_maps: Any, allow: Sequence[str] = ()) -> Any:
    """Return the run's LightningModule with its trained weights, in evaluation mode.

    Raises:
        SegexpError: the run has no finished checkpoint, or it holds other weights than the network has.

    """
    from segexp.runs.training import make_module

    module, kept = make_module(config, label_maps, allow), checkpoint(run)
    try:
        wrong = other_types(kept["state_dict"], module.state_dict())
        if wrong:
            raise ValueError(wrong)
        module.load_state_dict(kept["state_dict"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SegexpError(f"{run.checkpoint} cannot be used: {str(error)[:2000]}") from error
    bad = not_finite(module.state_dict())
    if bad:
        raise SegexpError(f"{run.checkpoint} cannot be used: its weights are NaN or infinite ({bad})")
    return module.eval()


def restore_data(run: Run, config: Any, allow: Sequence[str] = ()) -> Any:
    """Return the data module of a configuration, which scales images as the run's did.

    Raises:
        ConfigError: the configuration does not fit together.
        SegexpError: the run has no finished checkpoint.

    """
    from segexp.config import instantiate

    datamodule = instantiate(config.data, allow=allow, sampling=instantiate(config.sampling, allow=allow))
    datamodule.load_state_dict(checkpoint(run).get(type(datamodule).__qualname__, {}))
    return datamodule


def checkpoint(run: Run) -> dict[str, Any]:
    """Return what a finished run's checkpoint holds.

    Raises:
        SegexpError: the run is not done, or its checkpoint cannot be read.

    """
    from segexp import tensors

    if run.status_on_disk != "done":
        raise SegexpError(f"run {run.id} is {run.status}, not done; finish it first: its command was\n"
                          f"  {run.info.get('command', 'segexp train ...')}")
    return tensors.load(run.checkpoint)
