"""``segexp train --config FILE``: a resolved configuration, perhaps a stranger's."""

from pathlib import Path

import pytest
import yaml

from segexp.cli import main
from segexp.config import compose
from segexp.errors import ConfigError
from segexp.runs.identity import run_hash
from segexp.sweeps.plain import command_of, read_config, resolved, write_config

WORDS = ("experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "data.root=/data", "tag='a b'")


@pytest.fixture(scope="module")
def content() -> dict:
    return resolved(compose("train", WORDS))


def test_it_means_the_same_run(content: dict, tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", content, WORDS)
    config = read_config(tmp_path / "config.yaml")
    assert run_hash(config) == run_hash(compose("train", WORDS))
    assert command_of(tmp_path / "config.yaml") == ["segexp", "train", *WORDS]
    config.paths.run = "/runs/a"
    assert config.callbacks.checkpoint.folder == "/runs/a" and config.logger.csv.folder == "/runs/a"


def test_a_finished_runs_configuration_starts_a_run(content: dict, tmp_path: Path) -> None:
    config = compose("train", WORDS)
    config.paths.run, config.start_step = "/runs/a", 7
    from segexp.config.objects import plain

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    config = read_config(tmp_path / "config.yaml")
    assert config.paths.run is None and config.start_step == 0
    config.paths.run = "/runs/b"
    assert config.callbacks.checkpoint.folder == config.logger.csv.folder == "/runs/b"


HOSTILE = {
    "python tag": "a: !!python/object/apply:os.system ['touch CANARY']\n",
    "interpolation": "tag: ${oc.env:HOME}\n",
    "nested": "tag: '${oc.decode:${start_step}}'\n",
    "aliases": "tag: &a [x, x]\nlist: [*a, *a]\n",
    "bomb": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "not yaml": "a: [\n",
    "no mapping": "- a\n",
    "binary": "\x00\x01",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(content: dict, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    kept = {key: value for key, value in content.items() if key not in ("tag", "a")}
    (tmp_path / "x.yaml").write_text(HOSTILE[name] + ("" if name in ("no mapping", "not yaml", "binary", "deep")
                                                      else yaml.safe_dump(kept)))
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read_config(tmp_path / "x.yaml")
    assert main(["train", "--config", str(tmp_path / "x.yaml")]) == 2
    assert not (tmp_path / "CANARY").exists() and not (tmp_path / "outputs").exists()


def test_a_forbidden_target_is_refused(content: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_config(tmp_path / "x.yaml", {**content, "loss": {"_target_": "os.system", "command": "touch CANARY"}})
    assert main(["train", "--config", str(tmp_path / "x.yaml")]) == 2
    assert "os.system" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [
    (["--config"], "needs a value"),
    (["--config="], "needs a value"),
    (["--config", "/nowhere.yaml"], "cannot be read"),
    (["--config", "/nowhere.yaml", "seed=2"], "takes no seed=2"),
    (["seed=2", "--config=/nowhere.yaml"], "takes no seed=2"),
])
def test_the_flag(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", *words]) == 2
    assert message in capsys.readouterr().err
