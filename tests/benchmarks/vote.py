"""Majority vote over windows of 64 slices: slabs of labels against MONAI's sliding window on one-hot outputs.

`python -m tests.benchmarks.vote [--shape 512 512 320] [--repeats 3]`. Both sides run the same cheap network with the
same weights on the same windows (stride 32). First, on a smaller volume, the labels have to be the same wherever one
class has more votes than every other; MONAI gives a tie to the first class.
"""

import argparse
import json
import os

import torch
from torch import nn
from torch.nn import functional as F

from segexp.inference import VotedWindows
from tests.benchmarks.common import Row, alternate, peak_memory, report

CLASSES = 3
DEPTH = 64
SHAPE = "SEGEXP_BENCHMARK_SHAPE"  # child processes find the size here


class Cheap(nn.Module):
    """A mean of five slices, scaled per class: near its ends a window lacks neighbours, so that windows disagree there.

    No convolution: its workspace would be larger than all that is compared here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, 1, 1, 1))
        self.bias = nn.Parameter(0.3 * torch.randn(CLASSES, 1, 1, 1))

    def forward(self, window: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits [B, 3, D, H, 64]."""
        return {"kidney": torch.addcmul(self.bias, F.avg_pool3d(window, (1, 1, 5), 1, (0, 0, 2)), self.weight)}


def make(shape: tuple[int, ...]) -> tuple[Cheap, torch.Tensor]:
    """Return the network and a volume of noise."""
    torch.manual_seed(0)
    return Cheap().eval(), torch.randn(1, 1, *shape)


@torch.no_grad()
def shares(network: Cheap, image: torch.Tensor) -> torch.Tensor:
    """Return the share of windows that vote for each class, [1, 3, D, H, W], by MONAI."""
    from monai.inferers import sliding_window_inference

    def hot(window: torch.Tensor) -> torch.Tensor:
        logits = network(window)["kidney"]
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)

    roi = (*image.shape[2:4], DEPTH)
    return sliding_window_inference(image, roi, 1, hot, overlap=(0, 0, 0.5), mode="constant")


def monai_in_child(inputs: tuple[Cheap, torch.Tensor]) -> torch.Tensor:
    """Label once with MONAI."""
    return shares(*inputs).argmax(1).to(torch.uint8)


def ours_in_child(inputs: tuple[Cheap, torch.Tensor]) -> torch.Tensor:
    """Label once with segexp."""
    return VotedWindows()(*inputs)["kidney"]


def check_labels(shape: tuple[int, ...]) -> None:
    """Assert that the labels differ at ties only, and print how many there are."""
    inputs = make(shape)
    ours, share = ours_in_child(inputs), shares(*inputs)
    top = share.topk(2, 1).values
    tied = top[:, 0] - top[:, 1] < 1e-3
    differing = ours != share.argmax(1)
    assert not (differing & ~tied).any()
    print(f"ties: {tied.float().mean():.2%}, labels that differ, all at ties: {differing.float().mean():.2%}",
          flush=True)


def prepare() -> tuple[Cheap, torch.Tensor]:
    """Make the inputs, and import MONAI, so that both sides start from the same memory."""
    import monai.inferers  # noqa: F401

    return make(tuple(json.loads(os.environ[SHAPE])))


def main() -> None:
    """Check that the labels are the same, measure each side's memory in a process of its own, time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 320))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ[SHAPE] = json.dumps(list(options.shape))
    check_labels((96, 96, 200))
    memory = {"segexp": peak_memory(prepare, ours_in_child),
              "MONAI sliding window": peak_memory(prepare, monai_in_child)}
    inputs = prepare()
    seconds = alternate({"segexp": lambda: ours_in_child(inputs),
                         "MONAI sliding window": lambda: monai_in_child(inputs)}, options.repeats)
    shape = "x".join(map(str, options.shape))
    report([Row(f"majority vote, {shape}, {CLASSES} classes, {DEPTH} slices a window", seconds, memory)])


if __name__ == "__main__":
    main()
