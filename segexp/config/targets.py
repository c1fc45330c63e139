"""Which names a configuration may name as `_target_`, and importing them: everything else is refused.

A configuration may be written by a stranger. What it may name:

* public classes of the rooms in `ROOMS`, by the module that holds or exports them (``segexp.losses.Dice``);
* callbacks of ``segexp.runs`` below ``callbacks``;
* the functions in `FUNCTIONS`, each only below its key: they write files or wait for arguments of the run;
* the names of other packages in `FOREIGN`, which are those that the shipped configuration names;
* what lies below a prefix that the user gave on the command line (``--allow-target mylab.``).

A name that a module of ours merely imported (``segexp.files.os.system``) is none of them.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from segexp.config.names import hint
from segexp.errors import ConfigError

ROOMS = ("data", "inference", "losses", "methods", "metrics")
CALLBACKS = "callbacks"
FUNCTIONS = {
    "segexp.methods.kidney_ppm.multistep": "scheduler",
    "segexp.phantoms.cain.write": "phantom",
    "segexp.phantoms.kidney_cta.write": "phantom",
    "segexp.phantoms.ukbiobank.write": "phantom",
    "segexp.phantoms.wmh.write": "phantom",
    "segexp.runs.loggers.csv": "logger",
    "segexp.runs.loggers.tensorboard": "logger",
    "segexp.runs.loggers.wandb": "logger",
    "segexp.runs.ranks.ddp": "trainer",
}
"""Functions of ours -> the key of the configuration below which they may be named."""
FOREIGN = (
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.LearningRateMonitor",
    "torch.optim.Adam",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.lr_scheduler.PolynomialLR",
)
"""Names of other packages in the shipped configuration: all of them, and no other."""
FORBIDDEN = ("torch.hub", "torch.load", "torch.jit", "torch.utils.cpp_extension", "torch.package", "torch.ops",
             "torch.classes", "torch.serialization", "monai.bundle", "monai.apps")
"""What may load or run foreign code: refused even below a prefix of the user."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
LONGEST = 200  # characters of a dotted name


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


def refusal(target: Any, allow: Sequence[str] = (), key: str = "") -> str | None:
    """Return why ``target`` may not be named, or None where it may; nothing is imported.

    Args:
        target: the value of a ``_target_``.
        allow: prefixes of the user, from ``--allow-target``. A configuration cannot extend them itself.
        key: the full key of the node that names it, such as ``logger.csv``; empty where it is not known.
    """
    if not isinstance(target, str):
        return f"_target_ is {_short(target)}, expected the dotted name of a class or function"
    if len(target) > LONGEST or not DOTTED.fullmatch(target):
        return f"_target_ {_short(target)} is not a dotted name such as segexp.losses.Dice"
    if _below(target, FORBIDDEN):
        return f"_target_ {target} may load or run foreign code and is never allowed from a configuration"
    if target in FOREIGN or _below(target, allow):
        return None
    if not target.startswith("segexp."):
        beside = [name for name in FOREIGN if name.rpartition(".")[0] == target.rpartition(".")[0]]
        near = hint(target, beside).split(" (")[0]
        return (f"_target_ {target} is outside the allowed modules (segexp, and the few names that the shipped "
                f"configuration uses){near}; other modules are allowed on the command line: "
                f"--allow-target {target.rpartition('.')[0]}")
    top = re.split(r"[.\[]", key)[0]
    if target in FUNCTIONS:
        home = FUNCTIONS[target]
        return None if top == home else f"_target_ {target} may only be named below {home}"
    if any(part.startswith("_") for part in target.split(".")):
        return f"_target_ {target} is private"
    room = target.split(".")[1]
    if room in ROOMS or (room == "runs" and top == CALLBACKS):
        return None
    return (f"_target_ {target} is outside the allowed modules; a configuration may name classes of "
            f"{', '.join(f'segexp.{one}' for one in ROOMS)}, and callbacks of segexp.runs below callbacks")


def find(target: str, allow: Sequence[str] = ()) -> Any:
    """Import what a dotted name names; whether it may be named at all is ``refusal``'s question.

    Raises:
        ConfigError: there is no such module or name (the message names the nearest one), it cannot be called, it is
            no class where a class is expected, or an allowed module only passes on what belongs to another one.
    """
    if target in FOREIGN or (target in FUNCTIONS and not _below(target, allow)):
        return _locate(target)
    if _below(target, allow):
        return _of_the_user(target, _locate(target), allow)
    value = _locate(target, attributes=1)
    home = getattr(value, "__module__", "") or ""
    room = target.split(".")[1]
    if not inspect.isclass(value):
        raise ConfigError(f"{target} is a {type(value).__name__}, expected a class")
    if not home.startswith(f"segexp.{room}.") and home != f"segexp.{room}":
        raise ConfigError(f"{target} is {home}.{value.__qualname__}, which is outside the allowed modules")
    # By name: this room does without Lightning.
    bases = {f"{base.__module__.split('.')[0]}.{base.__name__}" for base in value.__mro__}
    if room == "runs" and "pytorch_lightning.Callback" not in bases:
        raise ConfigError(f"{target} is no callback of Lightning, the only classes of segexp.runs that may be named")
    return value


def _of_the_user(target: str, value: Any, allow: Sequence[str]) -> Any:
    if not callable(value):
        raise ConfigError(f"{target} is a {type(value).__name__}, expected a class or a function")
    real = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', '')}"
    if not _below(real, allow) or _below(real, FORBIDDEN):
        raise ConfigError(f"{target} is {real}, which is outside the allowed modules")
    return value


def _below(name: str, prefixes: Sequence[str]) -> bool:
    tops = [prefix.rstrip(".") for prefix in prefixes]
    return any(top and (name == top or name.startswith(f"{top}.")) for top in tops)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _locate(target: str, attributes: int = 0) -> Any:
    """Import ``target``; with ``attributes`` the parts before the last so many are modules, no names in a module."""
    import pkgutil

    parts = target.split(".")
    value, done = None, ""
    for index, part in enumerate(parts):
        name = f"{done}.{part}" if done else part
        is_module = bool(attributes) and index < len(parts) - attributes
        if value is None or is_module or (inspect.ismodule(value) and not hasattr(value, part)):
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
