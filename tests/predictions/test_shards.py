"""Shards, and the names that they depend on."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segexp.errors import ConfigError, DataError
from segexp.predictions.images import by_subject, find_images, name_images
from segexp.predictions.shards import Shard, parse_shard, shard_of

SUBJECTS = st.text(alphabet="abcXYZ0123456789", min_size=1, max_size=12).map("sub-{}".format)


@given(subject=SUBJECTS, count=st.integers(1, 300))
def test_every_subject_is_in_exactly_one_shard(subject: str, count: int) -> None:
    holding = [number for number in range(1, count + 1) if Shard(number, count).holds(subject)]
    assert holding == [shard_of(subject, count)]


@given(subjects=st.lists(SUBJECTS, unique=True), count=st.integers(1, 20))
def test_a_shard_depends_on_no_other_subject(subjects: list[str], count: int) -> None:
    together = {subject: shard_of(subject, count) for subject in subjects}
    assert all(shard_of(subject, count) == shard for subject, shard in reversed(together.items()))


def test_shards_stay_as_they_are() -> None:
    """Another hash would send the subjects of a half-done folder to other shards."""
    assert [shard_of(f"sub-{number}", 16) for number in (1000001, 1000002, 1000003)] == [15, 4, 4]


def test_shards_are_about_equal() -> None:
    sizes = [0] * 16
    for number in range(16_000):
        sizes[shard_of(f"sub-{1000000 + number}", 16) - 1] += 1
    assert 850 < min(sizes) and max(sizes) < 1150


@pytest.mark.parametrize(("text", "shard"), [("3/16", Shard(3, 16)), (None, Shard()), ("", Shard()),
                                             (" 1 / 1 ", Shard()), ("16/16", Shard(16, 16))])
def test_shards_are_read(text: str | None, shard: Shard) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/16", "17/16", "3", "3/0", "a/b", "3/16/2", "-1/4", "1.5/4", "3of16", "[1,2]"])
def test_other_shards_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard="):
        parse_shard(text)


def test_the_message_says_how_shards_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"counted from 1.*16/16"):
        parse_shard("0/16")


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(folder: Path, pattern: str = "*.nii*") -> dict[str, str]:
    found = name_images(find_images(folder, pattern, folder / "out"), folder)
    return {image.name: image.path.relative_to(folder).as_posix() for image in found}


def test_visits_of_a_person_are_one_subject(tmp_path: Path) -> None:
    folder = touched(tmp_path, "1000001_20252_2_0/T1/T1.nii.gz", "1000001_20252_3_0/T1/T1.nii.gz",
                     "1000002_20252_2_1/T1/T1.nii.gz", "1000002_20252_2_1/T1/T1_brain.nii.gz",
                     "sub-07/ses-a/anat/sub-07_ses-a_T1w.nii.gz", "sub-07/ses-b/anat/ses-b_sub-07_T1w.nii.gz")
    images = name_images(find_images(folder, "*.nii*", folder / "out"), folder)
    assert [image.name for image in images] == [
        "sub-07_ses-a", "sub-07_ses-b", "sub-1000001_ses-2", "sub-1000001_ses-3",
        "sub-1000002_ses-2_acq-T1brain_run-1", "sub-1000002_ses-2_run-1"]
    assert {subject: len(same) for subject, same in by_subject(images).items()} == {
        "sub-07": 2, "sub-1000001": 2, "sub-1000002": 2}
    assert [image.session for image in images[1:3]] == ["ses-b", "ses-2"]


def test_what_is_no_image_is_not_found(tmp_path: Path) -> None:
    folder = touched(tmp_path, "a/T1.nii.gz", "a/._T1.nii.gz", "a/sub-1_dseg.nii.gz", "a/T1.json", "out/b/T1.nii.gz",
                     "deeper/out/T1.nii.gz")
    assert names(folder) == {"sub-a": "a/T1.nii.gz", "sub-deeperout": "deeper/out/T1.nii.gz"}
    assert names(folder, "a/*.nii.gz") == {"sub-a": "a/T1.nii.gz"}
    with pytest.raises(DataError, match="FLAIR"):
        names(folder, "FLAIR*")


def test_images_of_the_same_name_carry_that_as_their_problem(tmp_path: Path) -> None:
    folder = touched(tmp_path, "a/sub-1_T1w.nii.gz", "b/sub-1_T1w.nii.gz", "sub-2_T1w.nii.gz")
    one, two = name_images(find_images(folder, "*.nii*", folder / "out"), folder)
    assert "a/sub-1_T1w.nii.gz and" in one.problem and "pattern=" in one.problem
    assert not two.problem
