"""Our own interpolations, so that a fact is typed once and derived everywhere else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segexp.config.names import hint
from segexp.errors import ConfigError

MOST = 10_000  # integers of a range


def classes(label_maps: Mapping[str, Mapping[int, str]] | None, targets: str | Sequence[str] | None) -> dict[str, int]:
    """``${classes:${data.label_maps},${method.targets}}``: the number of classes of each chosen target.

    Args:
        label_maps: target -> (raw value -> structure).
        targets: the chosen targets, or the name of one.

    Returns:
        ``{target: K}`` in the order of ``targets``.

    Raises:
        ConfigError: a target has no label map, or nothing is chosen.
    """
    return {target: len(structures) for target, structures in _chosen(label_maps, targets).items()}


def names(label_maps: Mapping[str, Mapping[int, str]] | None,
          targets: str | Sequence[str] | None) -> dict[str, list[str]]:
    """``${names:${data.label_maps},${method.targets}}``: the structures of each chosen target, in class order.

    Arguments and errors are those of ``classes``; returns ``{target: [structure of class 0, of class 1, ...]}``.
    """
    return {target: [structures[value] for value in sorted(structures)]
            for target, structures in _chosen(label_maps, targets).items()}


def _chosen(label_maps: Mapping[str, Mapping[int, str]] | None,
            targets: str | Sequence[str] | None) -> dict[str, Mapping[int, str]]:
    chosen = [targets] if isinstance(targets, str) else list(targets or [])
    if not chosen:
        raise ConfigError("method.targets is empty: name at least one target, as in method.targets=[fsl_fast]")
    known = label_maps or {}
    for target in chosen:
        if target not in known:
            raise ConfigError(f"method.targets: the data has no label map {target!r}{hint(str(target), known)}")
    return {target: known[target] for target in chosen}


def integers(start: int, stop: int) -> list[int]:
    """``${range:41,139}``: the integers from ``start`` up to, not including, ``stop``; at most `MOST` of them."""
    if not 0 <= stop - start <= MOST:
        raise ConfigError(f"${{range:{start},{stop}}}: expected two whole numbers, the second larger by {MOST} at most")
    return list(range(start, stop))


REFUSED = {
    "oc.env": "reads an environment variable, which could write a secret into a run's record; let the shell expand "
              "it: data.root=$DATA",
    "oc.create": "makes configuration out of text; write it as configuration",
    "oc.decode": "makes configuration out of text; write the value itself",
}
"""Resolvers of OmegaConf that a configuration, which a stranger may have written, cannot use -> what to do instead."""


def refused(name: str) -> Callable[..., Any]:
    """Return a resolver that raises a ConfigError with the reason."""

    def resolve(*words: Any) -> Any:
        raise ConfigError(f"${{{name}:...}} {REFUSED[name]}")

    return resolve


def register_resolvers() -> None:
    """Register our resolvers with OmegaConf, and take away what `REFUSED` names; any number of times."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("classes", classes, replace=True)
    OmegaConf.register_new_resolver("names", names, replace=True)
    OmegaConf.register_new_resolver("range", integers, replace=True)
    for name in REFUSED:
        OmegaConf.register_new_resolver(name, refused(name), replace=True)
