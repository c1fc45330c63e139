"""A MONAI bundle: configs, weights, and the code of the network and its inference, for places without segexp.

The bundle holds copies of the package's own source below ``scripts`` (as MONAI's model zoo does), so that it labels
files by the very code of ``segexp predict``, at any size and on any device. Reading, orientation, native label values
and writing are MONAI's. Bundles of others are never loaded here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segexp.errors import ConfigError
from segexp.exports.bundle_page import page
from segexp.exports.description import intensity_of, portable
from segexp.exports.parity import ParityError, identical, sample
from segexp.exports.subject import Subject
from segexp.exports.vendor import copied
from segexp.files import write_json, write_text

PARTS = "segexp.exports.bundle_parts"
RESAMPLING = "segexp.exports.bundle_resampling"
INTO = "scripts.segexp"
MOST_SECONDS = 600
PROBE = (40, 36, 28)  # voxels of the file that a new bundle is tried on: no two alike, none a power of two
SPACING = (1.0, 1.5, 2.0)
CHECK = '''\
import json, sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "segexp":
            raise ModuleNotFoundError("the bundle must run where segexp is not installed", name=name)
sys.meta_path.insert(0, Without())
import torch
from monai.bundle import ConfigWorkflow
root, work = sys.argv[1:]
workflow = ConfigWorkflow(f"{root}/configs/inference.json", f"{root}/configs/metadata.json", logging_file=False,
                          workflow_type="infer", bundle_root=root, dataset_dir=f"{work}/input",
                          output_dir=f"{work}/output", device="$torch.device('cpu')")
workflow.initialize()
workflow.run()
missing = workflow.check_properties()
with torch.no_grad():
    found = workflow.parser.get_parsed_content("network")(torch.load(f"{work}/sample.pt", weights_only=True))
dense = {target: one.dense() if hasattr(one, "dense") else one for target, one in found.items()}
torch.save(dense, f"{work}/logits.pt")
print(json.dumps({"missing": missing}))
'''


def write(subject: Subject, folder: Path) -> None:
    """Write the bundle.

    Raises:
        ConfigError: a part of the run is a class of the user, which cannot be copied.
    """
    settings = subject.description["configuration"]
    configs = {key: portable_targets(settings[key], key) for key in ("network", "inference")}
    configs["network"] |= {"_target_": home_of(subject.network)}
    intensity = {key: value for key, value in intensity_of(subject.datamodule).items() if key != "meaning"}
    spacing = subject.description["input"]["spacing_mm"]
    needed = {PARTS, *([RESAMPLING] if spacing else [])}
    for content in (*configs.values(), intensity):
        needed |= {target.rpartition(".")[0] for target in targets(content)}
    copied(needed, folder / "scripts" / "segexp", INTO)
    write_text(folder / "scripts" / "__init__.py", '"""What this bundle needs beside MONAI."""\n')
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in subject.network.state_dict().items()}
    (folder / "models").mkdir()
    torch.save(weights, folder / "models" / "model.pt")
    write_json(folder / "configs" / "inference.json",
               inference_config(subject, configs["network"], configs["inference"], intensity, spacing))
    write_json(folder / "configs" / "metadata.json", metadata(subject))
    write_text(folder / "docs" / "README.md", page(subject.description))


def home_of(thing: Any) -> str:
    """Return the full name of an object's class, in the file that defines it."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def targets(content: Any) -> set[str]:
    """Return every ``_target_`` of plain content."""
    if isinstance(content, Mapping):
        own = {content["_target_"]} if "_target_" in content else set()
        return own.union(*(targets(child) for child in content.values()))
    return set().union(*(targets(child) for child in content)) if isinstance(content, list) else set()


