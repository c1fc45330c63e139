"""A sweep on disk: what is written, cut, unwritable or not ours."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segexp.cli import main
from segexp.config import compose
from segexp.errors import ConfigError, SegexpError
from segexp.sweeps.job import Job, make_job, names_of
from segexp.sweeps.manifest import Sweep, append, create_sweep, get_sweep, list_sweeps, read_lines

WORDS = ("experiment=neuronet/nn_tissue", "scale=smoke", "trainer=cpu", "data.root=/data")


def make_jobs(outputs: Path, *seeds: int) -> list[Job]:
    combinations = [[*WORDS, f"paths.outputs={outputs}", f"seed={seed}"] for seed in seeds]
    return [make_job(compose("train", words), words, name)
            for words, name in zip(combinations, names_of(combinations), strict=True)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    outputs = tmp_path_factory.mktemp("outputs")
    return create_sweep(outputs, "mine", make_jobs(outputs, 1, 2), command=["segexp", "train"],
                        launcher={"kind": "local", "slots": 2})


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow: what a full disk does, for this process only."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_jobs_come_back_from_disk(sweep: Sweep) -> None:
    jobs = list(get_sweep(sweep.outputs, "mine").jobs().values())
    assert [job.name for job in jobs] == ["seed=1", "seed=2"] and not any(job.gpu for job in jobs)
    assert jobs == make_jobs(sweep.outputs, 1, 2)  # also their runs
    assert sweep.header["launcher"] == {"kind": "local", "slots": 2}
    text = sweep.config_file(jobs[0].id).read_text()
    assert text.startswith("# segexp train experiment=neuronet/nn_tissue") and "folder: ${paths.run}" in text


def test_the_same_jobs_are_the_same_sweep(sweep: Sweep) -> None:
    jobs = make_jobs(sweep.outputs, 2, 1, 1)
    assert create_sweep(sweep.outputs, "mine", jobs).folder == sweep.folder
    assert create_sweep(sweep.outputs, "mine", jobs[:1]).folder != sweep.folder


def test_a_cut_line_is_left_out_and_said(sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "sweeps" / "cut"
    folder.mkdir(parents=True)
    text = (sweep.folder / "manifest.jsonl").read_text()
    (folder / "manifest.jsonl").write_text(text[:-30])
    assert len(Sweep(folder).jobs()) == 1
    assert "line 3 is cut" in capsys.readouterr().out
    append(folder / "manifest.jsonl", {"more": 1})
    assert read_lines(folder / "manifest.jsonl")[-1] == {"more": 1}


def test_a_strangers_manifest_leads_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "evil"
    for line in ({"id": "../../x", "name": "a", "run": "runs/a"}, {"id": "abcd1234", "name": "a", "run": "../../etc"}):
        append(folder / "manifest.jsonl", line)
    with pytest.raises(SegexpError, match="outside its outputs"):
        Sweep(folder).jobs()
    assert Sweep(folder).config_file("abcd1234").is_relative_to(folder)


def test_names(sweep: Sweep, capsys: pytest.CaptureFixture) -> None:
    assert get_sweep(sweep.outputs, sweep.name.rpartition("-")[2]) == sweep
    assert sweep in list_sweeps(sweep.outputs)
    with pytest.raises(ConfigError, match=f"did you mean {sweep.name}"):
        get_sweep(sweep.outputs, sweep.name + "x")
    assert names_of([["a=1", "b=x,y"], ["a=1", "b=2", "+c=3"]]) == ["b=x,y", "b=2 +c=3"]
    outputs = f"paths.outputs={sweep.outputs}"
    assert main(["sweep", "status", "mine-", outputs]) in (2, 4)
    assert main(["sweep", "stat", outputs]) == 2 and "did you mean status" in capsys.readouterr().err
    assert main(["sweep", "status", outputs]) == 2 and "needs one NAME" in capsys.readouterr().err
    assert main(["sweep", "resume", sweep.name, outputs, "seed=2"]) == 2
    assert main(["sweep", "resume", sweep.name, outputs, "hydra.launcher.slot=2"]) == 2
    assert "did you mean slots" in capsys.readouterr().err


def test_a_full_disk_and_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    jobs = make_jobs(tmp_path, 1)
    with full_disk(), pytest.raises(SegexpError, match=r"manifest cannot be written \(File too large\)"):
        create_sweep(tmp_path, "full", jobs)
    assert not list_sweeps(tmp_path) and not list(tmp_path.rglob("*.part"))
    sweep = create_sweep(tmp_path, "full", jobs)
    with full_disk():
        sweep.record(event="submitted", job="x")
    assert "the sweep goes on without its record" in capsys.readouterr().out
    with pytest.raises(SegexpError, match="cannot be written"):
        create_sweep("/proc/nowhere", "mine", make_jobs(Path("/proc/nowhere"), 1))


def test_what_runs_commands_is_not_taken_from_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    jobs = make_jobs(tmp_path, 1)
    canary = tmp_path / "canary"
    sweep = create_sweep(tmp_path, "mine", jobs, launcher={"kind": "slurm", "setup": [f"touch {canary}"]})
    assert main(["sweep", "resume", sweep.name, f"paths.outputs={tmp_path}"]) == 2
    assert "hydra.launcher.setup" in capsys.readouterr().err and not canary.exists()


def test_typos_start_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    outputs = f"paths.outputs={tmp_path}"
    for words, message in (
        (["seed=1,2", "sed=3"], "did you mean seed"),
        (["experiment=neuronet/nn_tissue,neuronet/nn_al"], "did you mean neuronet/nn_all"),
        (["seed=1,2", "hydra/launcher=slrm"], "slurm"),
        (["seed=1,2", "hydra.launcher.slots=0"], "expected 1 or more"),
    ):
        assert main(["train", "-m", *WORDS, outputs, *words]) == 2, words
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() and not list(tmp_path.rglob("*.lock"))


def test_events_survive_two_writers(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            for number in range(200):
                append(file, {"writer": writer, "number": number})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(read_lines(file)) == 800 and json.loads(file.read_text().splitlines()[0])
