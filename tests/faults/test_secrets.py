"""Row 18: no secret of the environment, of an address or of a configuration is in any file that is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.config import check, compose
from segexp.errors import ConfigError
from segexp.files import write_json, write_text
from segexp.redaction import redacted, redacted_words, secret_in
from tests.config.conftest import write_tree
from tests.faults.conftest import SECRETS, URL_PASSWORD, Trained, words

ADDRESS = f"https://someone:{URL_PASSWORD}@example.org/data"


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def hits(*folders: Path) -> list[str]:
    """Return the files below folders that hold a secret, in any of the ways that bytes are stored."""
    needles = [value.encode() for value in (*SECRETS.values(), URL_PASSWORD)]
    needles += [value.encode("utf-16-le") for value in (*SECRETS.values(), URL_PASSWORD)]
    found = []
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                found += [f"{file}: {needle!r}" for needle in needles if needle in content]
    return found


def count(folder: Path) -> int:
    return sum(file.is_file() for file in folder.rglob("*"))


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    for number, value in enumerate((*SECRETS.values(), URL_PASSWORD)):
        (tmp_path / f"{number}").write_text(f"x{value}y")
    assert len(hits(tmp_path)) == len(SECRETS) + 1


def test_a_run_with_every_logger_holds_none(trained: Trained) -> None:
    assert list(trained.run.glob("wandb/*")), "Weights & Biases wrote nothing"
    assert list(trained.run.glob("tensorboard/*")) and list(trained.run.glob("metrics/*"))
    assert count(trained.outputs) > 30 and hits(trained.outputs) == []


def test_nor_do_evaluation_and_prediction(trained: Trained, tmp_path: Path, secretive: None) -> None:
    image = next(trained.images.rglob("*T1*.nii.gz"), None) or next(trained.images.rglob("T1*.nii*"))
    assert main(["evaluate", f"run={trained.run}", f"output={tmp_path / 'scores'}"]) == 0
    assert main(["predict", f"run={trained.run}", f"input={image}", f"output={tmp_path / 'labels'}"]) == 0
    assert count(tmp_path) > 4 and hits(tmp_path, trained.outputs) == []


@pytest.mark.parametrize("word", [f"tag={ADDRESS}", f"tag='see {ADDRESS} for more'", "tag=lab-c4n4ry-t0ken-3",
                                  "+wandb_api_key=abc", "+loss.password=abc", "+x={auth: abc}", "+x.token=abc"])
def test_a_configuration_with_a_secret_is_refused_without_showing_it(
        word: str, secretive: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(words(tmp_path / "outputs", word, f"data.root={tmp_path}")) == 2
    said = capsys.readouterr().err
    assert "recorded" in said and URL_PASSWORD not in said and "t0ken" not in said
    assert not (tmp_path / "outputs").exists() or hits(tmp_path / "outputs") == []


def test_so_is_one_that_comes_from_a_file_or_as_a_plain_dict(secretive: None, tmp_path: Path) -> None:
    mine = write_tree(tmp_path, {"experiment/mine.yaml": f"# @package _global_\ntag: {ADDRESS}\n"})
    with pytest.raises(ConfigError, match="address with a password"):
        compose("train", ["experiment=mine"], [mine])
    assert any("secret environment variable" in str(one) for one in check({"tag": SECRETS["MADE_UP_LAB_TOKEN"]}))


@pytest.mark.parametrize("word", ["tag=${oc.env:MADE_UP_LAB_TOKEN}", "tag='${oc.env:MADE_UP_LAB_TOKEN,x}'",
                                  "name=${oc.env:MADE_UP_LAB_TOKEN}", "+x='${oc.decode:${oc.env:MADE_UP_LAB_TOKEN}}'"])
def test_the_environment_is_not_read_by_a_configuration(word: str, secretive: None, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, word, f"data.root={tmp_path}")) == 2
    said = capsys.readouterr().err
    assert "let the shell expand it" in said or "makes configuration out of text" in said
    assert hits(tmp_path) == [] and "t0ken" not in said


def test_a_run_that_fails_with_a_secret_in_its_message_writes_none(phantom: Path, tmp_path: Path, secretive: None,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    from segexp.methods.segmentation import SegmentationModule

    def fail(*_: object) -> None:
        raise RuntimeError(f"cannot reach {ADDRESS} with {SECRETS['MADE_UP_LAB_TOKEN']} ({dict(os.environ)})")

    monkeypatch.setattr(SegmentationModule, "training_step", fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(words(phantom, "tag=fails", "logger=all")) == 1
    failed = [file for file in phantom.rglob("error.txt")]
    assert failed and "cannot reach https://***@example.org/data with ***" in failed[0].read_text()
    assert list(tmp_path.glob("segexp-*.txt")), "the traceback of the command is not there"
    assert hits(phantom, tmp_path) == []


def test_the_command_is_recorded_without_its_secrets(secretive: None) -> None:
    given = ["segexp", "train", f"tag={ADDRESS}", "+wandb.api_key=abcdef", "loss=dice", "--password", "hunter22",
             "--token=xyz", f"x={SECRETS['DATABASE_PASSWORD']}", "seed=1"]
    assert redacted_words(given) == ["segexp", "train", "tag=https://***@example.org/data", "+wandb.api_key=***",
                                     "loss=dice", "--password", "***", "--token=***", "x=***", "seed=1"]


def test_texts_are_written_without_secrets(secretive: None, tmp_path: Path) -> None:
    text = f"{ADDRESS} {' '.join(SECRETS.values())} git@github.com:lab/code.git a@b.org http://host/path@2"
    write_text(tmp_path / "a.txt", text)
    write_json(tmp_path / "a.json", {"a": [text, {text: 1}]})
    assert hits(tmp_path) == []
    assert redacted(text).endswith("git@github.com:lab/code.git a@b.org http://host/path@2")


def test_ordinary_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent.123456")
    for node in ({"tag": "short"}, {"data": {"root": "/tmp/agent.123456"}}, {"author": "me"}, {"tokens": "many"},
                 {"max_tokens": 5}, {"network": {"token": 3}}, {"url": "https://example.org/a@b"}):
        assert secret_in(node) is None


def test_the_git_remote_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segexp.runs import provenance

    for command in (["init", "-q"], ["remote", "add", "origin", ADDRESS], ["config", "user.email", "a@b.c"],
                    ["config", "user.name", "a"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    (tmp_path / "x.py").write_text(f"remote = '{ADDRESS}'\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "x.py"], check=True)
    assert URL_PASSWORD not in str(provenance.git_state(tmp_path))
    write_text(tmp_path / "out" / "code.diff", provenance.git_diff(tmp_path))
    assert "remote = " in (tmp_path / "out" / "code.diff").read_text() and hits(tmp_path / "out") == []


def test_a_table_holds_none(trained: Trained, tmp_path: Path) -> None:
    """Planning and showing a table in a process whose environment has secrets."""
    code = "import sys; from segexp.cli import main; sys.exit(main(sys.argv[1:]))"
    for verb in ("plan", "show"):
        subprocess.run([sys.executable, "-c", code, "table", verb, "neuronet_1", "scale=smoke",
                        f"paths.outputs={tmp_path}"], env={**os.environ, **SECRETS}, capture_output=True, timeout=300)
    assert hits(tmp_path) == []