def portable_targets(content: Any, key: str) -> Any:
    """Return plain content whose ``_target_`` name the files that define the classes.

    Raises:
        ConfigError: a class is none of segexp's: a bundle cannot carry it.
    """
    from segexp.config.targets import find

    if isinstance(content, list):
        return [portable_targets(child, key) for child in content]
    if not isinstance(content, Mapping):
        return content
    found = {name: portable_targets(child, f"{key}.{name}") for name, child in content.items()}
    target = content.get("_target_")
    if target is not None:
        if not target.startswith("segexp."):
            raise ConfigError(f"{key}._target_={target} is none of segexp's classes, so a bundle cannot carry it; "
                              "format=safetensors or onnx can")
        value = find(target)
        found["_target_"] = f"{value.__module__}.{value.__qualname__}"
    return found


def inside(content: Any) -> Any:
    """Return plain content whose ``_target_`` name the copies in the bundle."""
    if isinstance(content, list):
        return [inside(child) for child in content]
    if not isinstance(content, Mapping):
        return content
    return {name: value.replace("segexp.", f"{INTO}.", 1) if name == "_target_" else inside(value)
            for name, value in content.items()}


def inference_config(subject: Subject, network: Mapping[str, Any], inference: Mapping[str, Any],
                     intensity: Mapping[str, Any], spacing: list[float] | None) -> dict[str, Any]:
    """Return configs/inference.json."""
    names = list(subject.description["targets"])
    values = {name: [one["value"] for one in target["classes"]]
              for name, target in subject.description["targets"].items()}
    before = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
    ]
    after: list[dict[str, Any]] = []
    if spacing:
        before.append({"_target_": f"{RESAMPLING}.ToSpacing", "keys": "image", "spacing": spacing})
        after.append({"_target_": f"{RESAMPLING}.FromSpacing", "keys": names})
    before.append({"_target_": f"{PARTS}.ScaleAsTrained", "keys": "image", "intensity": dict(intensity)})
    after.append({"_target_": "Invertd", "keys": names, "transform": "@preprocessing", "orig_keys": "image",
                  "nearest_interp": True, "to_tensor": True})
    for name in names:
        own = list(range(len(values[name])))
        if values[name] != own:
            after.append({"_target_": "MapLabelValued", "keys": name, "orig_labels": own,
                          "target_labels": values[name], "dtype": "$np.int32"})
        after.append({"_target_": "SaveImaged", "keys": name, "output_dir": "@output_dir", "output_postfix": name,
                      "output_dtype": "$np.uint8" if max(values[name]) < 256 else "$np.uint16", "resample": False,
                      "separate_folder": False, "data_root_dir": "@dataset_dir", "writer": "NibabelWriter",
                      "print_log": False})
    return inside({
        "imports": ["$import glob", "$import numpy as np", "$import torch"],
        "bundle_root": ".", "dataset_dir": "$@bundle_root + '/input'", "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/**/*.nii*', recursive=True))",
        "network_def": dict(network), "network": "$@network_def.to(@device)",
        "load_weights": "$@network_def.load_state_dict(torch.load(@ckpt_path, map_location='cpu', weights_only=True))",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': path} for path in @datalist]",
                    "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": f"{PARTS}.LabelInferer", "inference": dict(inference)},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "evaluator": {"_target_": f"{PARTS}.LabelEvaluator", "device": "@device", "network": "@network",
                      "inferer": "@inferer", "dataloader": "@dataloader", "postprocessing": "@postprocessing"},
        "run": ["$@load_weights", "$@evaluator.run()"],
    })


def metadata(subject: Subject) -> dict[str, Any]:
    """Return configs/metadata.json in the form of MONAI's schema, with the run's own description."""
    from importlib.metadata import version

    description = subject.description
    stride = getattr(subject.network, "stride", 1)
    spatial = [f"{stride}*n" if stride > 1 else "*"] * (len(subject.shape) - 2)
    tensor = {"dtype": "float32", "is_patch_data": False, "spatial_shape": spatial}
    outputs = {name: {"type": "probabilities", "format": "logits", "num_channels": target["logits"], **tensor,
                      "value_range": [],
                      "channel_def": {str(one["index"]): one["name"] for one in target["classes"]}}
               for name, target in description["targets"].items()}
    name = str(subject.config.name)
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
                  "meta_schema_20240725.json",
        "version": "1.0.0", "changelog": {"1.0.0": f"exported from run {subject.run.id}"},
        "monai_version": version("monai"), "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {key: version(key) for key in ("nibabel", "scipy", "torchvision")},
        "name": name, "task": f"Segmentation: {', '.join(description['targets'])}",
        "description": f"{type(subject.network).__name__}, trained by segexp {description['segexp']} as run "
                       f"{subject.run.id}" + (" on synthetic data" if description["synthetic_data"] else ""),
        "authors": "segexp", "copyright": "of whoever trained it",
        "intended_use": "research; no medical device",
        "network_data_format": {
            "inputs": {"image": {"type": "image", "format": "magnitude", "modality": "n/a", "num_channels": 1, **tensor,
                                 "value_range": [], "channel_def": {"0": "image"}}},
            "outputs": outputs},
        "segexp": portable(description),
    }


