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
def groups_of(primary: str, *overrides: str) -> tuple[str, ...]:
    """Return the groups that can be chosen on the command line of a primary configuration with some overrides."""
    import hydra

    with initialised(FOLDERS):
        choices = hydra.compose(primary, list(overrides), return_hydra_config=True).hydra.runtime.choices
    return tuple(name for name in choices if "@" not in name and not name.startswith("hydra/"))


CHOICES = [(group, choice) for group in folder.own_groups(FOLDERS) if group != "experiment"
           for choice in folder.choices(FOLDERS, group)]
"""Every choice of every group; experiments have a test of their own."""


def contexts_of(primary: str, group: str) -> list[tuple[str, ...]]:
    """Return the overrides with which a group can be chosen: none, or the experiments that bring it in."""
    contexts = [(), *((f"experiment={experiment}",) for experiment in EXPERIMENTS if primary == "train")]
    return [context for context in contexts if group in groups_of(primary, *context)]


def problems(primary: str, *overrides: str, asks: bool = False) -> list[str]:
    return found_in(compose(primary, overrides), primary, asks)


def found_in(cfg: DictConfig, primary: str = "train", asks: bool = False) -> list[str]:
    # What only the user can know (`run: ???` of predict) may be missing.
    found = [one for one in check(cfg) if not (asks or primary != "train") or "has no value" not in one.message]
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


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", folder.choices(FOLDERS, "method"))
def test_every_method_at_every_scale(method: str, scale: str) -> None:
    assert problems("train", f"method={method}", f"scale={scale}") == []


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("data", folder.choices(FOLDERS, "data"))
def test_every_phantom(data: str, scale: str) -> None:
    assert problems("phantom", f"data={data}", f"scale={scale}") == []


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_every_choice_of_every_group(group: str, choice: str) -> None:
    # A group that only other files pull in (`data/label_map`) is covered by the test of reachability.
    asks = "???" in folder.load(folder.files(FOLDERS, group)[choice]).values()
    for primary in PRIMARIES:
        contexts = contexts_of(primary, group)
        found = problems(primary, *contexts[0], f"{group}={choice}", asks=asks) if contexts else []
        # A data set or a step of another method's inference fits there, and only there.
        fits = not found or any(not problems(primary, *context, f"{group}={choice}", asks=asks)
                                for context in contexts[1:])
        assert fits, found


def test_every_file_is_reachable() -> None:
    words = {(primary,) for primary in PRIMARIES}
    words |= {("train", f"experiment={experiment}") for experiment in EXPERIMENTS}
    words |= {(primary, *context, f"{group}={choice}") for group, choice in CHOICES for primary in PRIMARIES
              for context in contexts_of(primary, group)[:1]}
    # Settings that a scale has for one method, network or loss, and the phantoms.
    words |= {("train", f"{group}={choice}", f"scale={scale}") for group, choice in CHOICES
              if group in ("method", "network", "loss") for scale in SCALES}
    words |= {("phantom", f"data={data}", f"scale={scale}") for data in folder.choices(FOLDERS, "data")
              for scale in SCALES}
    words |= {("train", f"hydra/launcher={launcher}") for launcher in folder.files(FOLDERS, "hydra/launcher")}
    used = {file for primary, *overrides in words for file in origins(primary, overrides).values()}
    files = {f"conf/{file.relative_to(FOLDERS[0]).as_posix()}" for file in FOLDERS[0].rglob("*.yaml")}
    # A choice that is only a defaults list or `{}` sets no key of its own.
    empty = {f"conf/{file.relative_to(FOLDERS[0]).as_posix()}" for file in FOLDERS[0].rglob("*.yaml")
             if not set(folder.load(file)) - {"defaults"}}
    # Tables are declarations of their own, read by segexp.tables and not composed.
    tables = {file for file in files if file.startswith("conf/table/")}
    assert files - used - empty - tables == set()
