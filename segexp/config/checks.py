"""What is checked before anything starts: targets import, signatures bind, values resolve, rooms agree."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segexp.config.names import hint
from segexp.config.sources import origin
from segexp.config.targets import find, refusal
from segexp.errors import ConfigError
from segexp.redaction import secret_in

SPECIAL = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
COMPLETED_AT_RUN_TIME = ("method", "data", "callbacks", "logger", "trainer")
"""Top-level nodes whose objects get further arguments (the run's folder, the built network) from the run."""
MAY_MISS = ("data.root",)
NAME = re.compile(r"\w(?!.*\.\.)[\w.+-]{0,99}")
LONGEST = 100
PARTS = ("method", "network", "loss", "optimizer", "scheduler", "sampling", "inference", "metrics", "data", "trainer",
         "callbacks", "logger", "paths", "scale")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        key: dotted key of the value.
        message: what is wrong, what was expected, the nearest name.
        file: the YAML that set it, ``command line``, or empty where it is not known.
    """

    key: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)


def check(cfg: Any, *, origins: Mapping[str, str] | None = None, allow: Sequence[str] = (),
          may_miss: Sequence[str] = MAY_MISS, config_dirs: Sequence[str | Path] = ()) -> list[Problem]:
    """Return everything that is wrong with a composed configuration; nothing is instantiated.

    Args:
        cfg: what ``compose`` returned, or a plain dict.
        origins: key -> file, from ``segexp.config.origins``, for the messages.
        allow: module prefixes of the user that targets may name.
        may_miss: keys that may still be ``???``.
        config_dirs: folders of the user, for the names of scales.

    Returns:
        Problems in the order of the keys; empty where all is well.
    """
    from omegaconf import OmegaConf

    from segexp.config.resolvers import register_resolvers

    register_resolvers()
    cfg = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(cfg)
    found = [*unresolved(cfg, may_miss), *unbound(cfg, allow), *disagreements(cfg, config_dirs)]
    return [Problem(key, message, origin(origins, key)) for key, message in dict.fromkeys(found)]


def unresolved(cfg: Any, may_miss: Sequence[str] = MAY_MISS) -> Iterator[tuple[str, str]]:
    """Yield ``(key, message)`` for interpolations that do not resolve and values that are missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    from segexp.config.explanation import explain

    keys = list(cfg) if OmegaConf.is_dict(cfg) else range(len(cfg))
    for name in keys:
        node = cfg._get_node(name)
        key = cfg._get_full_key(name)
        if node is None or node._is_none():
            continue
        if node._is_missing():
            if key not in may_miss:
                yield key, f"has no value; give one: {key}=..."
        elif node._is_interpolation():
            try:
                cfg[name]
            except InterpolationToMissingValueError:
                continue  # reported where the value itself is missing
            except OmegaConfBaseException as error:
                yield key, str(explain(error, key=key)).removeprefix(f"{key}: ")
        elif OmegaConf.is_config(node):
            yield from unresolved(node, may_miss)


def unbound(cfg: Any, allow: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield ``(key, message)`` for targets that do not import and arguments that they do not take."""
    from omegaconf import OmegaConf

    for key, node in _nodes_with_target(OmegaConf.to_container(cfg, resolve=False)):
        target = node["_target_"]
        if isinstance(target, str) and "${" in target:
            try:
                target = OmegaConf.select(cfg, f"{key}._target_")
            except Exception:  # an interpolation that does not resolve: reported by `unresolved`
                continue
        reason = refusal(target, allow, key)
        if reason:
            yield f"{key}._target_", reason.removeprefix("_target_ ")
            continue
        try:
            function = find(target, allow)
        except ConfigError as error:
            yield f"{key}._target_", str(error)
            continue
        yield from _binding(key, node, function)


def _nodes_with_target(node: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from _nodes_with_target(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _nodes_with_target(child, f"{key}[{index}]")


def _binding(key: str, node: Mapping[str, Any], function: Any) -> Iterator[tuple[str, str]]:
    """Yield what the signature of ``function`` refuses in ``node`` and what it misses."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some built-in classes have none
        return
    name = node["_target_"].rpartition(".")[2]
    kinds = inspect.Parameter
    for filled in list(parameters)[: len(node.get("_args_") or ())]:
        parameters.pop(filled)
    by_name = {word: one for word, one in parameters.items() if one.kind in (kinds.POSITIONAL_OR_KEYWORD,
                                                                               kinds.KEYWORD_ONLY)}
    given = [word for word in node if word not in SPECIAL]
    if not any(one.kind is kinds.VAR_KEYWORD for one in parameters.values()):
        for word in given:
            if word not in by_name:
                yield f"{key}.{word}", f"{name} takes no {word}{hint(str(word), by_name)}"
    if node.get("_partial_") or key.split(".")[0] in COMPLETED_AT_RUN_TIME:
        return
    for word, one in by_name.items():
        if one.default is kinds.empty and word not in given:
            yield f"{key}.{word}", f"{name} needs {word}, which is not set"


def disagreements(cfg: Any, config_dirs: Sequence[str | Path] = ()) -> Iterator[tuple[str, str]]:
    """Yield ``(key, message)`` where two rooms of a configuration contradict each other, or it holds secrets."""
    from omegaconf import OmegaConf

    label_maps, targets = _get(cfg, "data.label_maps"), _get(cfg, "method.targets")
    chosen = [targets] if isinstance(targets, str) else list(targets or [])
    if isinstance(label_maps, Mapping):
        for target in chosen:
            if target not in label_maps:
                yield "method.targets", f"the data has no label map {target!r}{hint(str(target), label_maps)}"
    if len(set(chosen)) < len(chosen):
        yield "method.targets", f"names a target twice: {', '.join(map(str, chosen))}"
    counts = _get(cfg, "network.targets")
    if isinstance(counts, Mapping) and isinstance(label_maps, Mapping) and set(chosen) <= set(label_maps):
        expected = {target: len(label_maps[target]) for target in chosen}
        if dict(counts) != expected:
            yield "network.targets", f"is {dict(counts)}, but targets and label maps give {expected}"
    yield from shapes(cfg)
    yield from places(cfg)
    found = secret_in(OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg)
    if found:
        yield found.partition(" ")[0], f"{found.partition(' ')[2]}; configurations are recorded with every run"
    yield from _crop_size(_get(cfg, "sampling.size"), _get(cfg, "network.filters"))
    scale = _get(cfg, "scale.name")
    if scale is not None:
        from segexp.config import folder
        from segexp.config.paths import search_dirs

        known = folder.choices(search_dirs(config_dirs), "scale")
        if scale not in known:
            yield "scale.name", f"there is no scale {scale!r}{hint(str(scale), known)}; choose one with scale=NAME"


def shapes(cfg: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(key, message)`` for parts of a training configuration that are no mappings."""
    for key in PARTS:
        value = _get(cfg, key)
        if value is not None and not isinstance(value, Mapping):
            yield key, f"is {str(value)[:80]!r}, expected keys and values"


def places(cfg: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(key, message)`` where a training would write outside its own directory below ``paths.outputs``."""
    name, seed, run = _get(cfg, "name"), _get(cfg, "seed"), _get(cfg, "paths.run")
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        yield "name", (f"is {str(name)[:80]!r}, expected letters, digits, full stops, - and _, {LONGEST} at most: it "
                       "names a folder")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        yield "seed", f"is {str(seed)[:80]!r}, expected a whole number"
    if run is not None and not Path(str(run)).resolve().is_relative_to(Path(str(_get(cfg, "paths.outputs"))).resolve()):
        yield "paths.run", "lies outside paths.outputs; it is filled in when the run starts"
    for group in ("callbacks", "logger"):
        parts = _get(cfg, group)
        for key, part in parts.items() if isinstance(parts, Mapping) else ():
            folder = part.get("folder") if isinstance(part, Mapping) else None
            if folder is not None and folder != run:
                yield f"{group}.{key}.folder", "is not the run's own directory; leave it at ${paths.run}"


def _crop_size(size: Any, filters: Any) -> Iterator[tuple[str, str]]:
    if size is None or not isinstance(filters, Sequence) or isinstance(filters, str) or not filters:
        return
    stride = 2 ** (len(filters) - 1)
    for edge in size if isinstance(size, Sequence) and not isinstance(size, str) else [size]:
        if not isinstance(edge, int) or edge <= 0 or edge % stride:
            halvings = len(filters) - 1
            yield "sampling.size", f"is {size}, expected multiples of {stride}: the network halves {halvings} times"
            return


def _get(cfg: Any, key: str) -> Any:
    """Return a resolved value as plain containers; None where it is missing or does not resolve."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return None
