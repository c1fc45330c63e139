"""The one door from configuration to objects."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from segexp.config import instantiate
from segexp.config.composition import compose_from
from segexp.config.targets import FORBIDDEN
from segexp.errors import ConfigError, DataError
from tests.config.conftest import write_tree

HERE = ("tests.config.test_objects",)
TORCH = ("torch",)


class Keeper:
    """Keeps what it is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


@dataclasses.dataclass(frozen=True)
class Fact:
    """A plain value object."""

    name: str


def refuses(value: int) -> None:
    raise DataError(f"/data/x.nii.gz: {value}")


def fails(value: int) -> None:
    raise RuntimeError("out of luck")


def picky(value: int) -> None:
    raise ValueError(f"value is {value}, expected 1")


def node(name: str, **values: Any) -> dict[str, Any]:
    return {"_target_": f"tests.config.test_objects.{name}", **values}


def test_plain_types_reach_the_class() -> None:
    cfg = OmegaConf.create({"n": 3, "node": node("Keeper", maps={"tissue": {0: "background", 7: "csf"}},
                                                 sizes=[1, 2, "${n}"], inner={"deep": [{"a": "${n}"}]})})
    kept = instantiate(cfg.node, allow=HERE).kwargs
    assert kept == {"maps": {"tissue": {0: "background", 7: "csf"}}, "sizes": [1, 2, 3], "inner": {"deep": [{"a": 3}]}}
    assert type(kept["maps"]) is dict and type(kept["maps"]["tissue"]) is dict
    assert type(kept["sizes"]) is list and type(kept["inner"]["deep"][0]) is dict


def test_everything_below_is_made_too() -> None:
    made = instantiate({"a": node("Keeper", inner=node("Keeper", x=1)), "b": [node("Keeper", y=2)], "c": 5}, allow=HERE)
    assert made["a"].kwargs["inner"].kwargs == {"x": 1}
    assert made["b"][0].kwargs == {"y": 2}
    assert made["c"] == 5


def test_run_time_arguments_are_untouched_and_win() -> None:
    fact, table, params = Fact("tissue"), {"a": (1, 2)}, iter([1])
    kept = instantiate(node("Keeper", x=1, y=2), allow=HERE, x=fact, table=table, params=params).kwargs
    assert kept["x"] is fact and kept["table"] is table and kept["params"] is params and kept["y"] == 2


def test_a_missing_value_may_come_at_run_time() -> None:
    assert instantiate(node("Keeper", x="???"), allow=HERE, x=3).kwargs == {"x": 3}


def test_partials_wait_for_the_rest() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5}
    assert instantiate(adam)([weight]).param_groups[0]["lr"] == 0.5
    later = instantiate(adam, lr=0.25)
    assert isinstance(later, functools.partial)
    assert later([weight]).param_groups[0]["lr"] == 0.25


def test_none_stays_none() -> None:
    assert instantiate(None) is None
    assert instantiate(OmegaConf.create({"a": None}).a) is None


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.run", "torchx.y", "torch", "segexp", 5,
                                    None, *FORBIDDEN, "torch.load.anything"])
def test_targets_outside_the_list_are_refused_with_their_key(target: Any) -> None:
    cfg = OmegaConf.create({"network": {"_target_": target, "x": 1}})
    with pytest.raises(ConfigError, match=r"^network: ") as caught:
        instantiate(cfg.network)
    assert str(target) in str(caught.value)


def test_the_whole_node_is_checked_before_anything_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"innocent_looking.py": "raise SystemExit('imported')\n"})
    monkeypatch.syspath_prepend(tmp_path)
    cfg = OmegaConf.create({
        "name": "innocent_looking.run",
        "node": {"_target_": "segexp.losses.Dice", "parts": [{"deep": {"_target_": "${name}"}}]},
    })
    with pytest.raises(ConfigError, match=r"node\.parts\[0\]\.deep: _target_ innocent_looking\.run is outside"):
        instantiate(cfg.node)
    assert "innocent_looking" not in sys.modules


