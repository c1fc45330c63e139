"""``segexp predict`` on many subjects: shards, starts, damage, changes; results looked at byte by byte."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from segexp.cli import main
from segexp.predictions.predict import bookkeeping
from segexp.predictions.worker import Worker
from tests.predictions.conftest import results, train_words, words, write

BAD = ("cut", "nan")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the images that the network was called for, as they come."""
    seen, work = [], Worker.work

    def counted(self, task, reading):
        seen.append(task.image.name)
        return work(self, task, reading)

    monkeypatch.setattr(Worker, "work", counted)
    return seen


@pytest.fixture
def done(outputs: Path, heads: Path, tmp_path: Path) -> Path:
    """Return an output folder where everything is done that can be."""
    assert main(words(outputs, heads, tmp_path / "out")) == 4
    return tmp_path / "out"


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


@pytest.mark.parametrize("shards", [3, 7])
def test_shards_give_the_same_bytes(outputs: Path, heads: Path, done: Path, tmp_path: Path, shards: int) -> None:
    output = tmp_path / "sharded"
    codes = [main(words(outputs, heads, output, f"shard={number}/{shards}", "readers=2", "writers=2"))
             for number in range(1, shards + 1)]
    assert set(codes) <= {0, 4} and 4 in codes
    assert changed(results(done), results(output)) == set()


def test_volumes_are_those_of_the_label_maps(done: Path) -> None:
    table = pd.read_csv(done / "volumes.csv")
    assert list(table) == ["subject", "session", "image", "target", "structure", "voxels", "volume_ml"]
    assert table.equals(table.sort_values(["subject", "session", "image", "target"], kind="stable",
                                          na_position="first").reset_index(drop=True))
    assert len(table) == 10 * (3 + 3 + 5)
    for row in table.sample(20, random_state=0).itertuples():
        session = () if pd.isna(row.session) else (row.session,)
        file = done.joinpath(row.subject, *session, "anat", f"{row.image}_space-orig_desc-{row.target}_dseg.nii.gz")
        names = pd.read_csv(done / f"desc-{row.target}_dseg.tsv", sep="\t").set_index("name")["index"]
        labels = nib.load(file)
        voxels = int((np.asarray(labels.dataobj) == names[row.structure]).sum())
        assert voxels == row.voxels
        assert row.volume_ml == pytest.approx(voxels * abs(np.linalg.det(labels.affine[:3, :3])) / 1000, abs=1e-6)


def test_bad_subjects_are_in_quarantine_with_reasons(done: Path, heads: Path, capsys: pytest.CaptureFixture) -> None:
    table = pd.read_csv(done / "quarantine.csv").set_index("name")
    assert list(table.index) == ["sub-cut", "sub-nan"]
    assert set(table["stage"]) == {"read"} and set(table["type"]) == {"data"}
    assert "cut off" in table["reason"]["sub-cut"] and "NaN" in table["reason"]["sub-nan"]
    record = json.loads((done / "quarantine" / "sub-cut" / "sub-cut.json").read_text())
    assert record["image"] == "bids:input:sub-cut_T1w.nii.gz" and len(record["input"]) == 64
    assert not list(done.rglob("*sub-cut*dseg*"))


