"""Row 21: clocks that jump, folders that cannot be written, names that are not what programs expect: no traceback."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segexp import files
from segexp.cli import main
from segexp.console import logged_to, say
from segexp.data.cache import Cache, CacheError
from segexp.data.nifti import read, write_labels
from segexp.errors import DataError, SegexpError
from segexp.files import write_json, write_text
from tests.data.heads import Folder, arrays, bulk_id, write
from tests.faults.conftest import Trained, elsewhere, results, words
from tests.faults.images import packed, raw, written

ODD = {
    "space": "my data (copy)", "emoji": "🧠 scans", "accents": "Universität_Zürich", "Chinese": "患者",
    "quote": "it's \"it\"", "brackets": "[a]{b}", "percent": "50%_$HOME", "dashes": "--x", "hash": "#1 & co; ls",
    "star": "a*b?", "dot": "...x",
    "not UTF-8": os.fsdecode(b"scans_\xff\xe9"), "long": "x" * 200,
}


def quoted(path: Path) -> str:
    """Return a path as a person has to write it in an override."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


@pytest.mark.parametrize("name", ODD)
def test_data_in_odd_folders_are_checked(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path / ODD[name])
    for number in range(2):
        folder.add(bulk_id(number), seed=number)
    outputs = tmp_path / ODD[name] / "out"
    code = main(["check", "data=ukbiobank", f"data.root={quoted(folder.root)}", f"paths.outputs={quoted(outputs)}",
                 f"data.derived_root={quoted(folder.derived)}"])
    said = capsys.readouterr()
    if code == 0:
        assert "2 cases: 2 ok" in said.out and list(outputs.glob("manifests/*.csv"))
    else:  # a typed refusal, with a reason
        assert code in (1, 2, 3) and "segexp: error:" in said.err, said.err
        assert name in ("not UTF-8", "percent", "brackets")
    assert "Traceback" not in said.err and "unexpected error" not in said.err


