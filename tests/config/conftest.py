"""A miniature configuration with the shapes that the real one has."""

from pathlib import Path

import pytest

FILES = {
    "train.yaml": """\
# segexp train: a small one.
defaults:
  - _self_
  - data: bank
  - method: mini
  - trainer: auto
  - experiment: null
  - scale: paper
  - scale/${method}/${scale}@_global_
name: ${hydra:runtime.choices.method}
seed: 1
steps: 10
paths:
  outputs: outputs
hydra:
  output_subdir: null
""",
    "predict.yaml": "# segexp predict: label maps.\nrun: ???\ndevice: auto # auto | cpu\n",
    "data/bank.yaml": """\
# A bank of heads.
defaults:
  - tools@agreement.between: fast
  - _self_
_target_: torch.utils.data.StackDataset
root: ???
derived: ${data.root}/derived
targets: ${method.targets}
label_maps:
  tissue: {0: background, 1: csf, 2: grey_matter}
  lesion: {0: background, 7: lesion}
""",
    "data/tools/fast.yaml": "# A tool.\nname: fast\n",
    "data/other.yaml": "# Another bank.\nroot: /other\nlabel_maps: {}\n",
    "method/mini.yaml": """\
# @package _global_
# The smallest method.
defaults:
  - /method/targets: both
  - /network: linear
  - /optimizer: adam
  - _self_
method:
  _target_: torch.nn.Identity
""",
    "method/targets/both.yaml": "# @package _global_\n# Two.\nmethod:\n  targets: [tissue, lesion]\n",
    "method/targets/tissue.yaml": "# @package _global_\n# One.\nmethod:\n  targets: tissue\n",
    "network/linear.yaml": """\
# One layer.
_target_: torch.nn.Linear
in_features: 3
out_features: 2
bias: true
""",
    "network/wide.yaml": "# A wider layer.\ndefaults:\n  - linear\n  - _self_\nout_features: 64\n",
    "optimizer/adam.yaml": "# Adam.\n_target_: torch.optim.Adam\n_partial_: true\nlr: 1.0e-3\n",
    "trainer/auto.yaml": "# Whatever is there.\naccelerator: auto\n",
    "trainer/gpu.yaml": "# One GPU.\naccelerator: gpu\n",
    "experiment/mini/all.yaml": "# @package _global_\n# Row 1.\ndefaults:\n  - override /method: mini\nname: all\n",
    "experiment/mini/one.yaml": """\
# @package _global_
# Row 2.
defaults:
  - override /method/targets: tissue
name: one
""",
    "scale/paper.yaml": "# @package _global_\n# Published.\nscale:\n  name: paper\n",
    "scale/demo.yaml": "# @package _global_\n# Minutes.\nscale:\n  name: demo\n",
    "scale/mini/paper.yaml": "# @package _global_\n# As the method.\n{}\n",
    "scale/mini/demo.yaml": "# @package _global_\n# Fewer steps.\nsteps: 5\ndata:\n  root: ${paths.outputs}/phantoms\n",
}


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write ``files`` below ``folder`` and return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """The folder of the miniature configuration."""
    return write_tree(tmp_path / "conf", FILES)
