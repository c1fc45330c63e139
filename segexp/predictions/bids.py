"""Where BIDS derivatives lie and how they are described."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from segexp.files import sha256, write_json, write_text

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap

BIDS_VERSION = "1.10.0"


def label_folder(output: Path, name: str) -> Path:
    """Return the folder of an image's label maps."""
    return output.joinpath(*(part for part in name.split("_") if part.startswith(("sub-", "ses-"))), "anat")


def label_file(output: Path, name: str, target: str) -> Path:
    """Return where the label map of one target of one image lies."""
    return label_folder(output, name) / f"{name}_space-orig_desc-{target}_dseg.nii.gz"


def sidecar(file: Path) -> Path:
    """Return the JSON beside a label map."""
    return file.with_name(file.name.removesuffix(".nii.gz") + ".json")


def source_uri(image: Path, root: Path) -> str:
    """Return the BIDS URI of an image: the same on machines that mount the input elsewhere."""
    return f"bids:input:{quote(image.relative_to(root).as_posix())}"


def descriptions(run_id: str, label_maps: Mapping[str, LabelMap], root: Path) -> dict[str, str]:
    """Return file name -> text of what lies at the top: the description, and the lookup table of every target."""
    from segexp import __version__

    source = root.resolve().as_uri()
    files = {"dataset_description.json": json.dumps({
        "Name": f"Label maps by segexp run {run_id}", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "segexp", "Version": __version__, "Description": f"segexp predict run={run_id}"}],
        "SourceDatasets": [{"URL": source}], "DatasetLinks": {"input": source},
    }, indent=2, ensure_ascii=False) + "\n"}
    for target, label_map in label_maps.items():
        lines = [f"{value}\t{name}" for value, name in zip(label_map.values, label_map.names, strict=True)]
        files[f"desc-{target}_dseg.tsv"] = "\n".join(["index\tname", *lines]) + "\n"
    return files


def write_descriptions(output: Path, files: Mapping[str, str]) -> None:
    """Write those that are not there yet or say something else."""
    for name, text in files.items():
        with contextlib.suppress(OSError, ValueError):
            if (output / name).read_text(encoding="utf-8") == text:
                continue
        write_text(output / name, text)


def describe_labels(file: Path, made_from: Mapping[str, Any], source: str, volumes: Mapping[str, Any]) -> str:
    """Write the JSON beside a label map, last of all, so that it vouches for whole files; return the label map's hash.

    ``made_from``: hashes of the input, the weights and the configuration. ``volumes``: see `volumes.count`.
    """
    output = sha256(file)
    write_json(sidecar(file), {"Sources": [source], "Type": "Label", "Volumes": volumes,
                               "segexp": {**made_from, "output": output, "volumes": _hash(volumes)}})
    return output


def read_sidecar(file: Path, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON beside a label map; None: there is none, it is damaged, or says that it was made otherwise."""
    try:
        written = json.loads(sidecar(file).read_text(encoding="utf-8"))
        hashes = written["segexp"]
        same = {**hashes, **made_from} == hashes and hashes["volumes"] == _hash(written["Volumes"])
        return written if same and len(hashes) == len(made_from) + 2 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def valid(file: Path, made_from: Mapping[str, Any]) -> str | None:
    """Return the hash of a label map that is whole and was made from exactly these inputs; None: it was not."""
    written = read_sidecar(file, made_from)
    try:
        return written["segexp"]["output"] if written and written["segexp"]["output"] == sha256(file) else None
    except OSError:
        return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
