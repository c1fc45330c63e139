"""MONAI bundles: run by MONAI in a process that cannot import segexp, compared with ``segexp predict``."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from segexp.cli import main
from segexp.errors import ConfigError
from segexp.exports import monai_bundle, vendor
from segexp.exports.parity import ParityError
from segexp.exports.subject import subject_of
from segexp.runs import get_run
from tests.exports.conftest import words

IMAGES = {"nn_tissue": "phantoms/*/bulk/9000001*/T1/T1.nii.gz", "dice": "phantoms/wmh_smoke/Utrecht/*/pre/FLAIR.nii.gz",
          "fcn_ppm": "phantoms/kidney_cta_smoke/cases/case_00001/image.nii.gz"}
REQUIRED = {"version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
            "task", "description", "authors", "copyright", "network_data_format"}
TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}
RUN = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("segexp", "hydra", "omegaconf", "pytorch_lightning"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
from monai.bundle import ConfigWorkflow
root, source, target = sys.argv[1:]
workflow = ConfigWorkflow("configs/inference.json", "configs/metadata.json", logging_file=False, workflow_type="infer",
                          bundle_root=".", dataset_dir=source, output_dir=target)
workflow.initialize()
workflow.run()
"""


def turned(source: Path, into: Path) -> None:
    """Write an image with its axes in another order and direction, an odd size, and a scaling of its values."""
    image = nib.load(source)
    odd = image.as_reoriented(nib.orientations.axcodes2ornt("PSR")).slicer[1:, :, :]
    into.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(odd.dataobj), odd.affine), into)


@pytest.mark.parametrize("name", list(IMAGES))
def test_monai_labels_files_as_predict_does_without_segexp(outputs: Path, tmp_path: Path, name: str,
                                                           capsys: pytest.CaptureFixture) -> None:
    bundle = tmp_path / "bundle"
    assert main(words(outputs, name, "monai_bundle", f"output={bundle}")) == 0
    assert "logits bit for bit, 100.0000% of the labels the same" in capsys.readouterr().out
    source = sorted(outputs.glob(IMAGES[name]))[0]
    turned(source, tmp_path / "images" / "sub-01" / "turned.nii.gz")
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, str(bundle), f"{tmp_path}/images", f"{tmp_path}/labels"],
                   cwd=bundle, check=True, capture_output=True, timeout=300)
    more = ["data/roi=none"] if name == "fcn_ppm" else []
    assert main(["predict", f"run={name}-seed1", f"input={tmp_path}/images", f"output={tmp_path}/mine", "device=cpu",
                 f"paths.outputs={outputs}", *more]) == 0
    mine = sorted((tmp_path / "mine").rglob("*_dseg.nii.gz"))
    assert len(mine) == (3 if name == "nn_tissue" else 1)
    for file in mine:
        target = file.name.partition("desc-")[2].removesuffix("_dseg.nii.gz")
        other = nib.load(tmp_path / "labels" / "sub-01" / f"turned_{target}.nii.gz")
        image = nib.load(file)
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(other.dataobj).astype(int))
        np.testing.assert_allclose(image.affine, other.affine, atol=1e-4)
    # Running it left the export as it was written.
    assert main(words(outputs, name, "monai_bundle", f"output={bundle}")) == 0
    assert "is there already" in capsys.readouterr().out


def test_another_voxel_size_there_and_back(localizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(words(localizer, "localizer", "monai_bundle", f"output={tmp_path}/bundle")) == 0
    assert "100.0000% of the labels the same" in capsys.readouterr().out
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    names = [one["_target_"].rpartition(".")[2] for key in ("preprocessing", "postprocessing")
             for one in config[key]["transforms"]]
    order = [names.index(one) for one in ("ToSpacing", "ScaleAsTrained", "FromSpacing", "Invertd")]
    assert order == sorted(order)


def test_the_folder_is_what_monai_expects(outputs: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    monai_bundle.write(subject_of(get_run(outputs, "nn_tissue-seed1")), bundle)
    assert {path.name for path in bundle.iterdir()} == {"configs", "models", "docs", "scripts"}
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert set(about) >= REQUIRED and str(outputs) not in json.dumps(about)
    formats = about["network_data_format"]
    for one in (*formats["inputs"].values(), *formats["outputs"].values()):
        assert set(one) >= TENSOR and len(one["channel_def"]) == one["num_channels"]
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.read_meta(bundle / "configs" / "metadata.json")
    assert parser["network_def#_target_"] == "scripts.segexp.methods.neuronet.network.NeuroNet"
    assert "scale" not in parser and parser["_meta_#segexp#run"].startswith("nn_tissue-seed1")
    page = (bundle / "docs" / "README.md").read_text()
    assert "| 3 | 3 | white_matter |" in page and "synthetic data" in page and str(outputs) not in page


def test_damaged_weights_and_code_are_found(outputs: Path, tmp_path: Path) -> None:
    subject = subject_of(get_run(outputs, "dice-seed1"))
    bundle = tmp_path / "bundle"
    monai_bundle.write(subject, bundle)
    code = bundle / "scripts" / "segexp" / "inference" / "slice_by_slice.py"
    good = code.read_text()
    code.write_text(good.replace(">= self.threshold", "< self.threshold"))
    with pytest.raises(ParityError, match="in another way than segexp predict"):
        monai_bundle.check(subject, bundle)
    code.write_text(good.replace("import torch", "import hidden_nowhere"))
    with pytest.raises(ParityError, match=r"does not run by itself.*hidden_nowhere"):
        monai_bundle.check(subject, bundle)


def test_what_is_copied_is_closed_and_needs_nothing_heavy(tmp_path: Path) -> None:
    names = vendor.copied({"segexp.inference.whole_volume"}, tmp_path / "segexp", "scripts.segexp")
    assert names == ["segexp.errors", "segexp.inference.slabs", "segexp.inference.whole_volume"]
    text = "\n".join(path.read_text() for path in tmp_path.rglob("*.py"))
    assert "from scripts.segexp.inference.slabs import" in text and "\nfrom segexp" not in text
    with pytest.raises(ConfigError, match="cannot be copied into a bundle"):
        vendor.copied({"segexp.methods.segmentation"}, tmp_path / "other", "scripts.segexp")


def test_a_class_of_the_user_cannot_be_carried() -> None:
    with pytest.raises(ConfigError, match="none of segexp's classes"):
        monai_bundle.portable_targets({"_target_": "mylab.Network"}, "network")
