"""Composition, and what is said instead of Hydra's exceptions."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segexp.config import compose
from segexp.config.composition import compose_from
from segexp.config.paths import conf_dir, search_dirs
from segexp.errors import ConfigError
from tests.config.conftest import write_tree


def message(folders: list[Path], *overrides: str, primary: str = "train") -> str:
    with pytest.raises(ConfigError) as caught:
        compose_from(folders, primary, overrides)
    return str(caught.value)


def test_defaults_follow_the_order_of_precedence(mini: Path) -> None:
    plain = compose_from([mini], "train")
    assert (plain.name, plain.steps, plain.scale.name) == ("mini", 10, "paper")
    demo = compose_from([mini], "train", ["experiment=mini/one", "scale=demo"])
    assert (demo.name, demo.steps, demo.data.root) == ("one", 5, "outputs/phantoms")
    assert demo.method.targets == "tissue"
    last = compose_from([mini], "train", ["experiment=mini/one", "scale=demo", "steps=7", "network=wide"])
    assert (last.steps, last.network.out_features, last.network.in_features) == (7, 64, 3)


def test_missing_values_stay_and_hydra_is_gone(mini: Path) -> None:
    cfg = compose_from([mini], "train")
    assert OmegaConf.is_missing(cfg.data, "root")
    assert "hydra" not in cfg
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert raw["data"]["derived"] == "${data.root}/derived"
    assert raw["name"] == "mini"


def test_integer_keys_stay_integers(mini: Path) -> None:
    labels = OmegaConf.to_container(compose_from([mini], "train").data.label_maps)
    assert labels["lesion"] == {0: "background", 7: "lesion"}


def test_composing_inside_a_composition_leaves_hydra_as_it_was(mini: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(config_dir=str(mini), version_base="1.3"):
        compose_from([mini], "train", ["seed=2"])
        assert hydra_compose("predict").device == "auto"


def test_a_folder_of_the_user_adds_choices_and_does_not_replace_shipped_ones(mini: Path, tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "it's mine, all", {
        "network/own.yaml": "# Mine.\n_target_: torch.nn.Linear\nin_features: 1\nout_features: 1\n",
        "network/wide.yaml": "out_features: -1\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /network: own\nname: mine\n",
    })
    cfg = compose_from([mini, mine], "train", ["experiment=mine"])
    assert (cfg.name, cfg.network.in_features) == ("mine", 1)
    assert compose_from([mini, mine], "train", ["network=wide"]).network.out_features == 64


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config-dir .*nowhere: no such folder"):
        compose("train", (), [tmp_path / "nowhere"])


def test_the_shipped_folder_is_found_and_absolute() -> None:
    assert conf_dir().is_absolute()
    assert (conf_dir() / "train.yaml").is_file()
    assert search_dirs()[0] == conf_dir()


@pytest.mark.parametrize(("override", "parts"), [
    # a key with a typo, at the level where it leaves the configuration
    ("network.bais=false", ["network.bais=false", "did you mean network.bias?"]),
    ("network.out_featurs=3", ["did you mean network.out_features?"]),
    ("data.rot=/x", ["data.rot=/x", "did you mean data.root?"]),
    ("data.label_maps.tisue.1=x", ["did you mean data.label_maps.tissue.1?"]),
    ("~network.bais", ["~network.bais", "did you mean network.bias?"]),
    # a leaf's name without its branch
    ("lr=0.1", ["did you mean optimizer.lr?"]),
    ("bias=false", ["did you mean network.bias?"]),
    # nothing near: what there is
    ("zzz=1", ["there is no key zzz", "data, method"]),
    ("network.zzz=1", ["network has", "in_features"]),
    ("seed.x=1", ["seed is a value, it has no keys"]),
    # groups
    ("experment=mini/all", ["did you mean experiment?"]),
    ("trainr=gpu", ["did you mean trainer?"]),
    ("methd/targets=both", ["did you mean method/targets?"]),
    ("method/targts=both", ["did you mean method/targets?"]),
    ("nope@pkg=1", ["there is no group nope"]),
    # choices
    ("experiment=mini/al", ["experiment has no choice mini/al", "did you mean mini/all?", "mini/one"]),
    ("experiment=all", ["did you mean mini/all?"]),
    ("trainer=gppu", ["did you mean gpu?", "choices: auto, gpu"]),
    ("scale=dmeo", ["did you mean demo?", "choices: demo, paper"]),
    ("method/targets=bot", ["did you mean both?"]),
    ("network=5", ["network takes the name of one of its files", "linear, wide"]),
    ("network={a: 1}", ["network takes the name of one of its files"]),
    ("data=null", ["data takes the name of one of its files", "bank, other"]),
    # syntax
    ("experiment", ["experiment: expected KEY=VALUE"]),
    ("data.root=/a=b", ["data.root=/a=b: cannot be read", "quotes"]),
    ("name=[1,2", ["name=[1,2: cannot be read"]),
    ("seed=1,2", ["seed=1,2: several values", "-m", "'seed=[1,2]'"]),
    ("seed=range(1,3)", ["several values", "-m"]),
])
def test_errors_name_the_override_and_the_nearest_name(mini: Path, override: str, parts: list[str]) -> None:
    text = message([mini], override)
    for part in parts:
        assert part in text
    assert "\n" not in text


def test_an_error_is_found_among_good_overrides(mini: Path) -> None:
    text = message([mini], "network=wide", "seed=3", "network.out_featurs=1", "data.root=/x")
    assert text.startswith("network.out_featurs=1: ")


def test_a_group_that_the_primary_does_not_use(mini: Path) -> None:
    assert "predict has no group network; add it with +network=linear" in message([mini], "network=linear",
                                                                                  primary="predict")


def test_an_unknown_primary(mini: Path) -> None:
    assert message([mini], primary="trian") == ("there is no primary configuration 'trian'; did you mean train? "
                                                "(choices: predict, train)")


def test_a_file_that_asks_for_one_that_does_not_exist(mini: Path) -> None:
    (mini / "experiment/mini/bad.yaml").write_text("# @package _global_\ndefaults:\n  - override /network: lineer\n")
    text = message([mini], "experiment=mini/bad")
    assert "network/lineer.yaml does not exist" in text and "did you mean linear?" in text


def test_a_yaml_that_cannot_be_read_is_named(mini: Path) -> None:
    (mini / "network/broken.yaml").write_text("a: [1\nb: 2\n")
    assert "network/broken.yaml" in message([mini], "network=broken")


def test_a_duplicate_key_of_a_yaml_is_named(mini: Path) -> None:
    (mini / "network/twice.yaml").write_text("a: 1\na: 2\n")
    text = message([mini], "network=twice")
    assert "network/twice.yaml" in text and "duplicate key a" in text



def test_keys_are_those_of_the_chosen_experiment() -> None:
    text = message([conf_dir()], "experiment=kidney_ppm/fcn_ppm", "loss.weights.tumour=3")
    assert "no key loss.weights.tumour; did you mean loss.weights.tumor?" in text
