"""All five label maps of a whole volume at full width: one streamed pass against MONAI's sliding window.

`python -m tests.benchmarks.inference [--shape 182 218 182] [--repeats 2]`. MONAI's side runs the same weights with the
plain decoders in windows of 128^3 that overlap by half, and takes the largest class. On two cores one of its rounds
takes minutes and needs about 10 GB. First, on a smaller volume, both decoders have to give the same labels.
"""

import argparse
import json
import os

import torch

from segexp.inference import WholeVolume
from segexp.methods.neuronet import NeuroNet
from tests.benchmarks.common import Row, alternate, peak_memory, report

TARGETS = {"fsl_fast": 4, "fsl_first": 16, "spm_tissue": 4, "malp_em": 139, "malp_em_tissue": 6}
SHAPE = "SEGEXP_BENCHMARK_SHAPE"  # child processes find the size here


def make(decoder: str, shape: tuple[int, ...]) -> tuple[NeuroNet, torch.Tensor]:
    """Return a network with the same weights for either decoder and a volume of noise."""
    torch.manual_seed(0)
    network = NeuroNet(TARGETS, decoder=decoder)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval(), torch.randn(1, 1, *shape)


@torch.no_grad()
def windows(network: NeuroNet, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Label a volume as a MONAI user would."""
    from monai.inferers import sliding_window_inference

    scores = sliding_window_inference(image, (128,) * 3, 1, network, overlap=0.5)
    return {target: logits.argmax(1).to(torch.uint8) for target, logits in scores.items()}


@torch.no_grad()
def differing(shape: tuple[int, ...]) -> float:
    """Return the share of voxels whose labels differ from those of the dense logits of the plain decoders."""
    network, image = make("folded", shape)
    ours = WholeVolume()(network, image)
    plain = make("plain", shape)[0](image)
    wrong = sum(int((ours[target] != logits.argmax(1)).sum()) for target, logits in plain.items())
    return wrong / sum(labels.numel() for labels in ours.values())


def ours_in_child(inputs: tuple[NeuroNet, torch.Tensor]) -> None:
    """Label once with segexp."""
    WholeVolume()(*inputs)


def monai_in_child(inputs: tuple[NeuroNet, torch.Tensor]) -> None:
    """Label once with MONAI."""
    windows(*inputs)


def prepare_ours() -> tuple[NeuroNet, torch.Tensor]:
    """Make the folded network and the volume."""
    return make("folded", tuple(json.loads(os.environ[SHAPE])))


def prepare_monai() -> tuple[NeuroNet, torch.Tensor]:
    """Make the plain network and the volume, and import MONAI, so that it counts as "before"."""
    import monai.inferers  # noqa: F401

    return make("plain", tuple(json.loads(os.environ[SHAPE])))


def main() -> None:
    """Check that the labels are the same, measure each side's memory in a process of its own, time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(182, 218, 182))
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    os.environ[SHAPE] = json.dumps(list(options.shape))
    share = differing((48, 64, 56))
    print(f"labels that differ from those of dense logits: {share:.1e} (rounding, where two classes tie)", flush=True)
    assert share < 1e-4
    memory = {"segexp": peak_memory(prepare_ours, ours_in_child)}
    print(memory, flush=True)
    memory["MONAI sliding window"] = peak_memory(prepare_monai, monai_in_child)
    print(memory, flush=True)
    ours, theirs = prepare_ours(), prepare_monai()
    seconds = alternate({"segexp": lambda: ours_in_child(ours),
                         "MONAI sliding window": lambda: monai_in_child(theirs)}, options.repeats, warmup=0)
    shape = "x".join(map(str, options.shape))
    report([Row(f"{shape}, {len(TARGETS)} targets, {sum(TARGETS.values())} classes", seconds, memory)])


if __name__ == "__main__":
    main()