def test_a_second_start_calls_no_network_and_reads_no_image(outputs: Path, heads: Path, done: Path, calls: list,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture) -> None:
    from segexp.predictions import bids, worker

    def never(*_):
        raise AssertionError("a file was hashed")

    before, times = results(done), {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_whole", never)
        patch.setattr(bids, "sha256", never)
        capsys.readouterr()
        assert main(words(outputs, heads, done)) == 4
    said = capsys.readouterr()
    assert "12 images, 10 already there, 2 in quarantine and unchanged (retry=quarantined" in said.out
    assert "sub-cut" in said.err and calls == [] and results(done) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    # Without the index, and when it is not to be trusted, everything is hashed again, and found to be done.
    shutil.rmtree(bookkeeping(done))
    assert main(words(outputs, heads, done)) == 4
    assert main(words(outputs, heads, done, "verify=full")) == 4
    assert calls == [] and changed(before, results(done)) == set()


def test_what_is_changed_or_damaged_is_made_again_and_nothing_else(outputs: Path, heads: Path, done: Path,
                                                                   calls: list, head: nib.Nifti1Image) -> None:
    before = results(done)
    labels = sorted(done.rglob("*_dseg.nii.gz"))
    labels[0].write_bytes(labels[0].read_bytes()[:-20])  # cut
    flipped = bytearray(labels[9].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    labels[9].write_bytes(flipped)
    side = done / "sub-05" / "anat" / "sub-05_space-orig_desc-fsl_fast_dseg.json"
    side.write_text(side.read_text().replace('"csf": ', '"csf": 1'))  # a volume that is not that of the label map
    labels[-1].unlink()
    assert main(words(outputs, heads, done)) == 4
    names = {labels[at].name.partition("_space")[0] for at in (0, 9, -1)} | {"sub-05"}
    assert set(calls) == names and len(calls) == len(names)
    assert changed(before, results(done)) == set()

    calls.clear()  # another image under the same name; a bad one that is good now
    write(heads / "sub-03_T1w.nii.gz", np.asarray(head.dataobj)[::-1], head)
    shutil.copy(heads / "sub-00_T1w.nii.gz", heads / "sub-cut_T1w.nii.gz")
    assert main(words(outputs, heads, done)) == 4
    assert sorted(calls) == ["sub-03", "sub-cut"]
    after = changed(before, results(done))
    assert all("sub-03" in name or "sub-cut" in name or name in ("volumes.csv", "quarantine.csv") for name in after)
    assert not (done / "quarantine" / "sub-cut").exists()
    assert pd.read_csv(done / "quarantine.csv")["name"].tolist() == ["sub-nan"]


def test_a_flipped_bit_in_an_image_is_found(outputs: Path, heads: Path, done: Path, calls: list) -> None:
    content = bytearray((heads / "sub-01_T1w.nii.gz").read_bytes())
    content[len(content) // 2] ^= 4
    (heads / "sub-01_T1w.nii.gz").write_bytes(content)
    assert main(words(outputs, heads, done)) == 4
    assert calls == [] and "sub-01" in pd.read_csv(done / "quarantine.csv")["name"].tolist()
    assert "sub-01" not in (done / "volumes.csv").read_text()


def test_other_weights_make_everything_again(outputs: Path, heads: Path, done: Path, calls: list) -> None:
    before = results(done)
    assert main(train_words(outputs, 2)) == 0
    again = [word.replace("seed1", "seed2") for word in words(outputs, heads, done)]
    assert main(again) == 4
    assert len(calls) == 10 and changed(before, results(done)) >= {"volumes.csv", "dataset_description.json"}
    calls.clear()
    assert main(again) == 4 and calls == []
    assert main(words(outputs, heads, done)) == 4  # and back: the files are the other run's
    assert len(calls) == 10 and changed(before, results(done)) == set()


def test_quarantine_is_tried_again_when_asked_for(outputs: Path, heads: Path, done: Path, calls: list,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from segexp.predictions import worker

    reads, read_whole = [], worker.read_whole
    monkeypatch.setattr(worker, "read_whole", lambda path: reads.append(path.name) or read_whole(path))
    before = results(done)
    assert main(words(outputs, heads, done, "retry=quarantined")) == 4
    assert sorted(reads) == ["sub-cut_T1w.nii.gz", "sub-nan_T1w.nii.gz"] and calls == []
    assert changed(before, results(done)) == set()
    assert main(words(outputs, heads, done, "retry=all")) == 2
    assert main(words(outputs, heads, done, "verify=some")) == 2


def test_the_network_running_out_of_memory_is_a_reason(outputs: Path, heads: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    work = Worker.work

    def exhausted(self, task, reading):
        if task.image.name == "sub-04":
            self.datamodule = SimpleData(self.datamodule, torch.OutOfMemoryError("CUDA out of memory. Tried to ..."))
        try:
            return work(self, task, reading)
        finally:
            self.datamodule = getattr(self.datamodule, "real", self.datamodule)

    monkeypatch.setattr(Worker, "work", exhausted)
    output = tmp_path / "out"
    assert main(words(outputs, heads, output)) == 4
    row = pd.read_csv(output / "quarantine.csv").set_index("name").loc["sub-04"]
    assert (row["stage"], row["type"]) == ("network", "memory") and "not enough memory" in row["reason"]
    monkeypatch.undo()
    assert main(words(outputs, heads, output, "retry=quarantined")) == 4
    assert "sub-04" not in (output / "quarantine.csv").read_text() and "sub-04" in (output / "volumes.csv").read_text()


class SimpleData:
    """A data module whose network fails."""

    def __init__(self, real, error) -> None:
        self.real, self.error, self.label_maps = real, error, real.label_maps

    def label_read(self, *_):
        raise self.error


def test_a_network_that_always_fails_is_not_the_images_fault(outputs: Path, heads: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    from segexp.predictions import worker

    monkeypatch.setattr(worker, "IN_A_ROW", 5)
    monkeypatch.setattr("segexp.methods.segmentation.SegmentationModule.predict_step",
                        lambda *_: (_ for _ in ()).throw(RuntimeError("weights of another planet")))
    assert main(words(outputs, heads, tmp_path / "out")) == 1
    assert "5 images in a row" in capsys.readouterr().err
    assert not list((bookkeeping(tmp_path / "out") / "leases").iterdir())


def test_images_of_one_name_stop_nobody(outputs: Path, heads: Path, tmp_path: Path,
                                        capsys: pytest.CaptureFixture) -> None:
    (heads / "more").mkdir()
    shutil.copy(heads / "sub-02_T1w.nii.gz", heads / "more" / "sub-02_T1w.nii.gz")
    output = tmp_path / "out"
    for _ in range(2):
        assert main(words(outputs, heads, output)) == 4
        table = pd.read_csv(output / "quarantine.csv").set_index("name")
        assert table["stage"]["sub-02"] == "name" and "pattern=" in table["reason"]["sub-02"]
    assert "sub-02" not in (output / "volumes.csv").read_text()
    (heads / "more" / "sub-02_T1w.nii.gz").unlink()
    assert main(words(outputs, heads, output)) == 4
    assert "sub-02" in (output / "volumes.csv").read_text() and "sub-02" not in (output / "quarantine.csv").read_text()


def test_a_table_of_a_part_says_so(outputs: Path, heads: Path, done: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "parts"
    main(words(outputs, heads, output, "shard=1/2"))
    assert "other shards have images left" in capsys.readouterr().out
    assert not (output / "volumes.csv").exists()
    assert main(words(outputs, heads, output, "merge=true")) == 4
    assert "are not done yet" in capsys.readouterr().err
    part = pd.read_csv(output / "volumes_partial.csv")
    assert 0 < part["image"].nunique() < 10 and not (output / "volumes.csv").exists()
    main(words(outputs, heads, output, "shard=2/2"))
    assert not (output / "volumes_partial.csv").exists()
    (output / "volumes.csv").unlink()
    assert main(words(outputs, heads, output, "merge=true")) == 4  # those in quarantine
    assert changed(results(done), results(output)) == set()


def test_one_more_target_keeps_the_others(outputs: Path, heads: Path, done: Path, tmp_path: Path, calls: list) -> None:
    output = tmp_path / "targets"
    main(words(outputs, heads, output, "targets=[fsl_fast]"))
    assert pd.read_csv(output / "volumes.csv")["target"].unique().tolist() == ["fsl_fast"]
    main(words(outputs, heads, output, "targets=[spm_tissue]"))
    main(words(outputs, heads, output, "targets=[fsl_fast]"))
    assert len(calls) == 20
    main(words(outputs, heads, output))
    assert changed(results(done), results(output)) == set()