@pytest.mark.parametrize("name", ODD)
def test_images_with_odd_names_are_read_and_written(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = written(tmp_path / ODD[name] / f"{ODD[name]}.nii.gz", packed(raw()))
    volume = read(path)
    target = tmp_path / ODD[name] / "out" / f"{ODD[name][:180]}_dseg.nii.gz"
    write_labels(target, (volume.array > 1000).astype("u1"), volume.source)
    assert read(target).array.max() == 1
    monkeypatch.setattr("segexp.data.cache.SETTLED", 0)
    cache = Cache(tmp_path / ODD[name] / "cache")
    assert cache.image(path).shape == volume.array.shape
    assert cache.image(path).mean == Cache(tmp_path / ODD[name] / "cache").image(path).mean
    cache.hashes.save()
    json.loads((tmp_path / ODD[name] / "cache" / "sources.json").read_text(encoding="utf-8"))


def test_a_run_below_an_odd_folder(trained: Trained, tmp_path: Path) -> None:
    outputs = tmp_path / "🧠 runs of Müller (copy)"
    assert main([*elsewhere(trained, tmp_path / "x"), f"data.cache={quoted(tmp_path / 'cache é')}",
                 f"paths.outputs={quoted(outputs)}"]) == 0
    assert results(outputs)[2] == results(trained.outputs)[2]
    run = next((outputs / "runs" / "neuronet").iterdir())
    assert main(["evaluate", f"run={quoted(run)}", f"output={quoted(tmp_path / 'scores ü')}"]) == 0


LONG = "x" * 4096
DEEP = "/".join(["folder" * 10] * 70)


@pytest.mark.parametrize("where", [LONG, DEEP, f"a/{LONG}", "x" * 256], ids=["name", "depth", "inner", "256"])
def test_paths_that_are_too_long_are_typed_errors(where: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / where / "a.nii.gz"
    with pytest.raises(DataError, match=r"cannot be read"):
        read(path)
    for key in ("data.root", "paths.outputs", "data.cache"):
        code = main([*words(tmp_path / "out", "data.root=/nowhere"), f"{key}={tmp_path / where}"])
        said = capsys.readouterr().err
        assert code in (1, 2, 3) and "Traceback" not in said and "unexpected error" not in said, (key, said[-500:])
        assert len(said) < 50_000
    for command in (["check", "data=ukbiobank", f"data.root={tmp_path / where}"],
                    ["evaluate", f"run={tmp_path / where}"], ["predict", f"run={where}", "input=a", "output=b"]):
        code = main([*command, f"paths.outputs={tmp_path / 'out'}"])
        said = capsys.readouterr().err
        assert code in (1, 2, 3) and "unexpected error" not in said, (command[0], said[-500:])


@pytest.mark.parametrize("name", [LONG, "x" * 300, "a/b", "../x", "x\ny", "🧠", "a b", ""])
def test_names_of_runs_are_names_of_folders(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, f"name='{name}'", "data.root=/nowhere")) in (1, 2, 3)
    said = capsys.readouterr().err
    assert "ame" in said or "no such folder" in said
    assert ("unexpected" not in said and not (tmp_path / "runs").exists()) or name in ("🧠", "")


def refusing(kind: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(kind, os.strerror(kind), "/outputs")
    return refuse


@pytest.mark.parametrize("kind", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_cannot_be_written_is_a_typed_error(kind: int, trained: Trained, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """As an administrator's account writes everywhere, the system's answer is put in where files are made."""
    image = written(tmp_path / "T1.nii.gz", packed(raw()))
    monkeypatch.setattr(files.tempfile, "mkstemp", refusing(kind))
    monkeypatch.setattr("segexp.data.cache.tempfile.mkdtemp", refusing(kind))
    with pytest.raises(CacheError, match=r"data\.cache"):
        Cache(tmp_path / "cache").image(image)
    for command in (["check", "data=ukbiobank", f"data.root={trained.images / 'bulk'}",
                     f"data.derived_root={trained.images / 'derived'}", f"output={tmp_path / 'm.csv'}",
                     f"data.cache={trained.outputs / 'cache' / 'ukbiobank'}"],
                    ["predict", f"run={trained.run}", f"input={image}", f"output={tmp_path / 'labels'}"]):
        code = main([*command, f"paths.outputs={tmp_path / 'out'}"])
        said = capsys.readouterr().err
        assert code != 0 and "Traceback" not in said and "unexpected error" not in said, (command[0], said)
        assert os.strerror(kind) in said


def test_nothing_below_a_file(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for key in ("paths.outputs", "data.cache"):
        code = main([*elsewhere(trained, tmp_path / "out"), f"{key}={tmp_path / 'file' / 'below'}"])
        said = capsys.readouterr().err
        assert code != 0 and "unexpected error" not in said, said
        assert "Not a directory" in said or "cannot be" in said


MOMENTS = {"1970": 0.0, "an hour ahead": 3_600.0, "ten years ahead": 315e6}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_whose_files_are_from_another_time_is_what_it_was(moment: str, trained: Trained,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    stamp = MOMENTS[moment] and time.time() + MOMENTS[moment]
    for path in [*trained.run.rglob("*"), *(trained.outputs / "cache").rglob("*")]:
        os.utime(path, (stamp, stamp))
    assert main(words(trained.outputs)) == 0
    assert "is done already" in capsys.readouterr().out
    assert main(["check", "data=ukbiobank", f"data.root={trained.images / 'bulk'}",
                 f"data.derived_root={trained.images / 'derived'}", f"paths.outputs={trained.outputs}"]) == 0


def test_the_clock_may_jump_while_something_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Times that are shown come from the monotonic clock; the wall clock may go anywhere."""
    real, jumps = time.time, iter([0.0, 4e9, -1e6] * 1000)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + next(jumps)) * 1e9))
    path = write(tmp_path / "T1.nii.gz", arrays(1)["image"])
    for _ in range(6):
        cache = Cache(tmp_path / "cache")
        assert (cache.image(path).array() == arrays(1)["image"][::-1]).all()
        cache.hashes.save()


def test_texts_with_names_that_are_no_utf8_are_said_and_written(tmp_path: Path, capsys: Any) -> None:
    name = os.fsdecode(b"/data/\xff\xe9/T1.nii.gz")
    with logged_to(tmp_path / "log.txt"):
        say(f"data: {name}")
    write_text(tmp_path / "a.txt", name)
    write_json(tmp_path / "a.json", {name: name})
    assert "T1.nii.gz" in capsys.readouterr().out
    for file in ("log.txt", "a.txt", "a.json"):
        assert "T1.nii.gz" in (tmp_path / file).read_text(encoding="utf-8")
    with pytest.raises(SegexpError):
        read(name)
