"""Row 15: overrides and files of strangers, composed with the shipped configuration: refused, and nothing runs."""

import time
from pathlib import Path

import hydra
import pytest

from segexp.cli import main
from segexp.config import check, compose
from segexp.config.composition import initialised, searchpath
from segexp.config.paths import search_dirs
from segexp.config.yaml_files import read_yaml
from segexp.errors import ConfigError
from tests.config.conftest import write_tree

SECRET = "c4n4ry-s3cret-0f-the-environment"
BASE = ("scale=smoke", "data.root=/data")

WORDS = {
    "target": "network._target_=os.system",
    "new target": "+network.block={_target_: os.system, _args_: [CANARY]}",
    "target in a list": "+x=[1,{a: {_target_: builtins.open, _args_: [CANARY, w]}}]",
    "target by interpolation": "+callbacks.x={_target_: '${tag}', _args_: [CANARY]}",
    "target in pieces": "+callbacks.x={_target_: '${name}.system', _args_: [CANARY]}",
    "function of ours elsewhere": "optimizer._target_=segexp.phantoms.wmh.write",
    "partial": "scheduler={_target_: functools.partial, _partial_: true, _args_: [CANARY]}",
    "environment": "tag=${oc.env:SEGEXP_CANARY}",
    "environment with default": "tag=${oc.env:SEGEXP_CANARY,none}",
    "environment in a default": "tag=${oc.select:nope,${oc.env:SEGEXP_CANARY}}",
    "create": "+x='${oc.create:{_target_: os.system}}'",
    "decode": "+x='${oc.decode:\"{_target_: os.system}\"}'",
    "environment by Hydra": "+hydra.job.env_set.PATH=/evil",
    "copied environment": "hydra.job.env_copy=[SEGEXP_CANARY]",
    "folder of Hydra": "hydra.run.dir=CANARY",
    "sweep folder of Hydra": "++hydra.sweep.dir=CANARY",
    "working folder": "hydra.job.chdir=true",
    "launcher's class": "hydra.launcher._target_=os.system",
    "unknown launcher": "hydra/launcher=../../evil",
    "sweeper's class": "hydra.sweeper._target_=os.system",
    "callback of Hydra": "+hydra.callbacks.x={_target_: os.system, command: CANARY}",
    "callbacks of Hydra": "hydra/callbacks=x",
    "log handler": "hydra.job_logging.handlers={x: {'()': os.system, command: CANARY}}",
    "log class": "+hydra.job_logging.formatters={x: {class: os.system}}",
    "log stream": "+hydra.hydra_logging.handlers={x: {class: logging.StreamHandler, stream: 'ext://os.system'}}",
    "logging preset": "hydra/job_logging=default",
    "search path": "hydra.searchpath=[file://CANARY]",
    "package into Hydra": "+experiment@hydra.callbacks=neuronet/nn_all",
    "deleted setting": "~hydra.run",
    "traversal": "experiment=../../../../../../../etc/passwd",
    "quoted traversal": "experiment='neuronet/../../data/wmh'",
    "traversal of a group": "+../data=wmh",
    "absolute": "experiment=//etc/passwd",
    "run's name": "name=../../../evil",
    "absolute name": "name=/tmp/evil",
    "seed as a path": "seed=/tmp/evil",
    "log folder": "logger.csv.folder=CANARY",
    "figures' folder": "callbacks.overlays.folder=CANARY",
    "checkpoint folder": "callbacks.checkpoint.folder=/tmp/evil",
    "run's folder": "paths.run=CANARY",
    "target's name": "+data.label_maps.'../../evil'={0: background, 1: x}",
    "deep": "+x=" + "[" * 500 + "]" * 500,
    "huge": "+x=" + "a" * 100_000,
    "huge key": "+" + "a" * 50_000 + "=1",
    "refers to itself": "tag=${tag}",
    "refers in a circle": "+x={a: '${x.b}', b: '${x.a}'}",
    "huge range": "+x=${range:0,1000000000}",
}

