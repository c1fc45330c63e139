"""What is read from file names and YAML alone, and the flags."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segexp.config import folder, hint, nearest, split_flags
from segexp.config.keys import keys_of, values_of
from segexp.config.resolvers import classes, register_resolvers
from segexp.errors import ConfigError
from tests.config.conftest import write_tree

MAPS = {"tissue": {0: "background", 1: "csf"}, "lesion": {0: "background", 5: "core", 7: "rim"}}


def test_groups_and_choices(mini: Path) -> None:
    assert folder.own_groups([mini]) == ["data", "data/tools", "experiment", "method", "method/targets", "network",
                                         "optimizer", "scale", "trainer"]
    assert folder.choices([mini], "experiment") == ["mini/all", "mini/one"]
    assert folder.choices([mini], "method") == ["mini"]
    assert folder.choices([mini], "scale") == ["demo", "paper"]
    assert folder.choices([mini], "nothing") == []
    assert set(folder.primaries([mini])) == {"train", "predict"}
    assert folder.named_groups([mini], "train") == ["data", "method", "trainer", "experiment", "scale"]
    assert folder.default_choice([mini], "train", "scale") == "paper"
    assert folder.default_choice([mini], "train", "experiment") is None


def test_folders_of_the_user_add_to_groups(mini: Path, tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "mine", {"network/own.yaml": "# My own.\nx: 1\n", "loss/own.yaml": "y: 1\n"})
    assert "loss" in folder.own_groups([mini, mine])
    assert folder.choices([mini, mine], "network") == ["linear", "own", "wide"]


def test_descriptions_skip_the_package_header(mini: Path) -> None:
    assert folder.description(mini / "experiment/mini/one.yaml") == "Row 2."
    assert folder.description(mini / "network/wide.yaml") == "A wider layer."
    (mini / "network/bare.yaml").write_text("a: 1 # not a description\n# nor this\n")
    assert folder.description(mini / "network/bare.yaml") == ""


def test_unreadable_yaml_gives_nothing(mini: Path) -> None:
    (mini / "network/broken.yaml").write_text("a: [1\nb")
    assert folder.load(mini / "network/broken.yaml") == {}


@pytest.mark.parametrize(("words", "current", "expected"), [
    ([], "network.", {"network.in_features=", "network.out_features=", "network.bias="}),
    ([], "data.r", {"data.root=", "data.derived=", "data.targets=", "data.label_maps.",
                     "data.agreement."}),
    ([], "data.agreement.between.", {"data.agreement.between.name="}),
    ([], "data.label_maps.", {"data.label_maps.tissue.", "data.label_maps.lesion."}),
    (["data=other"], "data.", {"data.root=", "data.label_maps."}),
    (["scale=demo"], "", {"name=", "seed=", "steps=", "paths.", "data.", "network.", "optimizer.", "method.",
                          "trainer.", "scale."}),
    # The file of a scale is named by two groups: `scale/${method}/${scale}@_global_`.
    (["scale=demo"], "data.roo", {"data.root=", "data.derived=", "data.targets=", "data.label_maps.",
                                  "data.agreement."}),
    (["scale=more"], "extra.", {"extra.deep="}),
    ([], "extra.", set()),
    ([], "nothing.", set()),
])
def test_keys_follow_the_defaults_lists(mini: Path, words: list[str], current: str, expected: set[str]) -> None:
    write_tree(mini, {"scale/more.yaml": "{}\n", "scale/mini/more.yaml": "# @package _global_\nextra:\n  deep: 1\n"})
    assert set(keys_of([mini], "train", words, current)) == expected


def test_values_listed_in_a_comment(mini: Path) -> None:
    assert values_of([mini], "predict", [], "device") == ["auto", "cpu"]
    assert values_of([mini], "predict", [], "run") == []
    assert values_of([mini], "train", [], "seed") == []


def test_values_with_explanations(mini: Path) -> None:
    (mini / "predict.yaml").write_text("a: x # x: this (one), and that; y: the other\nb: # nothing | here yet\n  a: 1\n"
                                       "c: u # u | v (learned) | {w: weight}\nd: 1 # of many; some are better\n")
    assert values_of([mini], "predict", [], "a") == ["x", "y"]
    assert values_of([mini], "predict", [], "b.a") == []
    assert values_of([mini], "predict", [], "c") == ["u", "v"]
    assert values_of([mini], "predict", [], "d") == []


def test_nearest_name_in_full_or_by_its_last_part() -> None:
    names = ["neuronet/nn_all", "neuronet/nn_tissue", "gpu"]
    assert nearest("nn_al", names) == "neuronet/nn_all"
    assert nearest("neuronet/nn_tisue", names) == "neuronet/nn_tissue"
    assert nearest("gppu", names) == "gpu"
    assert nearest("target", ["tag", "method/targets"]) == "method/targets"
    assert nearest("scale", ["other/scale", "scale"]) == "scale"
    assert nearest("xyz", names) is None
    assert hint("xyz", []) == ""
    assert "segexp list big shows all 20" in hint("xyz", map(str, range(20)), "segexp list big")


@pytest.mark.parametrize("targets", ["lesion", ["lesion"]])
def test_the_number_of_classes_of_targets(targets: object) -> None:
    assert classes(MAPS, targets) == {"lesion": 3}


def test_classes_keep_the_order_of_the_targets() -> None:
    assert list(classes(MAPS, ["lesion", "tissue"]).items()) == [("lesion", 3), ("tissue", 2)]


def test_the_structures_in_class_order() -> None:
    register_resolvers()
    cfg = OmegaConf.create({"maps": {"lesion": {7: "rim", 0: "background", 5: "core"}}, "targets": ["lesion"],
                            "structures": "${names:${maps},${targets}}"})
    assert OmegaConf.to_container(cfg, resolve=True)["structures"] == {"lesion": ["background", "core", "rim"]}


@pytest.mark.parametrize(("targets", "text"), [(["tisue"], "did you mean tissue?"), ([], "is empty"),
                                                 (None, "is empty")])
def test_targets_without_a_label_map(targets: object, text: str) -> None:
    with pytest.raises(ConfigError, match=r"method\.targets") as caught:
        classes(MAPS, targets)
    assert text in str(caught.value)


def test_a_range_of_integers() -> None:
    register_resolvers()
    cfg = OmegaConf.create({"values": "${range:41,44}"})
    assert OmegaConf.to_container(cfg, resolve=True) == {"values": [41, 42, 43]}


def test_flags_are_split_from_overrides() -> None:
    flags = split_flags(["a=1", "--config-dir", "x", "-m", "--allow-target=mylab.", "b=2", "--config-dir=y"])
    assert flags.overrides == ("a=1", "-m", "b=2")
    assert flags.config_dirs == ("x", "y")
    assert flags.allow == ("mylab.",)


@pytest.mark.parametrize("words", [["--config-dir"], ["--config-dir", "--allow-target", "x"], ["--allow-target="]])
def test_a_flag_without_its_value(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="needs a value"):
        split_flags(words)
