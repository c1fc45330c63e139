"""Rows 8 and 9: eight processes on a cold cache, stale sources, damaged entries: never a wrong voxel."""

import multiprocessing
import os
import random
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from segexp.data import cache as cache_module
from segexp.data.cache import Cache
from segexp.data.labelmap import LabelMap
from tests.data.heads import LABEL_MAPS, arrays, write

PROCESSES = 8
MALP = LabelMap.from_mapping("malp_em", LABEL_MAPS["malp_em"])


def canonical(array: np.ndarray) -> np.ndarray:
    return array[::-1]  # the tests' files are stored LAS


def checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array))


def read_in_child(folder: Path, image: Path, labels: Path, barrier: object, queue: object) -> None:
    """Open both entries as soon as everybody is there, several times, and send what was read."""
    barrier.wait()
    try:
        found = []
        for _ in range(3):
            cache = Cache(folder)
            found += [checksum(cache.image(image).array()), checksum(cache.labels(labels, MALP).whole())]
            cache.hashes.save()
        queue.put(found)
    except BaseException as error:
        queue.put([repr(error)])


def race(tmp_path: Path, rounds: int, damage: bool = False) -> tuple[int, int]:
    """Return readings and wrong ones of ``rounds`` cold starts; with ``damage`` an entry is cut before each start."""
    context = multiprocessing.get_context("fork")
    made = arrays(7, (40, 40, 40))
    image, labels = write(tmp_path / "T1.nii.gz", made["image"]), write(tmp_path / "malp.nii.gz", made["malp_em"])
    expected = [checksum(canonical(made["image"])), checksum(canonical(made["malp_em"]).astype(np.uint8))] * 3
    wrong = total = 0
    for number in range(rounds):
        folder = tmp_path / ("cache" if damage else f"cache{number}")
        if damage and number:
            for file in folder.glob("volumes/*/*/volume.npy"):
                os.truncate(file, file.stat().st_size * (number % 10) // 10)
        barrier, queue = context.Barrier(PROCESSES), context.Queue()
        children = [context.Process(target=read_in_child, args=(folder, image, labels, barrier, queue))
                    for _ in range(PROCESSES)]
        for child in children:
            child.start()
        for _ in children:
            found = queue.get(timeout=120)
            total += len(expected)
            wrong += sum(one != two for one, two in zip(found, expected, strict=True)) if len(found) == 6 else 6
        for child in children:
            child.join()
        assert len(list(folder.glob("volumes/*/*/volume.npy"))) == 2
        assert not list(folder.glob("volumes/*/.*")), "a half-built entry is left"
    return total, wrong


@pytest.mark.parametrize("damage", [False, True])
def test_eight_processes_on_a_cold_cache(tmp_path: Path, damage: bool) -> None:
    assert race(tmp_path, 3, damage) == (3 * PROCESSES * 6, 0)


@pytest.mark.long_faults
@pytest.mark.parametrize("damage", [False, True])
def test_fifty_cold_starts(tmp_path: Path, damage: bool) -> None:
    total, wrong = race(tmp_path, 50, damage)
    print(f"\ncache race ({'damaged' if damage else 'cold'}): {wrong} wrong of {total} readings, 50 starts of "
          f"{PROCESSES} processes")
    assert wrong == 0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path / "T1.nii.gz", arrays(1)["image"])


def sound(folder: Path, path: Path, seed: int) -> None:
    np.testing.assert_array_equal(Cache(folder).image(path).array(), canonical(arrays(seed)["image"]))


