"""The index: a memory that may be lost, cut or outdated, and never lies."""

import os
import time
from pathlib import Path

import pytest

from segexp.predictions.index import Entry, Index, state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    return path


def test_any_change_of_a_file_changes_its_state(file: Path) -> None:
    before, times = state(file), file.stat()
    time.sleep(0.02)
    file.write_bytes(b"abd")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time set back, as unpacking does
    assert state(file) != before
    assert state(file.with_name("nothing")) is None


def test_what_one_worker_finds_others_know(tmp_path: Path) -> None:
    first, second = Index(tmp_path), Index(tmp_path)
    first.add("a", Entry([1, 2, 3, 4, "f"], {"t": [[1], [2], "h"]}))
    assert second.get("a") is None
    second.refresh()
    assert second.get("a", fresh=True) == first.get("a")
    second.add("a", Entry([1, 2, 3, 4, "g"], {}))
    first.refresh()
    assert first.get("a").input[-1] == "g"
    third = Index(tmp_path)
    assert third.get("a").input[-1] == "g"  # the newest line counts
    assert third.get("a", fresh=True) is None


def test_a_line_that_was_cut_is_no_line(tmp_path: Path) -> None:
    first = Index(tmp_path)
    first.add("a", Entry([1], {}))
    first.add("b", Entry([2], {}))
    path = next((tmp_path / "index").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-6] + b"\xff\x00\n" + b"half a li")
    again = Index(tmp_path)
    assert again.get("a").input == [1] and again.get("b") is None


def test_closed_files_become_one(tmp_path: Path) -> None:
    for number in range(5):
        index = Index(tmp_path)
        index.add("a", Entry([number], {}))
        index.add(f"b{number}", Entry([number], {}))
        index.close()
    writing = Index(tmp_path)
    writing.add("c", Entry([9], {}))
    last = Index(tmp_path)
    last.compact()
    files = list((tmp_path / "index").iterdir())
    assert len(files) == 2 and {path.suffix for path in files} == {".jsonl"}  # that of `writing` is left alone
    fresh = Index(tmp_path)
    assert fresh.get("a").input == [4] and fresh.get("b0").input == [0] and fresh.get("c").input == [9]
    writing.refresh()
    assert writing.get("a").input == [4]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("in the way")
    index = Index(tmp_path)
    index.add("a", Entry([1], {}))
    assert index.get("a").input == [1]
    index.compact()
