"""Decoding the many classes of a trained network only inside the box of the brain, against decoding them everywhere.

`python -m tests.benchmarks.brain_box RUN [--outputs outputs] [--repeats 3]`, with a finished run of nn_all. Not exact:
the voxels whose labels differ are counted, over all test cases.
"""

import argparse

import torch

from segexp.config import instantiate
from segexp.inference import WholeVolume
from segexp.runs.directory import get_run
from segexp.runs.restore import changed_config, restore
from tests.benchmarks.common import Row, alternate, report


def main() -> None:
    """Count differing voxels on the run's test cases, then time both ways in turn on the first of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    run = get_run(options.outputs, options.run)
    config = changed_config(run, ())
    datamodule = instantiate(config.data)
    datamodule.setup()
    module = restore(run, config, datamodule.label_maps)
    sides = {"everywhere": WholeVolume(), "inside the box": WholeVolume(box_above=32)}
    images = [torch.from_numpy(case.image.whole())[None, None] for case in datamodule.cases("test")]
    different = voxels = 0
    for image in images:
        first, second = (label(module.network, image) for label in sides.values())
        different += sum(int((first[target] != second[target]).sum()) for target in first)
        voxels += sum(labels.numel() for labels in first.values())
    print(f"{len(images)} heads, {different} of {voxels} labels differ")
    seconds = alternate({name: lambda label=label: label(module.network, images[0]) for name, label in sides.items()},
                        options.repeats)
    report([Row(f"{'x'.join(map(str, images[0].shape[2:]))}, {', '.join(module.targets)}", seconds)])


if __name__ == "__main__":
    main()
