"""Run directories: finding them, their status, one writer at a time."""

import multiprocessing
from pathlib import Path

import pytest

from segexp.errors import ConfigError, SegexpError
from segexp.files import write_json
from segexp.runs import Run, find_run, get_run, list_runs


def make(outputs: Path, name: str, **info: object) -> Run:
    run = Run(outputs / "runs" / "neuronet" / name)
    write_json(run.path / "run.json", {"status": "done", **info})
    return run


def test_runs_are_found_by_id_hash_beginning_and_directory(tmp_path: Path) -> None:
    run = make(tmp_path, "nn_all-seed1-0123abcd")
    make(tmp_path, "nn_tissue-seed1-89abcdef")
    for name in ("nn_all-seed1-0123abcd", "0123abcd", "nn_all", str(run.path)):
        assert find_run(tmp_path, name).id == run.id
    assert find_run(tmp_path, "nothing") is None
    assert [item.id for item in list_runs(tmp_path)] == ["nn_all-seed1-0123abcd", "nn_tissue-seed1-89abcdef"]


def test_an_ambiguous_beginning_names_the_candidates(tmp_path: Path) -> None:
    make(tmp_path, "nn_all-seed1-0123abcd")
    make(tmp_path, "nn_all-seed2-1123abcd")
    with pytest.raises(ConfigError, match=r"seed1.*seed2"):
        find_run(tmp_path, "nn_all")


def test_an_unknown_run_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run below"):
        get_run(tmp_path, "nn_all")
    make(tmp_path, "nn_all-seed1-0123abcd")
    with pytest.raises(ConfigError, match="nn_all-seed1-0123abcd"):
        get_run(tmp_path, "nn_al-seed1-0123abcd")


def hold_and_die(path: Path, ready: object) -> None:
    import os
    import signal

    run = Run(path)
    holder = run.hold()
    holder.__enter__()
    run.update(status="running")
    ready.set()
    signal.pause()
    os._exit(0)


def test_a_second_writer_is_refused_and_a_killed_one_leaves_the_run_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "neuronet" / "a-seed1-00000000"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold_and_die, args=(path, ready))
    process.start()
    assert ready.wait(20)
    run = Run(path)
    assert run.status == "running"
    with pytest.raises(SegexpError, match=f"process {process.pid}"), run.hold():
        pass
    process.kill()
    process.join()
    assert run.status == "interrupted"
    with run.hold():
        assert run.status == "running"


def test_a_damaged_run_json_is_named(tmp_path: Path) -> None:
    run = make(tmp_path, "a-seed1-00000000")
    (run.path / "run.json").write_text("{")
    with pytest.raises(SegexpError, match=r"run\.json"):
        _ = run.status
