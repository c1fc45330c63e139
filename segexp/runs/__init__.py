"""Runs: one experiment trained with one seed, in a directory that explains itself.

Importing this package is cheap; what needs Lightning is imported when it is first used.
"""

from importlib import import_module

HOME = {
    "Run": "directory",
    "find_run": "directory",
    "get_run": "directory",
    "list_runs": "directory",
    "locate_run": "directory",
    "run_hash": "identity",
    "semantic_config": "identity",
}
__all__ = list(HOME)


def __getattr__(name: str) -> object:
    """Import a public name's file when the name is first used."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
