"""The shape of the repository: what lies at its top, which room may import which, how long a file may be."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "segexp"
FILES = sorted(PACKAGE.rglob("*.py"))
TOP = {"pyproject.toml", "README.md", "Makefile", "requirements.lock", ".ci", ".gitignore", ".gitattributes", "LICENSE",
       "conf", "segexp", "tests", "notebooks", "outputs"}
LONGEST = {"segexp": 320, ".ci": 320, "tests": 400}

BASE = {"errors", "redaction", "files", "console", "tensors"}
ALGORITHMS = {"data", "losses", "metrics", "inference"}
ROOMS = {
    "errors": set(),
    "redaction": set(),
    "files": {"errors", "redaction"},
    "tensors": {"errors", "files"},
    "console": {"errors", "redaction"},
    "config": BASE,
    "phantoms": BASE,
    "metrics": BASE,
    "inference": {"errors", "data.resizing"},  # slices are resized as in training
    "losses": {"errors", "inference", "data.labelmap"},  # the value of voxels that have no label
    "data": BASE | {"config"},
    "methods": BASE | ALGORITHMS | {"config"},
    "runs": BASE | ALGORITHMS | {"config", "machine", "methods", "predictions", "reports"},
    "predictions": BASE | ALGORITHMS | {"config", "methods", "runs"},
    "reports": BASE | ALGORITHMS | {"config"},
    "sweeps": BASE | {"config", "runs"},
    "search": BASE | {"config", "runs", "sweeps"},
    "exports": BASE | {"config", "data", "inference", "methods", "runs"},
    "machine": BASE,
    "_plugins": set(),
    "tables": BASE | {"config", "data", "metrics", "runs", "reports", "sweeps"},
    "cli": BASE | {"commands", "config"},
    "commands": BASE | ALGORITHMS | {"cli", "config", "methods", "runs", "predictions", "reports", "tables",
                                     "phantoms", "sweeps", "search", "exports", "machine"},
}
"""Room -> the other rooms it may import. Imports run one way: commands, then runs and tables, methods, algorithms."""

LIGHTNING_HYDRA = {"pytorch_lightning", "lightning", "hydra", "omegaconf"}
WRITING = {"segexp.files", "segexp.console", "segexp.config"}
FORBIDDEN = {
    "losses": LIGHTNING_HYDRA | WRITING,
    "inference": LIGHTNING_HYDRA | WRITING,
    "metrics": LIGHTNING_HYDRA | {"torch", "monai"},
    "phantoms": LIGHTNING_HYDRA | {"torch", "monai", "torchvision"},
    "config": {"pytorch_lightning", "lightning", "torch", "monai", "pandas"},
}
"""Room -> modules that nothing in it may import."""


def imports(file: Path) -> Iterator[str]:
    """Yield the full names that a file imports, also inside functions, but not those for type checkers only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If)
                   and getattr(block.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def inside(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def name_of(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def test_only_the_agreed_names_lie_at_the_top() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    tracked = done.stdout.splitlines()
    assert {path.split("/")[0] for path in tracked} <= TOP
    assert [path for path in tracked if path.startswith("outputs/")] == ["outputs/README.md"]


def test_every_room_is_known() -> None:
    assert {room_of(file) for file in FILES} - {"__init__", "__main__"} <= set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    room = room_of(file)
    if room in ("__init__", "__main__"):
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "segexp" and len(parts) > 1 and parts[1] not in ("__version__", room):
            known = ROOMS[room] & {parts[1], ".".join(parts[1:3])}
            assert known, f"{name_of(file)} imports {name}: {room} must not know {parts[1]}"
        assert not inside(name, FORBIDDEN.get(room, set())), f"{name_of(file)} imports {name}"


MODULES = ("__init__.py", "adversarial.py", "module.py", "segmentation.py")


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) == "methods" and file.name not in MODULES],
                         ids=name_of)
def test_networks_know_nothing_of_lightning_hydra_or_files(file: Path) -> None:
    for name in imports(file):
        assert not inside(name, LIGHTNING_HYDRA | WRITING), f"{name_of(file)} imports {name}"


@pytest.mark.parametrize("folder", LONGEST)
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines())
               for file in (REPOSITORY / folder).rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST[folder]} == {}
