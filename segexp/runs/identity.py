"""Which configurations mean the same run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEMANTIC = ("method", "network", "loss", "optimizer", "scheduler", "sampling", "inference", "metrics",
            "data", "trainer", "steps", "seed", "tag")
"""Top-level keys that change what a run computes. Paths, loggers, callbacks and the name do not."""

LOCAL = {
    # Where the data lie and how they are read here; what they hold is compared by their fingerprint.
    "data": ("root", "layout", "layouts", "cache", "workers"),
    # What this machine has; precision, clipping and accumulation stay, for they change the numbers.
    "trainer": ("_target_", "accelerator", "devices", "num_nodes", "strategy", "log_every_n_steps", "benchmark",
                "num_sanity_val_steps", "profiler"),
}


def semantic_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plain, resolved configuration that decides what a run computes."""
    kept = {key: config[key] for key in SEMANTIC if key in config}
    for key, local in LOCAL.items():
        if isinstance(kept.get(key), Mapping):
            kept[key] = {name: value for name, value in kept[key].items()
                         if name not in local and not name.endswith("_root")}
    return kept


def canonical(value: Any) -> Any:
    """Return ``value`` so that equal meanings are equal JSON: 1.0 and 1, a tuple and a list, keys as text."""
    if isinstance(value, Mapping):
        return {str(key): canonical(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(child) for child in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def run_hash(config: Any) -> str:
    """Return eight hexadecimal digits that name what a configuration computes.

    Args:
        config: a composed configuration, or the plain dict of its content.

    Raises:
        ConfigError: an interpolation of the configuration cannot be resolved.

    """
    from segexp.config.objects import plain

    text = json.dumps(canonical(semantic_config(plain(config))), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
