"""Everything that is found before a run starts."""

from pathlib import Path

import pytest

from segexp.config import check
from segexp.config.checks import MAY_MISS
from segexp.config.composition import compose_from
from segexp.config.sources import origins_from
from segexp.config.targets import find
from segexp.errors import ConfigError
from tests.config.conftest import write_tree

TORCH = ("torch",)  # the miniature's layers are torch's own


class Mine:
    @staticmethod
    def made() -> int:
        return 1


def problems(mini: Path, *overrides: str, **options: object) -> list[str]:
    found = check(compose_from([mini], "train", overrides), config_dirs=[mini], allow=TORCH, **options)
    return [str(one) for one in found]


def test_a_right_configuration_has_no_problem(mini: Path) -> None:
    (mini / "data/bank.yaml").write_text((mini / "data/bank.yaml").read_text().replace(
        "_target_: torch.utils.data.StackDataset", ""))
    assert problems(mini) == []
    assert problems(mini, "experiment=mini/one", "scale=demo", "network=wide") == []


@pytest.mark.parametrize(("overrides", "expected"), [
    (["+network.baes=1"], "network.baes: Linear takes no baes; did you mean bias?"),
    (["~network.in_features"], "network.in_features: Linear needs in_features, which is not set"),
    (["optimizer._target_=torch.optim.Adem"], "optimizer._target_: torch.optim.Adem: torch.optim has no Adem; did you"),
    (["optimizer._target_=torch.optm.Adam"], "torch has no optm; did you mean optim?"),
    (["network._target_=torch.nan"], "network._target_: torch.nan is a float, expected a class or a function"),
    (["network._target_=os.system"], "network._target_: os.system is outside the allowed modules"),
    (["network._target_=torch.hub.load"], "network._target_: torch.hub.load may load or run foreign code"),
    (["network.bias=${data.chanels}"], "network.bias: ${data.chanels} names a key that does not exist"),
    (["network.bias=${nonsense:1}"], "network.bias: cannot be resolved"),
    (["network.bias=???"], "network.bias: has no value; give one: network.bias=..."),
    (["method.targets=[tissu]"], "method.targets: the data has no label map 'tissu'; did you mean tissue?"),
    (["method.targets=[tissue,tissue]"], "method.targets: names a target twice"),
    (["method.targets=[tissue]", "+network.targets={tissue: 2}"], "network.targets: is {'tissue': 2}, but targets"),
    (["+sampling.size=20", "+network.filters=[1,2,3,4]"], "sampling.size: is 20, expected multiples of 8"),
    (["+sampling.size=[16,16,12]", "+network.filters=[1,2,3,4]"], "sampling.size: is [16, 16, 12], expected"),
    (["+sampling.size=0", "+network.filters=[1,2]"], "sampling.size: is 0, expected multiples of 2"),
    (["scale.name=dmeo"], "scale.name: there is no scale 'dmeo'; did you mean demo?"),
    (["+network.targets='${classes:${data.label_maps},tissu}'"], "network.targets: method.targets: the data has no"),
])
def test_each_rule_finds_its_problem(mini: Path, overrides: list[str], expected: str) -> None:
    assert any(expected in text for text in problems(mini, *overrides)), problems(mini, *overrides)


def test_all_problems_are_reported_together(mini: Path) -> None:
    found = problems(mini, "+network.baes=1", "optimizer._target_=torch.optim.Adem", "network.out_features=???")
    assert {"network.baes", "optimizer._target_", "network.out_features"} <= {text.split(":")[0] for text in found}


def test_values_that_may_be_missing(mini: Path) -> None:
    assert MAY_MISS == ("data.root",)
    assert not any(text.startswith("data.root") for text in problems(mini))
    needed = [text for text in problems(mini, may_miss=()) if text.startswith("data.")]
    # What is derived from a missing value is not a second problem.
    assert needed[0] == "data.root: has no value; give one: data.root=..."
    assert not any(text.startswith("data.derived") for text in needed)


def test_a_partial_may_miss_arguments_but_not_have_wrong_ones(mini: Path) -> None:
    assert not any(text.startswith("optimizer") for text in problems(mini))
    assert any("optimizer.learning: Adam takes no learning" in text for text in problems(mini, "+optimizer.learning=1"))


def test_positional_arguments_fill_the_first_parameters(mini: Path) -> None:
    assert not any(text.startswith("network") for text in problems(
        mini, "~network.in_features", "~network.out_features", "+network._args_=[3,2]"))


def test_a_plain_dict_can_be_checked() -> None:
    found = check({"network": {"_target_": "torch.nn.Linear", "in_features": 1}}, allow=TORCH)
    assert [str(one) for one in found] == ["network.out_features: Linear needs out_features, which is not set"]


def test_the_file_that_set_a_key_is_named(tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "mine", {
        "network/own.yaml": "_target_: torch.nn.Linear\nin_features: 1\nout_feature: 1\n",
        "scheduler/own.yaml": "defaults:\n  - constant\n  - _self_\nfactr: 2\n",
        "tiny.yaml": "defaults:\n  - _self_\n  - network: own\n  - scheduler: own\nseed: 1\n",
    })
    words = ["+network.bias=${nope}", "+network.dtyp=1"]
    write_tree(mine, {"scheduler/constant.yaml": "_target_: torch.optim.lr_scheduler.ConstantLR\n_partial_: true\n"
                                                 "factor: 1.0\n"})
    known = origins_from([mine], "tiny", words)
    assert known["network.in_features"] == "conf/network/own.yaml"
    assert known["scheduler.factor"] == "conf/scheduler/constant.yaml"
    assert known["scheduler.factr"] == "conf/scheduler/own.yaml"
    assert known["seed"] == "conf/tiny.yaml"
    found = {one.key: one.file for one in check(compose_from([mine], "tiny", words), origins=known,
                                                   allow=TORCH)}
    assert found["network.out_feature"] == found["network.out_features"] == "conf/network/own.yaml"
    assert found["scheduler.factr"] == "conf/scheduler/own.yaml"
    assert found["network.bias"] == found["network.dtyp"] == "command line"


def test_find_imports_names_inside_classes_and_says_why_an_import_failed(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("tests.config.test_checks.Mine.made", ["tests.config"]) == Mine.made
    write_tree(tmp_path, {"half_done.py": "import not_installed_anywhere\n", "wrong.py": "1 / 0\n"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"half_done\.x cannot be imported: No module named 'not_installed_anywhere'"):
        find("half_done.x", ["half_done"])
    with pytest.raises(ConfigError, match=r"wrong\.x cannot be imported: ZeroDivisionError"):
        find("wrong.x", ["wrong"])