def check(subject: Subject, folder: Path) -> dict[str, Any]:
    """Run the new bundle in a process that cannot import segexp, on a file, and compare logits and label maps.

    Raises:
        ParityError: it does not run, or differs.
    """
    with tempfile.TemporaryDirectory(prefix="segexp-bundle-") as name:
        work = Path(name)
        (work / "input").mkdir()
        probe = probe_file(subject, work / "input" / "probe.nii.gz")
        torch.save(sample(subject.shape), work / "sample.pt")
        answer = run_alone(folder, work)
        if answer["missing"]:
            raise ParityError(f"MONAI misses properties of the bundle: {', '.join(answer['missing'])}")
        identical(torch.load(work / "logits.pt", weights_only=True), subject.expected, "logits")
        agreement = compared(subject, probe, work / "output")
    if agreement < 1:
        raise ParityError(f"the bundle labels {1 - agreement:.3%} of the voxels of a file in another way than segexp "
                          "predict; nothing was kept")
    return {"max_abs_difference": 0.0, "label_agreement": agreement, "input": list(subject.shape), "file": list(PROBE)}


def probe_file(subject: Subject, path: Path) -> Path:
    """Write an image of whole numbers, its axes turned, large enough for the intensity to scale it."""
    import nibabel as nib

    intensity = intensity_of(subject.datamodule)
    low, high = int(intensity.get("low", 0)), int(intensity.get("high", 1000))
    values = np.random.default_rng(0).integers(low, high, PROBE).astype(np.int16)
    affine = np.array([[0, -SPACING[1], 0, 20], [0, 0, SPACING[2], -30], [SPACING[0], 0, 0, 10], [0, 0, 0, 1]], float)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def run_alone(folder: Path, work: Path) -> dict[str, Any]:
    """Run the bundle's own workflow through MONAI, without segexp, and return its answer.

    Raises:
        ParityError: it fails.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHECK, str(folder), str(work)], cwd=work,
                              env=environment, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ParityError(f"the bundle did not label a small file within {MOST_SECONDS} s") from error
    if done.returncode:
        raise ParityError("the bundle does not run by itself: " + " ".join(done.stderr.split())[-600:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(subject: Subject, probe: Path, output: Path) -> float:
    """Return the part of the voxels, over all targets, that the bundle labels as ``segexp predict`` does."""
    import nibabel as nib

    from segexp.data.nifti import read_labels, write_labels

    datamodule = subject.datamodule
    if getattr(datamodule, "roi", None) is not None:
        datamodule.roi = None  # a bundle labels what it is given: one region
    with torch.inference_mode():
        found, source = datamodule.label_file(probe, lambda image: subject.module.predict_step({"image": image}, 0))
    same, total = 0, 0
    for target, label_map in subject.module.label_maps.items():
        mine = output.parent / f"{target}.nii.gz"
        write_labels(mine, label_map.decode(found[target]), source)
        theirs = output / f"probe_{target}.nii.gz"
        first, second = read_labels(mine), read_labels(theirs)
        if first.array.shape != second.array.shape or not np.allclose(nib.load(mine).affine, nib.load(theirs).affine):
            raise ParityError(f"{target}: the bundle writes another grid than the file's")
        same += int((first.array == second.array).sum())
        total += first.array.size
    return same / total
