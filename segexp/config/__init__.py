"""The configuration: where it lies, how it is composed, how objects are made from it, what is checked before.

Importing this package is cheap: Hydra and OmegaConf are imported by the first call that needs them.
"""

from importlib import import_module

# Files have other names than the functions in them: importing a file would otherwise hide its function.
HOME = {
    "Flags": "flags",
    "Problem": "checks",
    "check": "checks",
    "compose": "composition",
    "conf_dir": "paths",
    "explain": "explanation",
    "hint": "names",
    "instantiate": "objects",
    "nearest": "names",
    "origins": "sources",
    "register_resolvers": "resolvers",
    "split_flags": "flags",
}
__all__ = list(HOME)


def __getattr__(name: str) -> object:
    """Import a public name's file when the name is first used."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
