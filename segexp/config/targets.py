"""Which names a configuration may import, and importing them."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segexp.config.names import hint
from segexp.errors import ConfigError

PREFIXES = ("segexp.", "torch.", "pytorch_lightning.", "monai.", "torchvision.")
# torch reaches loading, hub and compilation of foreign code: nothing that a configuration has to name.
FORBIDDEN = ("torch.hub", "torch.load", "torch.jit", "torch.utils.cpp_extension", "torch.package", "torch.ops",
             "torch.classes", "torch.serialization", "monai.bundle", "monai.apps")
# Where the allowed packages take public names of theirs from.
RELATIVES = ("lightning_fabric", "lightning_utilities", "torchmetrics")


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
    if _forbidden(target):
        return f"_target_ {target} may load or run foreign code and is never allowed from a configuration"
    return None


def find(target: str, allow: Sequence[str] = ()) -> Any:
    """Import what a dotted name names; whether it may be imported at all is ``refusal``'s question.

    Raises:
        ConfigError: there is no such module or name (the message names the nearest one), it cannot be called, or an
            allowed module only passes on what belongs to another one (``torch.os.system``).
    """
    value = _locate(target)
    if not callable(value):
        raise ConfigError(f"{target} is a {type(value).__name__}, expected a class or a function")
    home = getattr(value, "__module__", None)  # None: functions of torch written in C++
    tops = {prefix.split(".")[0] for prefix in (*PREFIXES, *allow)} | set(RELATIVES)
    real = f"{home}.{getattr(value, '__qualname__', '')}"
    if home is not None and (home.split(".")[0] not in tops or _forbidden(real)):
        raise ConfigError(f"{target} is {real}, which is outside the allowed modules")
    return value


def _forbidden(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in FORBIDDEN)


def _locate(target: str) -> Any:
    import pkgutil
    from importlib import import_module

    parts = target.split(".")
    value, done = None, ""
    for index, part in enumerate(parts):
        name = f"{done}.{part}" if done else part
        if value is None or (inspect.ismodule(value) and part not in vars(value) and not hasattr(value, part)):
            try:
                value = import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise ConfigError(f"{target} cannot be imported: {error}") from error
                inside = [module.name for module in pkgutil.iter_modules(getattr(value, "__path__", None))]
                known = [*inside, *(getattr(value, "__all__", None) or _public(value))]
                near = hint(part, known).partition(" (")[0]
                raise ConfigError(f"{target}: {done or 'Python'} has no {part}{near}") from error
            except Exception as error:
                raise ConfigError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error
        elif hasattr(value, part):
            value = getattr(value, part)
        else:
            raise ConfigError(f"{target}: {done} has no {part}{hint(part, _public(value)).partition(' (')[0]}")
        done = ".".join(parts[: index + 1])
    return value


def _public(value: Any) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")] if value is not None else []
