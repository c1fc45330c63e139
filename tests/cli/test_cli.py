"""Verbs, messages and exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segexp import __version__, cli
from segexp.errors import ConfigError, DataError, PartialError

HEAVY = ("torch", "numpy", "hydra", "omegaconf", "pandas", "monai", "pytorch_lightning", "nibabel", "scipy",
         "matplotlib")


def segexp(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "segexp", *words], capture_output=True, text=True, cwd=cwd,
                          env={**os.environ, **environment}, check=False)


def test_every_verb_says_what_it_does(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in cli.verbs():
        assert f"  {verb} " in shown
        module = cli.command(verb)
        assert module.SUMMARY and "\n" not in module.SUMMARY and len(module.SUMMARY) < 100
        assert f"segexp {verb}" in module.HELP
        assert callable(module.run)


def test_no_words_and_help_are_the_same(capsys: pytest.CaptureFixture) -> None:
    texts = []
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1


def test_help_of_each_verb(capsys: pytest.CaptureFixture) -> None:
    for verb in cli.verbs():
        assert cli.main([verb, "--help"]) == 0
        assert capsys.readouterr().out.strip() == cli.command(verb).HELP.strip()


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"segexp {__version__}\n"


def test_an_unknown_verb_gets_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["trian", "seed=1"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("segexp: error: there is no verb 'trian'; did you mean train?")


@pytest.mark.parametrize(("error", "code", "text"), [
    (ConfigError("a.b: wrong"), 2, "segexp: error: a.b: wrong\n"),
    (DataError("x.nii.gz: wrong"), 3, "segexp: error: x.nii.gz: wrong\n"),
    (PartialError("1 of 2 failed"), 4, "segexp: error: 1 of 2 failed\n"),
    (KeyboardInterrupt(), 130, "segexp: interrupted\n"),
])
def test_errors_become_messages_and_exit_codes(error: BaseException, code: int, text: str,
                                               monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("SEGEXP_DEBUG", raising=False)
    monkeypatch.setattr(cli, "dispatch", lambda words: (_ for _ in ()).throw(error))
    assert cli.main(["list"]) == code
    assert capsys.readouterr().err == text


def test_an_unexpected_error_keeps_its_traceback_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("SEGEXP_DEBUG", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "dispatch", lambda words: 1 / 0)
    assert cli.main(["list"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("segexp: unexpected error: ZeroDivisionError: division by zero\n")
    (kept,) = tmp_path.iterdir()
    assert str(kept) in shown and "SEGEXP_DEBUG=1" in shown
    assert "test_cli.py" in kept.read_text() and "ZeroDivisionError" in kept.read_text()


@pytest.mark.parametrize("error", [ConfigError("wrong"), ZeroDivisionError()])
def test_debugging_shows_the_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGEXP_DEBUG", "1")
    monkeypatch.setattr(cli, "dispatch", lambda words: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        cli.main(["list"])


def test_the_command_line_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    words = ["/usr/bin/segexp", "list", "scale"]
    monkeypatch.setattr(sys, "argv", words)
    assert cli.main() == 0
    assert sys.argv is words and words == ["/usr/bin/segexp", "list", "scale"]


def test_as_a_module_and_from_another_folder(tmp_path: Path) -> None:
    # From elsewhere the package is found only because it is installed: the repository is not on the path.
    done = segexp("list", "scale", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["demo", "paper", "smoke"]
    assert segexp("lst", cwd=tmp_path).returncode == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {sys.executable} -m segexp list experiment | head -c 1"],
                          capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["list"], ["list", "experiment"],
                                   ["--complete", "segexp train data."], ["trian"]])
def test_quick_answers_import_nothing_heavy(words: list[str]) -> None:
    program = (f"import sys; from segexp.cli import main; main({words!r}); "
               f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


def test_no_command_imports_anything_heavy_at_its_top() -> None:
    program = ("import sys; from segexp import cli; [cli.command(verb) for verb in cli.verbs()]; "
               f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "HEAVY []\n"