@pytest.mark.parametrize("target", ["torch.os.system", "segexp.data.cases.Mapping",
                                    "segexp.methods.kidney_ppm.nn.Conv3d", "segexp.losses.dice_cross_entropy.nn.Module",
                                    "monai.utils.module.torch.load"])
def test_what_an_allowed_module_only_passes_on_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^network: _target_ .*(outside the allowed modules|has no nn)"):
        instantiate(OmegaConf.create({"network": {"_target_": target}}).network, allow=("torch.nn", "monai"))


def test_modules_of_the_user_need_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"mylab/__init__.py": "", "mylab/nets.py": "def make(size):\n    return ['net', size]\n"})
    monkeypatch.syspath_prepend(tmp_path)
    wanted = {"_target_": "mylab.nets.make", "size": 2}
    with pytest.raises(ConfigError, match="--allow-target"):
        instantiate(wanted)
    assert instantiate(wanted, allow=["mylab."]) == instantiate(wanted, allow=["mylab"]) == ["net", 2]
    with pytest.raises(ConfigError, match="outside the allowed"):
        instantiate({"_target_": "mylaboratory.x"}, allow=["mylab"])


def test_our_own_errors_pass_unchanged() -> None:
    for arguments in ({}, {"value": 2}):
        with pytest.raises(DataError, match=r"^/data/x.nii.gz: \d$"):
            instantiate(node("refuses", value=1), allow=HERE, **arguments)


def test_refused_values_name_key_and_reason() -> None:
    cfg = OmegaConf.create({"loss": node("picky", value=7)})
    with pytest.raises(ConfigError, match=r"^loss: .*value is 7, expected 1"):
        instantiate(cfg.loss, allow=HERE)
    with pytest.raises(ConfigError, match=r"^loss: .*value is 8, expected 1"):
        instantiate(cfg.loss, allow=HERE, value=8)


def test_unknown_arguments_name_key_and_argument(mini: Path) -> None:
    cfg = compose_from([mini], "train", ["+network.foo=1"])
    with pytest.raises(ConfigError, match=r"^network: .*foo"):
        instantiate(cfg.network, allow=TORCH)
    inner = OmegaConf.create({"outer": {"parts": [{"_target_": "torch.nn.Linear", "wrong": 1}]}})
    with pytest.raises(ConfigError, match=r"^outer\.parts\[0\]: .*wrong"):
        instantiate(inner.outer, allow=TORCH)


def test_other_failures_stay_what_they_are() -> None:
    for arguments in ({}, {"value": 2}):
        with pytest.raises(RuntimeError, match="out of luck"):
            instantiate(node("fails", value=1), allow=HERE, **arguments)


def test_missing_values_and_lost_interpolations_name_the_key(mini: Path) -> None:
    cfg = compose_from([mini], "train")
    with pytest.raises(ConfigError, match=r"data\.root"):
        instantiate(cfg.data, allow=TORCH)
    deep = OmegaConf.create({"a": {"b": {"_target_": "torch.nn.Linear", "in_features": "???"}}})
    with pytest.raises(ConfigError, match=r"^a\.b\.in_features has no value; give one: a\.b\.in_features=\.\.\.$"):
        instantiate(deep.a, allow=TORCH)
    with pytest.raises(ConfigError, match=r"^a\.b\.in_features has no value; give one: a\.b\.in_features=\.\.\.$"):
        instantiate(deep.a.b, allow=TORCH, out_features=1)
    lost = OmegaConf.create({"network": {"_target_": "torch.nn.Linear", "in_features": "${data.chanels}"}})
    with pytest.raises(ConfigError, match=r"network\.in_features: \$\{data\.chanels\} names a key that does not exist"):
        instantiate(lost.network, allow=TORCH)


def test_a_name_that_does_not_exist_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer: .*torch\.optim\.Adem"):
        instantiate(OmegaConf.create({"optimizer": {"_target_": "torch.optim.Adem"}}).optimizer)
