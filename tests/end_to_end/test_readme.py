"""The commands that the README shows work, at smoke scale."""

import re
import shlex
from pathlib import Path

import pytest

from segexp.cli import main

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[list[str]]:
    """Return every ``segexp`` line of the README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("segexp ")]
    return [shlex.split(line)[1:] for line in lines]


def at_smoke_scale(words: list[str], outputs: Path) -> list[str]:
    """Return the same command on phantoms: sizes, device and folders change, nothing else."""
    phantoms = outputs / "phantoms"
    tree, kits = phantoms / "ukbiobank_smoke", phantoms / "kits23"
    head = next(tree.glob("bulk/*/T1/T1.nii.gz"), tree)
    scan = next(kits.glob("dataset/case_00000/imaging.nii.gz"), kits)
    stand_ins = {"/data/ukb": tree, "/data/heads": head, "/data/derivatives": outputs / "derivatives",
                 "/data/wmh": phantoms / "wmh_smoke", "/data/cain": phantoms / "cain_smoke", "/data/kits23": kits,
                 "/data/ct": scan, "=outputs/": f"={outputs}/", "[0.65,0.65,1.0]": "null", "trainer=gpu": "trainer=cpu"}
    for shown, here in stand_ins.items():
        words = [word.replace(shown, str(here)) for word in words]
    verb = words[0]
    if verb in ("phantom", "train", "table", "tune") and "scale=smoke" not in words and "--help" not in words:
        words.append("scale=smoke")
    if verb not in ("list", "--help") and "--help" not in words and words != ["check"]:
        words.append(f"paths.outputs={outputs}")
    return words


@pytest.mark.slow
def test_every_command_of_the_readme_works(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shown = commands()
    assert {words[0] for words in shown} >= {
        "list", "check", "doctor", "phantom", "train", "sweep", "tune", "evaluate", "predict", "table", "runs",
        "export"}, "a verb is not shown"
    # The phantom stands for the user's own data, so it has to be there first.
    phantom = [words for words in shown if words[0] == "phantom"]
    for words in [*phantom, *(words for words in shown if words[0] != "phantom")]:
        command = at_smoke_scale(words, tmp_path)
        code = main(command)
        captured = capsys.readouterr()
        assert code == 0, f"segexp {' '.join(command)}\n{captured.out}\n{captured.err}"
        assert captured.out.strip(), f"segexp {' '.join(command)} printed nothing"
    found = {name.split("desc-")[1].split("_dseg")[0] for name in map(str, tmp_path.rglob("*_dseg.nii.gz"))}
    assert found == {"fsl_fast", "fsl_first", "spm_tissue", "malp_em", "malp_em_tissue", "kidney"}


def test_the_two_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in README.read_text()
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (README.parent / ".ci" / "run").read_text()
