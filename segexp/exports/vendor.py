"""Copies of the package's own source that run without the package: what a module imports, and what that imports."""

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from segexp.errors import ConfigError

PACKAGE = "segexp"
ALONE = {"hydra", "omegaconf", "pytorch_lightning", "lightning"}
"""What no copied module may need: copies are for places where only torch, MONAI and numpy are."""


def copied(modules: Iterable[str], folder: Path, into: str) -> list[str]:
    """Copy modules and what they import of the package to ``folder``, and return the names of all of them.

    Args:
        modules: full names, such as ``segexp.inference.whole_volume``.
        folder: where the copies go; ``segexp.a.b`` becomes ``folder/a/b.py``.
        into: the name that ``segexp`` is imported as there, such as ``scripts.segexp``.

    Raises:
        ConfigError: a module needs something that a copy cannot have.
    """
    names = sorted(closure(modules))
    for name in names:
        source = file_of(name).read_text(encoding="utf-8")
        path = folder.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if file_of(name).name == "__init__.py" else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(rf"(?m)^(\s*(?:from|import) ){PACKAGE}(?=[. ])", rf"\g<1>{into}", source),
                        encoding="utf-8")
    for path in [folder, *(child for child in folder.rglob("*") if child.is_dir())]:
        init = path / "__init__.py"
        if not init.exists():
            init.write_text('"""Copied from segexp."""\n', encoding="utf-8")
    return names


def closure(modules: Iterable[str]) -> set[str]:
    """Return the names of modules and of all modules of the package that they import."""
    waiting, found = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += imported(name)
    return found


def imported(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports; what it imports for type checkers only is left out."""
    tree = ast.parse(file_of(name).read_text(encoding="utf-8"))
    typing_only = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If)
                   and getattr(block.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in typing_only or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        for module in modules:
            if module.split(".")[0] in ALONE:
                raise ConfigError(f"{name} imports {module}: it cannot be copied into a bundle")
            if module.split(".")[0] != PACKAGE:
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            children = [f"{module}.{child}" for child in names if is_module(f"{module}.{child}")]
            yield from children
            if len(children) < len(names) or not names:
                yield module


def is_module(name: str) -> bool:
    """Say whether a name below a package is a module of its own."""
    parent, last = file_of(name.rpartition(".")[0]), name.rpartition(".")[2]
    if parent.name != "__init__.py":
        return False
    parent = parent.parent
    return (parent / f"{last}.py").is_file() or (parent / last / "__init__.py").is_file()


def file_of(name: str) -> Path:
    """Return the file of a module.

    Raises:
        ConfigError: there is no such module.
    """
    spec = find_spec(name)
    if spec is None or not spec.origin:
        raise ConfigError(f"there is no module {name}")
    return Path(spec.origin)
