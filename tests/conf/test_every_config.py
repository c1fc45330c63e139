"""Every file of `conf/` composes, binds and is reachable; new files are covered as soon as they are there."""

from functools import cache

import pytest
from omegaconf import DictConfig

from segexp.config import check, compose, conf_dir, folder
from segexp.config.composition import initialised
from segexp.config.sources import origins

FOLDERS = [conf_dir()]
EXPERIMENTS = folder.choices(FOLDERS, "experiment")
SCALES = folder.choices(FOLDERS, "scale")
PRIMARIES = sorted(folder.primaries(FOLDERS))


@cache
def groups_of(primary: str) -> tuple[str, ...]:
    """Return the groups that can be chosen on the command line of a primary configuration."""
    import hydra

    with initialised(FOLDERS):
        choices = hydra.compose(primary, return_hydra_config=True).hydra.runtime.choices
    return tuple(name for name in choices if "@" not in name and not name.startswith("hydra/"))


CHOICES = [(group, choice) for group in folder.own_groups(FOLDERS) if group != "experiment"
           for choice in folder.choices(FOLDERS, group)]
"""Every choice of every group; experiments have a test of their own."""


def users_of(group: str) -> list[str]:
    """Return the primary configurations on whose command line a group can be chosen."""
    return [primary for primary in PRIMARIES if group in groups_of(primary)]


def problems(primary: str, *overrides: str) -> list[str]:
    return found_in(compose(primary, overrides), primary)


def found_in(cfg: DictConfig, primary: str = "train") -> list[str]:
    # What only the user can know (`run: ???` of predict) may be missing.
    found = [one for one in check(cfg) if primary == "train" or "has no value" not in one.message]
    return [str(one) for one in found]


def test_there_is_something_to_check() -> None:
    assert {"neuronet/nn_all", "neuronet/nn_tissue"} <= set(EXPERIMENTS)
    assert SCALES == ["demo", "paper", "smoke"]
    assert "train" in PRIMARIES


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_at_every_scale(experiment: str, scale: str) -> None:
    cfg = compose("train", [f"experiment={experiment}", f"scale={scale}"])
    assert found_in(cfg) == []
    assert cfg.scale.name == scale
    # One row, one file: the name of a run is the name of its experiment.
    assert cfg.name == experiment.rpartition("/")[2]


@pytest.mark.parametrize("primary", PRIMARIES)
def test_every_primary_alone(primary: str) -> None:
    assert problems(primary) == []


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_every_choice_of_every_group(group: str, choice: str) -> None:
    # A group that only other files pull in (`data/label_map`) is covered by the test of reachability.
    for primary in users_of(group):
        assert problems(primary, f"{group}={choice}") == []


def test_every_file_is_reachable() -> None:
    used = set()
    for primary in PRIMARIES:
        used |= set(origins(primary).values())
    for experiment in EXPERIMENTS:
        used |= set(origins("train", [f"experiment={experiment}"]).values())
    for group, choice in CHOICES:
        for primary in users_of(group):
            used |= set(origins(primary, [f"{group}={choice}"]).values())
    files = {f"conf/{file.relative_to(FOLDERS[0]).as_posix()}" for file in FOLDERS[0].rglob("*.yaml")}
    # A choice that is only a defaults list or `{}` sets no key of its own.
    empty = {f"conf/{file.relative_to(FOLDERS[0]).as_posix()}" for file in FOLDERS[0].rglob("*.yaml")
             if not set(folder.load(file)) - {"defaults"}}
    # Tables are declarations of their own, read by segexp.tables and not composed.
    tables = {file for file in files if file.startswith("conf/table/")}
    assert files - used - empty - tables == set()
