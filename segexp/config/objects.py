"""The one door from configuration to objects."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segexp.config.targets import find, refusal, targets_of
from segexp.errors import ConfigError, SegexpError


def plain(node: Any) -> Any:
    """Return ``node`` as plain containers with every interpolation resolved; ``???`` stays.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.explanation import explain
    from segexp.config.resolvers import register_resolvers

    register_resolvers()  # takes some away
    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise explain(error) from error


def key_of(node: Any) -> str:
    """Return the full key of a node of a composed configuration, empty for plain containers."""
    full = getattr(node, "_get_full_key", None)
    return full(None) if full else ""


def instantiate(node: Any, *, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Make the object, or containers of objects, that ``node`` describes.

    Everything below ``node`` is made too and reaches its class as plain dicts, lists and numbers
    (Hydra's ``_convert_: all``). Every ``_target_`` is compared with what may be named, see `segexp.config.targets`,
    before anything is imported.

    Args:
        node: a node of a composed configuration or a plain dict or list. None gives None.
        allow: module prefixes of the user, from ``--allow-target``. A configuration cannot extend them itself.
        **kwargs: arguments for the outermost target that only exist at run time. They are passed on untouched and
            win over the configuration.

    Returns:
        The object; for ``_partial_: true`` a callable waiting for its remaining arguments.

    Raises:
        ConfigError: a forbidden or unknown target, a missing value, arguments that the target refuses.
        SegexpError: whatever of our own errors the target itself raises, unchanged.
    """
    if node is None:
        return None
    key, content = key_of(node), plain(node)
    if content is None:
        return None
    for where, target in targets_of(content, key):
        reason = refusal(target, allow, where)
        if reason:
            raise ConfigError(f"{where or 'configuration'}: {reason}")
    left = next(unresolved_texts(content, key), None)
    if left:  # Hydra would resolve it after the targets were compared
        raise ConfigError(f"{left}: still holds an interpolation (${{...}}) after all were resolved; write the value")
    for where, target in targets_of(content, key):
        try:
            find(target, allow)
        except ConfigError as error:
            raise ConfigError(f"{where or 'configuration'}: _target_ {error}") from error
    return _build(content, key, kwargs)


def unresolved_texts(node: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of texts in plain containers that hold an interpolation."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from unresolved_texts(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from unresolved_texts(child, f"{key}[{index}]")
    elif isinstance(node, str) and "${" in node:
        yield key or "configuration"


def _build(content: Any, key: str, kwargs: dict[str, Any]) -> Any:
    import hydra.utils
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.explanation import explain

    target = content.get("_target_", "") if isinstance(content, Mapping) else ""
    try:
        if not kwargs:
            return hydra.utils.instantiate(content, _convert_="all")
        missing = [name for name, value in content.items() if value == "???" and name not in kwargs]
        if missing and not content.get("_partial_"):
            where = f"{key}.{missing[0]}" if key else missing[0]
            raise ConfigError(f"{where} has no value; give one: {where}=...")
        # Run-time arguments go round OmegaConf, which would copy dicts and take dataclasses for configurations.
        waiting = hydra.utils.instantiate(content, _convert_="all", _partial_=True)
        if content.get("_partial_"):
            import functools

            return functools.partial(waiting, **kwargs)
        return waiting(**kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        while isinstance(cause, InstantiationException) and cause.__cause__:
            cause = cause.__cause__
        if isinstance(cause, SegexpError):
            raise cause from error
        if cause is not None and not isinstance(cause, TypeError | ValueError):
            raise cause from error
        raise ConfigError(f"{_where(key, content, error)}: {_first(cause or error)}") from error
    except OmegaConfBaseException as error:
        # The content was cut out of its tree: its keys begin below ``key``.
        error.full_key = ".".join(part for part in (key, error.full_key) if part)
        raise explain(error, key=key) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key or 'configuration'}: {target} refused its arguments: {error}") from error


def _where(key: str, content: Any, error: Exception) -> str:
    """Return the full key that Hydra names in its message, below ``key``."""
    _, found, inner = str(error).partition("full_key: ")
    # Hydra writes `parts0` for `parts[0]`.
    known = {name.replace("[", "").replace("]", ""): name for name, _ in targets_of(content)}
    inner = known.get(inner.strip(), inner.strip()) if found else ""
    return ".".join(part for part in (key, inner) if part) or "configuration"


def _first(error: BaseException) -> str:
    text = str(error).partition("\nfull_key:")[0]
    return " ".join(text.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "").split())
