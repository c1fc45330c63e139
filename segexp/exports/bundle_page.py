"""docs/README.md of a MONAI bundle."""

from collections.abc import Mapping
from typing import Any

TEXT = """\
# {run}

{what}

Exported by segexp {segexp} from run `{run}` (code {code}). The folder `scripts` holds copies of segexp's own source:
segexp itself need not be installed. Versions of the packages: `configs/metadata.json`.

## Label files

    python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\
        --bundle_root . --dataset_dir FOLDER --output_dir LABELS

in this folder (MONAI's command line needs `pip install fire`), or from Python:

    from monai.bundle import ConfigWorkflow
    workflow = ConfigWorkflow("configs/inference.json", "configs/metadata.json", logging_file=False,
                              workflow_type="infer", bundle_root=".", dataset_dir="FOLDER", output_dir="LABELS")
    workflow.initialize()
    workflow.run()

Every NIfTI file below FOLDER gets one label map per target on its own grid: `<name>_<target>.nii.gz`.
{regions}
## What the network sees

One channel, axes {axes}. Voxels are scaled by `{intensity}`: {meaning}
Voxel size: {spacing}.

## Label maps

{targets}
{cautions}"""


def page(description: Mapping[str, Any]) -> str:
    """Return the page of a bundle from the description of its run."""
    given = description["input"]
    data = description["configuration"]["data"]
    regions = ("\nEvery file must be one region of a CT around a kidney, cut out as the run's training cases were: the "
               "bundle does not look for kidneys.\n" if "roi" in data and data.get("view") != "whole" else "")
    arguments = {key: value for key, value in given["intensity"].items() if key not in ("_target_", "meaning")}
    name = given["intensity"]["_target_"].rpartition(".")[2]
    synthetic = "\n\nIt was trained on synthetic data: it shows that the machinery works, nothing else."
    cautions = "".join(f"\n- {one}" for one in description["cautions"])
    return TEXT.format(
        run=description["run"], segexp=description["segexp"], code=(description["code"] or "unknown")[:12],
        what=f"Labels {', '.join(description['targets'])}." + (synthetic if description["synthetic_data"] else ""),
        regions=regions, axes=given["axes"], meaning=given["intensity"]["meaning"],
        intensity=f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})",
        spacing=f"{given['spacing_mm']} mm, resampled before and back after" if given["spacing_mm"] else "the file's",
        targets="\n\n".join(table(target, one) for target, one in description["targets"].items()),
        cautions=f"\n## Cautions\n{cautions}\n" if cautions else "")


def table(target: str, described: Mapping[str, Any]) -> str:
    """Return a target's label map as a Markdown table."""
    rows = "\n".join(f"| {one['index']} | {one['value']} | {one['name']} |" for one in described["classes"])
    return f"### {target}\n\n| class | value in the file | structure |\n|---|---|---|\n{rows}"