@pytest.mark.parametrize("name", ["volume.npy", "samples.npy", "meta.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_entries_are_built_again_and_said(tmp_path: Path, name: str, share: float,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    raw = arrays(1)["malp_em"]
    path, folder = write(tmp_path / "m.nii.gz", raw), tmp_path / "cache"
    file = Cache(folder).labels(path, MALP).folder / name
    os.truncate(file, int(file.stat().st_size * share))
    again = Cache(folder).labels(path, MALP)
    np.testing.assert_array_equal(again.whole(), canonical(raw))
    assert f"the entry of {path} is damaged" in capsys.readouterr().out
    assert all(raw[::-1][again.voxel(np.random.default_rng(0), k)] == MALP.values[k]
               for k in range(1, 139) if again.counts[k])


def flips(tmp_path: Path, image: Path, count: int, seed: int) -> tuple[int, int]:
    """Flip bits of an entry's files, times restored; return wrong readings and entries that were built again."""
    folder, generator = tmp_path / "cache", random.Random(seed)
    expected, wrong, rebuilt = canonical(arrays(1)["image"]), 0, 0
    before = Cache(folder).image(image)
    for number in range(count):
        file = before.folder / ("meta.json" if number % 4 == 0 else "volume.npy")
        state, content = file.stat(), bytearray(file.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        file.write_bytes(content)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        inode = (before.folder / "volume.npy").stat().st_ino
        found = Cache(folder).image(image)
        wrong += not np.array_equal(found.array(), expected) or found != before
        rebuilt += (before.folder / "volume.npy").stat().st_ino != inode
    return wrong, rebuilt


def test_single_bits_of_an_entry_with_its_times_restored(tmp_path: Path, image: Path) -> None:
    assert flips(tmp_path, image, 40, seed=1) == (0, 40)


@pytest.mark.long_faults
def test_a_thousand_bits_of_an_entry(tmp_path: Path, image: Path) -> None:
    wrong, rebuilt = flips(tmp_path, image, 1000, seed=2)
    print(f"\ncache entries with one wrong bit: {rebuilt} of 1000 built again, wrong voxels in {wrong}")
    assert (wrong, rebuilt) == (0, 1000)


def test_a_number_of_two_volumes_that_was_damaged_is_computed_again(tmp_path: Path, image: Path) -> None:
    cache = Cache(tmp_path / "cache")
    stored = cache.image(image)
    assert cache.pair("n", stored, stored, lambda: 0.25) == 0.25
    file = next((tmp_path / "cache").glob("pairs/*/*.json"))
    for damage in (file.read_text().replace("0.25", "0.75"), "", "[1]", "{}", '{"value": 1, "crc32": null}'):
        file.write_text(damage)
        assert cache.pair("n", stored, stored, lambda: 0.25) == 0.25


@pytest.mark.parametrize("restore", ["nothing", "times", "times and inode"])
def test_an_edited_source_is_read_again(tmp_path: Path, image: Path, restore: str) -> None:
    folder = tmp_path / "cache"
    time.sleep(0.05)
    for seed in (1, 2, 1, 3):
        state = image.stat()
        new = write(tmp_path / "new.nii", arrays(seed)["image"]).read_bytes()
        if restore == "times and inode":
            with image.open("r+b") as file:  # in place
                file.write(new)
                file.truncate()
        else:
            image.write_bytes(new)
        if restore != "nothing":
            os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
        cache = Cache(folder)
        np.testing.assert_array_equal(cache.image(image).array(), canonical(arrays(seed)["image"]))
        cache.hashes.save()


def test_edits_within_one_tick_of_the_clock_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose times have ticks of 10 ms, as ext4's had, and a source edited between two readings."""
    real = cache_module._state
    monkeypatch.setattr(cache_module, "_state", lambda path: [
        one // 10_000_000 * 10_000_000 if index in (1, 2) else one for index, one in enumerate(real(path))])
    image = tmp_path / "T1.nii"
    contents = [write(tmp_path / f"{seed}.nii", arrays(seed)["image"]).read_bytes() for seed in (1, 2)]
    cache, stale = Cache(tmp_path / "cache"), 0
    for number in range(300):
        image.write_bytes(contents[number % 2])
        stale += not np.array_equal(cache.image(image).array(), canonical(arrays(1 + number % 2)["image"]))
    assert stale == 0


def test_a_clock_that_jumps_does_not_make_anything_stale(tmp_path: Path, image: Path) -> None:
    folder = tmp_path / "cache"
    for moment in (0, 4_000_000_000, 2_000_000_000):  # 1970, 2096, 2033
        for seed in (1, 2):
            image.write_bytes(write(tmp_path / "new.nii", arrays(seed)["image"]).read_bytes())
            os.utime(image, (moment, moment))
            sound(folder, image, seed)
        for file in folder.rglob("*"):
            os.utime(file, (moment, moment))
        sound(folder, image, 2)


def test_a_copied_cache_is_verified_once(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    Cache(tmp_path / "cache").image(image)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    sound(tmp_path / "copy", image, 1)
    monkeypatch.setattr("segexp.data.cache._crc32", lambda _: pytest.fail("read again"))
    sound(tmp_path / "copy", image, 1)
