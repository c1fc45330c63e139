"""Row 15: a configuration names what it likes; only what the shipped configuration needs is imported, nothing runs."""

import re
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

from segexp.config import conf_dir, instantiate
from segexp.config.targets import FOREIGN, FUNCTIONS, refusal
from segexp.errors import ConfigError
from tests.faults.hostile_targets import payloads

KEYS = ("network", "loss", "optimizer", "data", "trainer", "x")
NAMES = list(payloads(Path("canary")))


def test_the_lists_are_what_the_shipped_configuration_names() -> None:
    named = {found for file in conf_dir().rglob("*.yaml")
             for found in re.findall(r"^\s*-?\s*_target_:\s*([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)}
    assert {name for name in named if not name.startswith(("segexp.", "hydra_plugins."))} == set(FOREIGN)
    assert set(FUNCTIONS) == {name for name in named if name.startswith("segexp.") and name.split(".")[-1].islower()}


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    node = payloads(canary)[name]
    wrapped = [node, {"a": node}, [1, [node]], {"_target_": "segexp.losses.Dice", "targets": [{"deep": node}]},
               {**node, "_partial_": True}, {**node, "_recursive_": False, "_convert_": "none"}]
    for content in wrapped:
        for key in KEYS[:1] if content is not node else KEYS:
            with pytest.raises(ConfigError):
                instantiate(OmegaConf.create({key: content})[key] if type(node["_target_"]) is str else content)
    assert not canary.exists()


def test_there_are_many_hostile_names_and_the_canary_sings() -> None:
    assert len(NAMES) >= 150


def test_hydra_alone_lets_some_of_them_through(tmp_path: Path) -> None:
    """The reason for a list of ours, and the proof that the canary tells."""
    ran = []
    for name in ("builtins.open", "shutil.copyfile", "pathlib.Path.touch"):
        canary = tmp_path / name
        node = payloads(canary)[name]
        words = {"_args_": [str(canary)]} if name.startswith("pathlib") else {}
        try:
            hydra.utils.instantiate({**node, **words})
        except Exception:
            continue
        ran += [name] * canary.exists()
    assert ran


@pytest.mark.parametrize("key", ["network", "optimizer", "data", "callbacks.x", "loggers.x", "phantoms", ""])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_that_write_are_named_below_their_key_only(name: str, key: str) -> None:
    assert refusal(name, key=key)
    assert refusal(name, key=FUNCTIONS[name]) is None
    assert refusal(name, key=f"{FUNCTIONS[name]}.any") is None


def test_callbacks_of_ours_are_named_below_callbacks_only() -> None:
    name = "segexp.runs.callbacks.Progress"
    assert refusal(name, key="callbacks.progress") is None and refusal(name, key="network")
    node = {"_target_": name, "folder": None, "title": "t"}
    made = instantiate(OmegaConf.create({"callbacks": {"x": node}}).callbacks)
    assert type(made["x"]).__name__ == "Progress"
    for other in ("segexp.runs.callbacks.Path", "segexp.runs.directory.Run", "segexp.runs.evaluation.Evaluation",
                  "segexp.runs.training.DataChanged", "segexp.runs.callbacks.write_json"):
        with pytest.raises(ConfigError):
            instantiate(OmegaConf.create({"callbacks": {"x": {"_target_": other}}}).callbacks)


def test_a_prefix_of_the_user_opens_itself_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "theirlab"
    package.mkdir()
    (package / "__init__.py").write_text("import os\nfrom os import system\nfrom functools import partial\n"
                                         "from torch import load\n\ndef net(n):\n    return n\n")
    monkeypatch.syspath_prepend(tmp_path)
    allow = ("theirlab",)
    assert instantiate({"_target_": "theirlab.net", "n": 3}, allow=allow) == 3
    for name in ("theirlab.os.system", "theirlab.system", "theirlab.partial", "theirlab.load", "theirlab.os.path.join",
                 "theirlaboratory.x", "theirlab", "os.system", "segexp.files.write_text"):
        with pytest.raises(ConfigError):
            instantiate({"_target_": name, "_args_": [f"touch {tmp_path / 'canary'}"]}, allow=allow)
    for nothing in ("", ".", "*", "o"):
        assert refusal("os.system", (nothing,))
    for forbidden in ("torch.load", "torch.hub.load", "torch.jit.load"):
        assert refusal(forbidden, ("torch",))
    assert not (tmp_path / "canary").exists()


def test_a_configuration_cannot_extend_the_list(tmp_path: Path) -> None:
    for content in ({"allow": ["os"], "_target_": "os.system"}, {"allow_target": "os", "_target_": "os.system"}):
        with pytest.raises(ConfigError):
            instantiate({**content, "_args_": [f"touch {tmp_path / 'canary'}"]})
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("text", [r"\${oc.env:HOME}", r"\\${hydra:job.name}", r"\${a}", r"\${oc.decode:1}"])
def test_nothing_is_resolved_twice(text: str) -> None:
    """What is a plain text after the first time must not become a target the second time."""
    config = OmegaConf.create({"a": "os.system", "loss": {"_target_": "segexp.losses.Dice", "x": text}})
    with pytest.raises(ConfigError):
        instantiate(config.loss)
    with pytest.raises(ConfigError):
        instantiate({"_target_": "segexp.losses.Dice", "x": [{"y": "${a}"}]})
