"""Row 15 through the commands: resolved files, tables and words of strangers end with a typed error, nothing runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segexp.cli import main
from segexp.config import compose
from segexp.sweeps.plain import resolved
from tests.config.conftest import write_tree
from tests.faults.conftest import words

Change = Callable[[dict[str, Any], Path], Any]


def setting(path: str, value: Callable[[Path], Any]) -> Change:
    def change(config: dict[str, Any], canary: Path) -> None:
        *parents, last = path.split(".")
        for part in parents:
            config = config[part]
        config[last] = value(canary)
    return change


FILES: dict[str, Change] = {
    "target": setting("network._target_", lambda canary: "os.system"),
    "new target": setting("callbacks.x", lambda canary: {"_target_": "os.system", "command": f"touch {canary}"}),
    "target in a list": setting("loss.x", lambda canary: [{"_target_": "builtins.open", "_args_": [str(canary), "w"]}]),
    "method": setting("method._target_", lambda canary: "os.system"),
    "method as a path": setting("method._target_", lambda canary: f"segexp.methods.{canary}.X"),
    "method as a number": setting("method._target_", lambda canary: 5),
    "a function of ours": setting("optimizer._target_", lambda canary: "segexp.phantoms.wmh.write"),
    "environment": setting("tag", lambda canary: "${oc.env:HOME}"),
    "run's name": setting("name", lambda canary: "../../../evil"),
    "run's folder": setting("paths.run", lambda canary: str(canary)),
    "log folder": setting("logger.csv.folder", lambda canary: str(canary)),
    "checkpoint folder": setting("callbacks.checkpoint.folder", lambda canary: str(canary)),
    "allowing itself": lambda config, canary: config.update(allow=["os"], network={"_target_": "os.system"}),
    "secret": setting("tag", lambda canary: "https://me:hunter22@example.org"),
    "seed": setting("seed", lambda canary: "/tmp/evil"),
    "groups as numbers": lambda config, canary: config.update(network=1, loss=[2]),
    "method as text": lambda config, canary: config.update(method="x"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("nowhere")
    return resolved(compose("train", [*words(folder / "outputs")[1:], f"data.root={folder}"]))


@pytest.mark.parametrize("name", FILES)
def test_a_resolved_file_of_a_stranger(name: str, sound: dict[str, Any], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    config, canary = yaml.safe_load(yaml.safe_dump(sound)), tmp_path / "canary"
    config["paths"]["outputs"] = str(tmp_path / "outputs")
    FILES[name](config, canary)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    code = main(["train", "--config", str(tmp_path / "job.yaml")])
    said = capsys.readouterr().err
    # A finished run's configuration names its folder, and is taken as one that starts a run: the folder is forgotten.
    assert code == (3 if name == "run's folder" else 2) and "unexpected" not in said and "hunter22" not in said, said
    assert not canary.exists() and (code == 3 or not list(tmp_path.glob("outputs/runs/**/*")))


@pytest.mark.parametrize("text", ["x: !!python/object/apply:os.system ['touch CANARY']\n", "a: &a [*a]\n", "- 1\n", "",
                                  "x: {{{\n", "a: &a [1]\nb: *a\n", "\x00"])
def test_a_file_that_is_no_plain_yaml(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(text.replace("CANARY", str(tmp_path / "canary")))
    assert main(["train", "--config", str(tmp_path / "job.yaml")]) == 2
    assert "unexpected" not in capsys.readouterr().err and not (tmp_path / "canary").exists()


WORDS = {
    "method": "method._target_=os.system", "method of ours": "method._target_=segexp.cli.main",
    "method as text": "method=x", "name": "name=../../evil", "seed": "seed=x", "network": "network=null",
    "callback": "+callbacks.x={_target_: os.system, command: 'touch CANARY'}", "trainer": "trainer._target_=os.system",
}


@pytest.mark.parametrize("name", WORDS)
def test_words_of_a_stranger(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = WORDS[name].replace("CANARY", str(tmp_path / "canary"))
    assert main([*words(tmp_path / "outputs", f"data.root={tmp_path}"), word]) == 2
    said = capsys.readouterr().err
    assert "unexpected" not in said and not (tmp_path / "canary").exists(), said
    assert not list(tmp_path.glob("outputs/runs/**/*"))


TABLE = "title: t\nsource: s\nruns:\n  a:\n    overrides: {words}\ncell: {{run: a, metric: dice, target: fsl_fast}}\n" \
        "rows: {{r: {{}}}}\ncolumns: {{c: {{}}}}\n"
TABLES = {
    "target": TABLE.format(words="[experiment=neuronet/nn_tissue, network._target_=os.system]"),
    "callback of Hydra": TABLE.format(words="['+hydra.callbacks.x._target_=os.system']"),
    "traversal": TABLE.format(words="[experiment=../../../etc/passwd]"),
    "environment": TABLE.format(words="['tag=${{oc.env:HOME}}']"),
    "search path": TABLE.format(words="['hydra.searchpath=[file:///etc]']"),
    "tag": "title: !!python/object/apply:os.system ['touch CANARY']\n",
    "bomb": "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)),
    "a list": "- 1\n",
    "numbers": "title: 1\nsource: 2\nruns: 3\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_stranger(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write_tree(tmp_path / "conf", {"table/evil.yaml": TABLES[name].replace("CANARY", str(tmp_path / "canary"))})
    more = ["--config-dir", str(mine), f"paths.outputs={tmp_path / 'outputs'}"]
    for verb in ("plan", "run"):
        code = main(["table", verb, "evil", *more])
        said = capsys.readouterr()
        assert code in (2, 3, 4), (verb, code, said.err)
        assert "unexpected" not in said.err and not (tmp_path / "canary").exists(), said.err


def test_a_table_is_a_file_of_the_folders_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../../../etc/passwd", "/etc/passwd", "..", "~/x"):
        assert main(["table", "plan", name, f"paths.outputs={tmp_path}"]) == 2
        assert "unexpected" not in capsys.readouterr().err
