"""The Tab key, asked through a real shell."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from segexp.cli import main, verbs
from segexp.commands.completion import SCRIPTS, candidates
from segexp.config import conf_dir, folder

EXPERIMENTS = folder.choices([conf_dir()], "experiment")


@pytest.mark.parametrize(("line", "expected"), [
    ("segexp ", set(verbs())),
    ("segexp tra", {"train"}),
    ("segexp completion ", set(SCRIPTS)),
    ("segexp train exp", {"experiment="}),
    ("segexp train experiment=", {f"experiment={name}" for name in EXPERIMENTS}),
    ("segexp train seed=1 scale=d", {"scale=demo"}),
    ("segexp train method/targets=nn", {"method/targets=nn_all", "method/targets=nn_tissue"}),
    ("segexp train -m optimizer=adam,s", {"optimizer=adam,sgd", "optimizer=adam,sgd_momentum"}),
    ("segexp train optimizer.", {"optimizer.lr=", "optimizer.eps="}),
    ("segexp train logger=wandb logger.wandb.mode=o", {"logger.wandb.mode=offline", "logger.wandb.mode=online"}),
    ("segexp train --con", {"--config-dir"}),
    ("segexp train nothing.like.this", set()),
    ("segexp nonsense ", set()),
])
def test_candidates(line: str, expected: set[str]) -> None:
    assert set(candidates(line)) == expected


def test_keys_at_the_top_and_groups() -> None:
    found = candidates("segexp train ")
    assert {"experiment=", "scale=", "seed=", "steps=", "trainer.", "trainer=", "paths."} <= set(found)


def test_folders_of_the_user_are_completed(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("lr: 1\nspecial: 2\n")
    for flag in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}"):
        assert candidates(f"segexp train {flag} optimizer=m") == ["optimizer=mine"]
        assert candidates(f"segexp train {flag} optimizer=mine optimizer.s") == ["optimizer.special="]


def ask_bash(line: str, folder: Path) -> list[str]:
    """Let a real bash source the script and press Tab at the end of ``line``; return the words it offers."""
    program = folder / "segexp"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m segexp \"$@\"\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    asking = """
        eval "$(segexp completion bash)"
        COMP_LINE="$1" COMP_POINT=${#1}
        # Readline splits words at COMP_WORDBREAKS, `=` and `:` included.
        IFS=$' \\t\\n=' read -ra COMP_WORDS <<< "$COMP_LINE"
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        complete -p segexp >/dev/null && _segexp_completion
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", asking, "bash", line], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash(tmp_path: Path) -> None:
    assert set(ask_bash("segexp ", tmp_path)) == set(verbs())
    assert ask_bash("segexp train exp", tmp_path) == ["experiment="]
    # Readline only replaces what follows the `=`.
    assert ask_bash("segexp train scale=d", tmp_path) == ["demo"]
    assert set(ask_bash("segexp train experiment=neuronet/nn_", tmp_path)) == {"neuronet/nn_all", "neuronet/nn_tissue"}
    assert ask_bash("segexp train -m seed=1 optimizer=adam,sg", tmp_path) == ["adam,sgd", "adam,sgd_momentum"]
    assert ask_bash("segexp train nothing.like", tmp_path) == []


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_scripts_are_valid(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell(capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err
    assert main(["completion"]) == 2
