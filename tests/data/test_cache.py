import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest

from segexp.data.cache import Cache, CacheError
from segexp.data.labelmap import LabelMap
from segexp.data.store import SAMPLES, DerivedLabels
from segexp.errors import DataError
from tests.data.heads import LABEL_MAPS, arrays, tissue_of, write

MAPS = {target: LabelMap.from_mapping(target, LABEL_MAPS[target]) for target in LABEL_MAPS}


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Trust the times of files that were written just now."""
    monkeypatch.setattr("segexp.data.cache.SETTLED", 0)


def volumes(folder):
    return sorted((folder / "volumes").glob("*/*/volume.npy"))


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "T1.nii.gz", arrays(1)["image"])


def canonical(array):
    return array[::-1]  # the tests' files are stored LAS


def test_images_keep_their_integers_and_are_normalised_by_the_whole_volume(tmp_path, image):
    stored = Cache(tmp_path / "cache").image(image)
    expected = canonical(arrays(1)["image"])
    assert stored.array().dtype == np.int16
    np.testing.assert_array_equal(stored.array(), expected)
    values = expected.astype(np.float64)
    np.testing.assert_allclose(stored.whole(), (values - values.mean()) / values.std(), atol=1e-5)
    assert abs(stored.whole().mean()) < 1e-4 and abs(stored.whole().std() - 1) < 1e-4
    with pytest.raises(ValueError, match="read-only"):
        stored.array()[0, 0, 0] = 1


def test_label_maps_know_their_classes(tmp_path):
    raw = arrays(1)["fsl_first"].copy()
    raw[raw == 26] = 0
    path = write(tmp_path / "first.nii.gz", raw)
    stored = Cache(tmp_path / "cache").labels(path, MAPS["fsl_first"])
    classes = MAPS["fsl_first"].encode(canonical(raw), path)
    np.testing.assert_array_equal(stored.whole(), classes)
    assert stored.counts == tuple(np.bincount(classes.ravel(), minlength=16))
    assert stored.counts[8] == 0 and stored.boxes[8] is None
    rng = np.random.default_rng(0)
    for label in range(1, 16):
        if stored.counts[label]:
            found = np.argwhere(classes == label)
            assert stored.boxes[label] == (tuple(found.min(0)), tuple(found.max(0)))
            drawn = {stored.voxel(rng, label) for _ in range(300)}
            assert all(classes[voxel] == label for voxel in drawn)
            assert len(drawn) > min(SAMPLES, len(found)) * 0.8


def test_derived_labels_are_the_lookup_of_their_source(tmp_path):
    malp = arrays(2)["malp_em"]
    stored = Cache(tmp_path / "cache").labels(write(tmp_path / "m.nii.gz", malp), MAPS["malp_em"])
    table = tissue_of(np.arange(139))
    derived = DerivedLabels(stored, table, 6)
    expected = tissue_of(canonical(malp))
    np.testing.assert_array_equal(derived.whole(), expected)
    assert derived.counts == tuple(np.bincount(expected.ravel(), minlength=6))
    np.testing.assert_array_equal(derived.crop((1, 2, 3), (4, 5, 6)), expected[1:5, 2:7, 3:9])
    rng = np.random.default_rng(0)
    assert all(expected[derived.voxel(rng, label)] == label for label in range(1, 6) for _ in range(50))


def test_unchanged_files_are_neither_read_nor_decoded_again(tmp_path, image):
    first = Cache(tmp_path / "cache")
    stored = first.image(image)
    first.hashes.save()
    before = stored.folder.stat().st_mtime_ns, (stored.folder / "volume.npy").stat().st_mtime_ns
    again = Cache(tmp_path / "cache")
    again.hashes.read = None  # any attempt to read the source would fail
    assert again.image(image) == stored
    assert before == (stored.folder.stat().st_mtime_ns, (stored.folder / "volume.npy").stat().st_mtime_ns)


def test_a_source_replaced_with_the_same_size_and_time_is_noticed(tmp_path, image):
    plain = write(tmp_path / "T1.nii", arrays(1)["image"])
    cache = Cache(tmp_path / "cache")
    old = cache.image(plain)
    cache.hashes.save()
    state = plain.stat()
    content = bytearray(plain.read_bytes())
    content[-2] ^= 1
    plain.write_bytes(bytes(content))
    os.utime(plain, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (plain.stat().st_size, plain.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    for later in (cache, Cache(tmp_path / "cache")):
        assert later.image(plain).key != old.key
        assert not np.array_equal(later.image(plain).array(), old.array())
    # The same content under another name or time is the same entry.
    shutil.copy(image, tmp_path / "copy.nii.gz")
    assert cache.image(tmp_path / "copy.nii.gz").key == cache.image(image).key


def test_a_half_written_source_is_refused_and_used_once_it_is_whole(tmp_path, image):
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(DataError, match=r"T1.nii.gz: cut off"):
            cache.image(image)
    assert not volumes(tmp_path / "cache")
    image.write_bytes(content)
    np.testing.assert_array_equal(cache.image(image).array(), canonical(arrays(1)["image"]))


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["volume.npy", "samples.npy", "meta.json"])
def test_cut_entries_are_rebuilt(tmp_path, name, share):
    raw = arrays(3)["malp_em"]
    path = write(tmp_path / "m.nii.gz", raw)
    stored = Cache(tmp_path / "cache").labels(path, MAPS["malp_em"])
    file = stored.folder / name
    os.truncate(file, int(file.stat().st_size * share))
    again = Cache(tmp_path / "cache").labels(path, MAPS["malp_em"])
    assert again == stored
    np.testing.assert_array_equal(again.whole(), canonical(raw))
    again.voxel(np.random.default_rng(0), 5)
    assert not list((tmp_path / "cache" / "volumes").glob("*/.*"))


def test_an_entry_changed_without_changing_its_size_is_rebuilt(tmp_path, image):
    stored = Cache(tmp_path / "cache").image(image)
    file = stored.folder / "volume.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(bytes(content))
    np.testing.assert_array_equal(Cache(tmp_path / "cache").image(image).array(), canonical(arrays(1)["image"]))


def test_a_copied_cache_is_used_as_it_is(tmp_path, image):
    stored = Cache(tmp_path / "cache").image(image)
    shutil.copytree(tmp_path / "cache", tmp_path / "other", copy_function=shutil.copyfile)
    built = (tmp_path / "other" / "volumes").glob("*/*/volume.npy")
    before = [file.stat().st_ino for file in built]
    assert Cache(tmp_path / "other").image(image).key == stored.key
    assert before == [file.stat().st_ino for file in (tmp_path / "other" / "volumes").glob("*/*/volume.npy")]


def test_label_maps_and_unknown_values_are_part_of_the_key(tmp_path):
    raw = arrays(3)["fsl_fast"].copy()
    raw[0, 0, :3] = 9
    path, cache = write(tmp_path / "seg.nii.gz", raw), Cache(tmp_path / "cache")
    with pytest.raises(DataError, match=r"seg.nii.gz: value 9 \(3 voxels\)"):
        cache.labels(path, MAPS["fsl_fast"])
    lenient = cache.labels(path, MAPS["fsl_fast"], "background")
    assert lenient.unknown == ((9, 3),)
    declared = LabelMap.from_mapping("fsl_fast", {**LABEL_MAPS["fsl_fast"], 9: "odd"})
    assert cache.labels(path, declared).counts[4] == 3


def build_in_child(cache, path, barrier, queue):
    barrier.wait()
    try:
        stored = Cache(cache).labels(path, MAPS["malp_em"])
        queue.put((stored.key, int(stored.whole().sum())))
    except BaseException as error:
        queue.put(repr(error))


def test_four_processes_on_a_cold_cache_make_one_valid_entry(tmp_path):
    context = multiprocessing.get_context("fork")
    for round_ in range(5):
        raw = arrays(round_, (40, 40, 40))["malp_em"]
        path, cache = write(tmp_path / f"{round_}.nii.gz", raw), tmp_path / f"cache{round_}"
        barrier, queue = context.Barrier(4), context.Queue()
        children = [context.Process(target=build_in_child, args=(cache, path, barrier, queue)) for _ in range(4)]
        for child in children:
            child.start()
        results = [queue.get(timeout=60) for _ in children]
        for child in children:
            child.join()
        assert len(set(results)) == 1 and results[0][1] == int(raw.sum()), results
        assert len(volumes(cache)) == 1
        assert not list((cache / "volumes").glob("*/.*"))


def test_without_locks_the_rename_alone_keeps_entries_whole(tmp_path, monkeypatch):
    raw = arrays(1, (40, 40, 40))["malp_em"]
    path = write(tmp_path / "m.nii.gz", raw)

    def refuse(*_):
        raise OSError("no locks on this file system")

    monkeypatch.setattr("fcntl.flock", refuse)
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(4), context.Queue()
    children = [context.Process(target=build_in_child, args=(tmp_path / "cache", path, barrier, queue))
                for _ in range(4)]
    for child in children:
        child.start()
    assert {queue.get(timeout=60)[1] for _ in children} == {int(raw.sum())}
    for child in children:
        child.join()
    assert len(volumes(tmp_path / "cache")) == 1


def test_a_cache_that_cannot_be_written_names_the_key(tmp_path, image):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"data\.cache"):
        Cache(tmp_path / "file" / "cache").image(image)


def test_what_a_killed_process_left_is_removed(tmp_path, image):
    stored = Cache(tmp_path / "cache").image(image)
    shutil.rmtree(stored.folder)
    old, young = (stored.folder.parent / f".building-{age}" for age in ("old", "young"))
    for left in (old, young):
        left.mkdir()
        (left / "volume.npy").write_bytes(b"half")
    os.utime(old, (1, 1))
    assert Cache(tmp_path / "cache").image(image) == stored
    assert not old.exists() and young.exists()


def test_pairs_are_computed_once_per_content(tmp_path, image):
    cache = Cache(tmp_path / "cache")
    stored, calls = cache.image(image), []
    for _ in range(3):
        assert cache.pair("n", stored, stored, lambda: calls.append(1) or 0.25) == 0.25
    assert len(calls) == 1


def test_hashes_of_other_processes_are_kept(tmp_path, image):
    one, two = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    other = write(tmp_path / "other.nii.gz", arrays(2)["image"])
    one.image(image), two.image(other)
    one.hashes.save(), two.hashes.save()
    assert set(json.loads((tmp_path / "cache" / "sources.json").read_text())) == {str(image), str(other)}


def test_crops_outside_the_volume_are_padded(tmp_path, image):
    stored = Cache(tmp_path / "cache").image(image)
    whole = stored.whole()
    crop = stored.crop((-2, 14, 0), (20, 6, 12))
    floor = whole.min()
    np.testing.assert_allclose(crop[:2], floor)
    np.testing.assert_array_equal(crop[2:16, :2], whole[:, 14:16])
    np.testing.assert_allclose(crop[:, 2:], floor)
    assert (stored.crop((100, 0, 0), (2, 2, 2)) == crop[0, 0, 0]).all()
    with pytest.raises(DataError, match="gone or cut off"):
        shutil.rmtree(stored.folder)
        stored.crop((0, 0, 0), (2, 2, 2))