HEAD = "# @package _global_\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
FILES = {
    "python tag": "x: !!python/object/apply:os.system ['touch CANARY']\n",
    "python name": "x: !!python/name:os.system\n",
    "python module": "x: !!python/module:os\n",
    "new object": "x: !!python/object/new:os.system [touch CANARY]\n",
    "own tag": "x: !run 'touch CANARY'\n",
    "alias bomb": BOMB,
    "merge bomb": "a: &a {k: 1}\nb: &b {x: *a, y: *a}\n" + "".join(
        f"c{i}: &c{i} {{x: *{'b' if i == 0 else f'c{i - 1}'}, y: *{'b' if i == 0 else f'c{i - 1}'}}}\n"
        for i in range(40)),
    "alias of itself": "a: &a [*a]\n",
    "deep": "x: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "huge key": f"? {'k' * 100_000}\n: 1\n",
    "many values": "x: [" + "1, " * 200_000 + "1]\n",
    "huge file": "x: '" + "a" * 3_000_000 + "'\n",
    "binary": "x: \x07\n",
    "traversal": "defaults:\n  - ../../../../../../etc/passwd\n",
    "traversal by a group": "defaults:\n  - override /data: ../../../etc/passwd\n",
    "absolute default": "defaults:\n  - //etc/passwd\n",
    "environment in defaults": "defaults:\n  - override /data: ${oc.env:SEGEXP_CANARY}\n",
    "target": "network:\n  _target_: os.system\n  _args_: ['touch CANARY']\n",
    "target by interpolation": "tag: os.system\nnetwork:\n  _target_: ${tag}\n",
    "environment": "tag: ${oc.env:SEGEXP_CANARY}\n",
    "callback of Hydra": "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n      command: touch CANARY\n",
    "log handler": "hydra:\n  job_logging:\n    handlers:\n      x: {(): os.system, command: touch CANARY}\n",
    "launcher": "hydra:\n  launcher:\n    _target_: os.system\n",
    "launcher's commands": "hydra:\n  launcher:\n    setup: [touch CANARY]\n",
    "environment set": "hydra:\n  job:\n    env_set:\n      LD_PRELOAD: CANARY\n",
    "folder of Hydra": "hydra:\n  run:\n    dir: CANARY\n",
    "search path": "hydra:\n  searchpath: [file://CANARY]\n",
    "allowing itself": "allow: [os]\nallow_target: [os]\nnetwork:\n  _target_: os.system\n",
    "log folder": "logger:\n  csv:\n    folder: CANARY\n",
}


def outcome(words: tuple[str, ...], dirs: tuple[Path, ...] = ()) -> str:
    """Return why a composition is refused, by composing or by the check before anything starts; empty if it is not."""
    try:
        config = compose("train", [*BASE, *words], dirs)
    except ConfigError as error:
        return str(error)
    return "\n".join(str(problem) for problem in check(config, may_miss=()))


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that must never be there, and a secret that must never be seen."""
    monkeypatch.setenv("SEGEXP_CANARY", SECRET)
    return tmp_path / "canary"


def test_without_a_stranger_nothing_is_refused(tmp_path: Path) -> None:
    assert outcome(()) == ""
    mine = write_tree(tmp_path, {"experiment/mine.yaml": HEAD + "tag: mine\ndefaults:\n  - override /loss: dice\n"})
    assert outcome(("experiment=mine",), (mine,)) == ""


@pytest.mark.parametrize("name", WORDS)
def test_words_of_a_stranger(name: str, canary: Path) -> None:
    started = time.monotonic()
    reason = outcome((WORDS[name].replace("CANARY", str(canary)),))
    assert reason and SECRET not in reason and len(reason) < 5_000
    assert not canary.exists() and time.monotonic() - started < 60


def test_a_file_that_chooses_the_launcher_is_not_heard(tmp_path: Path) -> None:
    mine = write_tree(tmp_path, {"experiment/evil.yaml": HEAD + "defaults:\n  - override /hydra/launcher: evil\n",
                                 "hydra/launcher/evil.yaml": "_target_: os.system\n"})
    with initialised(search_dirs([mine])):
        words = [*searchpath(search_dirs([mine])), *BASE, "experiment=evil"]
        chosen = hydra.compose("train", words, return_hydra_config=True).hydra.launcher
    assert chosen._target_ == "hydra_plugins.segexp_launcher.Local"


@pytest.mark.parametrize("name", FILES)
def test_files_of_a_stranger(name: str, canary: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    mine = write_tree(tmp_path / "conf", {"experiment/evil.yaml": HEAD + FILES[name].replace("CANARY", str(canary)),
                                          "hydra/launcher/evil.yaml": "_target_: os.system\n"})
    reason = outcome(("experiment=evil",), (mine,))
    assert reason and SECRET not in reason and len(reason) < 5_000
    assert not canary.exists() and time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["python tag", "python name", "new object", "own tag", "alias bomb", "merge bomb",
                                  "alias of itself", "deep", "many values", "huge file", "binary"])
def test_yaml_is_looked_at_before_it_is_built(name: str, canary: Path) -> None:
    file = canary.parent / "evil.yaml"
    file.write_text(FILES[name].replace("CANARY", str(canary)))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=str(file)):
        read_yaml(file)
    assert time.monotonic() - started < 5 and not canary.exists()


def test_the_command_refuses_before_hydra_sees_the_words(canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--cfg", "job", f"hydra.run.dir={canary}"], ["-m", f"+hydra.callbacks.x._target_={canary}"],
                  ["hydra/job_logging=default", "--info"],
                  ["experiment=neuronet/nn_all", "hydra.launcher._target_=a.b"]):
        assert main(["train", *words]) == 2
        assert "ydra" in capsys.readouterr().err
    assert not canary.exists()
