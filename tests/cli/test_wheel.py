"""What is installed: the wheel carries the configuration and works away from the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
OUTSIDE = """
import sys
sys.path.insert(0, {place!r})
import segexp
assert segexp.__file__.startswith({place!r}), segexp.__file__
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=REPOSITORY,
                   check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(program: str, place: Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # -P: the current folder is not on the path, so nothing of the repository can be imported by accident.
    done = subprocess.run([sys.executable, "-P", "-c", OUTSIDE.format(place=str(place)) + program], cwd=cwd,
                          capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_lists_and_composes_elsewhere(installed: Path, tmp_path: Path) -> None:
    listed = run("from segexp.cli import main; sys.exit(main(['list', 'experiment']))", installed, tmp_path)
    assert "neuronet/nn_all" in listed
    composed = run("from segexp.config import compose, conf_dir; print(conf_dir()); "
                   "print(compose('predict', ['device=cpu']).device)", installed, tmp_path)
    assert composed.splitlines() == [str(installed / "segexp/conf"), "cpu"]
    assert list(tmp_path.iterdir()) == []


def test_it_holds_the_same_configuration_as_the_repository(installed: Path) -> None:
    ours = {file.relative_to(REPOSITORY / "conf"): file.read_bytes() for file in (REPOSITORY / "conf").rglob("*.yaml")}
    packed = {file.relative_to(installed / "segexp/conf"): file.read_bytes()
              for file in (installed / "segexp/conf").rglob("*.yaml")}
    assert packed == ours
    assert not (installed / "tests").exists()
