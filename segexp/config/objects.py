"""The one door from configuration to objects."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segexp.config.names import hint
from segexp.errors import ConfigError, SegexpError

PREFIXES = ("segexp.", "torch.", "pytorch_lightning.", "monai.", "torchvision.")
# torch reaches loading, hub and compilation of foreign code: nothing that a configuration has to name.
FORBIDDEN = ("torch.hub", "torch.load", "torch.jit", "torch.utils.cpp_extension", "torch.package", "torch.ops",
             "torch.classes", "torch.serialization", "monai.bundle", "monai.apps")


def targets_of(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(key, target)`` for every ``_target_`` in the plain containers of ``node``, at any depth."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node["_target_"]
        for name, child in node.items():
            yield from targets_of(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from targets_of(child, f"{key}[{index}]")


def refusal(target: Any, allow: Sequence[str] = ()) -> str | None:
    """Return why ``target`` may not be imported, or None where it may."""
    if not isinstance(target, str):
        return f"_target_ is {target!r}, expected the dotted name of a class or function"
    prefixes = (*PREFIXES, *(f"{prefix.rstrip('.')}." for prefix in allow))
    if not target.startswith(prefixes):
        near = hint(f"{target.split('.')[0]}.", prefixes).split(" (")[0]
        return (f"_target_ {target} is outside the allowed modules ({', '.join(prefixes)}){near}; "
                "modules of your own are allowed with --allow-target PREFIX")
    if any(target == name or target.startswith(f"{name}.") for name in FORBIDDEN):
        return f"_target_ {target} may load or run foreign code and is never allowed from a configuration"
    return None


def plain(node: Any) -> Any:
    """Return ``node`` as plain containers with every interpolation resolved; ``???`` stays.

    Raises:
        ConfigError: an interpolation cannot be resolved.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.explanation import explain

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
    (Hydra's ``_convert_: all``). Every ``_target_`` is compared with the allowed prefixes before anything is imported.

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
        reason = refusal(target, allow)
        if reason:
            raise ConfigError(f"{where or 'configuration'}: {reason}")
    return _build(content, key, kwargs)


def _build(content: Any, key: str, kwargs: dict[str, Any]) -> Any:
    import hydra.utils
    from hydra.errors import InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    from segexp.config.explanation import explain

    target = content.get("_target_", "") if isinstance(content, Mapping) else ""
    try:
        if not kwargs:
            return hydra.utils.instantiate(content, _convert_="all")
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
        if cause is not None and not isinstance(cause, TypeError | ValueError | ImportError | AttributeError):
            raise cause from error
        raise ConfigError(f"{_where(key, content, error)}: {_first(cause or error)}") from error
    except OmegaConfBaseException as error:
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
