"""``segexp predict`` and ``segexp evaluate``."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from segexp.cli import main
from segexp.runs import get_run

REAL = Path(__file__).parents[3] / "shared" / "real" / "brain" / "T1w_head.nii.gz"


def words(outputs: Path, source: Path, output: Path, *more: str) -> list[str]:
    return ["predict", "run=nn_tissue-seed1", f"input={source}", f"output={output}", f"paths.outputs={outputs}",
            "device=cpu", *more]


@pytest.fixture
def heads(outputs: Path, tmp_path: Path) -> Path:
    """Return a folder with an image in another orientation and an odd size, a BIDS-named one and a broken one."""
    folder = tmp_path / "heads"
    folder.mkdir()
    original = next(outputs.glob("phantoms/*/bulk/9000001*/T1/T1.nii.gz"))
    image = nib.load(original)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PSR")).slicer[:45, 1:, :]
    nib.save(turned, folder / "odd.nii.gz")
    nib.save(image, folder / "sub-07_ses-1_T1w.nii.gz")
    (folder / "broken.nii.gz").write_bytes(original.read_bytes()[:2000])
    return folder


def test_label_maps_lie_on_the_source_grid_in_native_values(outputs: Path, heads: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "derivatives"
    assert main(words(outputs, heads, output)) == 4  # partly: one file is broken
    assert "broken.nii.gz" in capsys.readouterr().err
    for name, source in (("sub-odd/anat/sub-odd", "odd.nii.gz"),
                         ("sub-07/ses-1/anat/sub-07_ses-1", "sub-07_ses-1_T1w.nii.gz")):
        expected = nib.load(heads / source)
        for target, most in (("fsl_fast", 3), ("spm_tissue", 3), ("malp_em_tissue", 5)):
            labels = nib.load(output / f"{name}_space-orig_desc-{target}_dseg.nii.gz")
            assert labels.shape == expected.shape
            assert np.allclose(labels.affine, expected.affine, atol=1e-4)
            values = np.asarray(labels.dataobj)
            assert values.dtype.kind == "u" and values.max() <= most
    description = json.loads((output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "segexp"
    table = pd.read_csv(output / "desc-malp_em_tissue_dseg.tsv", sep="\t")
    assert table["index"].tolist() == [0, 1, 2, 3, 4, 5] and table["name"][0] == "background"


def test_what_is_there_and_valid_is_skipped(outputs: Path, heads: Path, tmp_path: Path) -> None:
    output = tmp_path / "derivatives"
    source = heads / "odd.nii.gz"
    assert main(words(outputs, source, output, "targets=[fsl_fast]")) == 0
    file = next(output.rglob("*fsl_fast_dseg.nii.gz"))
    first, bytes_before = file.stat().st_mtime_ns, file.read_bytes()
    assert main(words(outputs, source, output, "targets=[fsl_fast]")) == 0
    assert file.stat().st_mtime_ns == first
    file.write_bytes(bytes_before[:100])  # damaged: made again
    assert main(words(outputs, source, output, "targets=[fsl_fast]")) == 0
    assert file.read_bytes() == bytes_before
    image = nib.load(source)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), source)  # changed: made again
    assert main(words(outputs, source, output, "targets=[fsl_fast]")) == 0
    assert file.read_bytes() != bytes_before


@pytest.mark.parametrize(("more", "message"), [
    (["targets=[fsl_fats]"], "fsl_fast"), (["device=tpu"], "cpu"), (["run=nothing"], "nn_tissue"),
    (["input=/nowhere"], "/nowhere"), (["inference=windows"], "sliding_window"),
])
def test_mistakes_are_answered(outputs: Path, heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                               more: list[str], message: str) -> None:
    given = [word for word in words(outputs, heads, tmp_path / "out")
             if word.partition("=")[0] != more[0].partition("=")[0]]
    assert main([*given, *more]) in (2, 3)
    assert message in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.skipif(not REAL.exists(), reason="the real heads are not here")
def test_a_real_head_of_another_grid(outputs: Path, tmp_path: Path) -> None:
    assert main(words(outputs, REAL, tmp_path, "targets=[spm_tissue]")) == 0
    labels = nib.load(next(tmp_path.rglob("*_dseg.nii.gz")))
    assert labels.shape == nib.load(REAL).shape
    assert np.allclose(labels.affine, nib.load(REAL).affine, atol=1e-4)


def test_evaluating_again_gives_the_same_scores_and_other_metrics(outputs: Path, tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture) -> None:
    from segexp.metrics.scores import case_means, read_scores

    assert main(["evaluate", "run=nn_tissue-seed1", "metrics=surface", f"output={tmp_path}",
                 f"paths.outputs={outputs}"]) == 0
    again, before = read_scores(tmp_path / "scores.csv"), get_run(outputs, "nn_tissue-seed1").scores()
    pd.testing.assert_frame_equal(case_means(again, "dice"), case_means(before, "dice"))
    assert {"hd95", "assd"} <= set(again["metric"])
    assert main(["evaluate", "run=nn_tissue-seed1", "data.rot=/x", f"paths.outputs={outputs}"]) == 2
    assert "root" in capsys.readouterr().err


def test_runs_are_listed_shown_and_removed(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    at = f"paths.outputs={outputs}"
    assert main(["train", "experiment=neuronet/nn_tissue", "scale=smoke", "steps=1", "tag=gone", at]) == 0
    configs = (outputs / "runs" / "neuronet").glob("*/config.yaml")
    gone = next(file.parent for file in configs if "tag: gone" in file.read_text())
    assert main(["runs", at]) == 0
    assert gone.name in capsys.readouterr().out
    assert main(["runs", "show", gone.name, at]) == 0
    assert "phantoms" in capsys.readouterr().out
    assert main(["runs", "remove", gone.name, at]) == 2  # no terminal, no question, no removal
    assert main(["runs", "remove", gone.name, "yes=true", at]) == 0
    assert not gone.exists()
