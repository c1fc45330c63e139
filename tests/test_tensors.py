"""Files of tensors: whole at every moment, refused when they are not what was written, executing nothing."""

import os
import pickle
import random
import resource
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segexp import tensors
from segexp.tensors import TensorFileError


def content(step: int, size: int = 100_000) -> dict:
    """Return what a checkpoint looks like; every value says which step it belongs to."""
    return {"global_step": step, "state_dict": {"weight": torch.full((size,), float(step))}, "lr": [0.1, (1, None)],
            "name": "a", "milestones": Counter({3: 1})}


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process; return its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    digest = tensors.save(content(3), file)
    assert tensors.hashes(file) == [digest]
    loaded = tensors.load(file)
    assert isinstance(loaded["milestones"], Counter) and loaded["lr"] == [0.1, (1, None)]
    assert torch.equal(loaded["state_dict"]["weight"], torch.full((100_000,), 3.0))


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    file, kept = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2, 3):
        tensors.save(content(step), file, keep=kept)
    assert tensors.load(file)["global_step"] == 3 and tensors.load(kept)["global_step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hashes.json", "last.ckpt", "previous.ckpt"]


def kill_while_writing(folder: Path, kills: int) -> int:
    """Kill a process that writes checkpoints without end, again and again; return how often it had written."""
    file, kept, seed = folder / "last.ckpt", folder / "previous.ckpt", random.Random(0)
    tensors.save(content(0), file, keep=kept)

    def write() -> None:
        step = tensors.load(file)["global_step"]
        while True:
            step += 1
            tensors.save(content(step), file, keep=kept)

    reached = 0
    for _ in range(kills):
        child = in_child(write)
        time.sleep(seed.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        loaded = tensors.load(file)
        assert loaded["global_step"] >= reached
        assert bool((loaded["state_dict"]["weight"] == loaded["global_step"]).all())
        reached = loaded["global_step"]
        if kept.exists():
            assert tensors.load(kept)["global_step"] in (reached, reached - 1)
    return reached


def test_a_kill_leaves_a_loadable_file(tmp_path: Path) -> None:
    assert kill_while_writing(tmp_path, 15) > 0


@pytest.mark.long_faults
def test_two_hundred_kills_leave_a_loadable_file(tmp_path: Path) -> None:
    print(f"200 kills survived, {kill_while_writing(tmp_path, 200)} files written")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    file, report = tmp_path / "last.ckpt", tmp_path / "report.txt"
    tensors.save(content(1), file)
    before = file.read_bytes()

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            tensors.save(content(2), file, keep=tmp_path / "previous.ckpt")
        except TensorFileError as error:
            report.write_text(str(error))

    os.waitpid(in_child(write), 0)
    assert "could not be written" in report.read_text() and str(file) in report.read_text()
    assert file.read_bytes() == before and tensors.load(file)["global_step"] == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or "previous" in path.name]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_cut_file_is_refused(tmp_path: Path, part: float) -> None:
    file = tmp_path / "last.ckpt"
    tensors.save(content(1), file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(TensorFileError, match=r"last\.ckpt"):
        tensors.load(file)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    tensors.save(content(1), file)
    whole = file.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 20):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(TensorFileError):
            tensors.load(file)
    file.write_bytes(whole)
    assert tensors.load(file)["global_step"] == 1


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return Path.touch, (self.canary,)


def test_other_things_than_tensors_are_neither_written_nor_executed(tmp_path: Path) -> None:
    canary, file = tmp_path / "canary", tmp_path / "hostile.ckpt"
    with pytest.raises(TensorFileError, match=r"callbacks\.hook\[0\] is a .*Payload"):
        tensors.save({"callbacks": {"hook": [Payload(canary)]}}, file)
    assert not file.exists()
    torch.save({"state_dict": {}, "hyper": Payload(canary)}, file)
    with pytest.raises(TensorFileError, match="cannot be loaded"):
        tensors.load(file)
    file.write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(TensorFileError, match="no file of weights"):
        tensors.load(file)
    assert not canary.exists()


def test_a_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"0" * 50_000_000)
    with pytest.raises(TensorFileError, match="declares more than it holds"):
        tensors.load(file)
