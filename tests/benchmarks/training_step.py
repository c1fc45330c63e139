"""One training step with all five targets at full width: folded and streamed against layer by layer.

`python -m tests.benchmarks.training_step [--size 96] [--repeats 3]`. Both sides take the same step: forward, mean cross
entropy, backward. Loss and gradients have to agree first.
"""

import argparse
import os

import torch

from segexp.losses import CrossEntropy
from segexp.methods.neuronet import NeuroNet
from tests.benchmarks.common import Row, alternate, peak_memory, report
from tests.benchmarks.inference import TARGETS

SIZE = "SEGEXP_BENCHMARK_SIZE"  # child processes find the size here


def make(decoder: str, size: int) -> tuple[NeuroNet, torch.Tensor, dict]:
    """Return a network with the same weights for either decoder, and a batch of one crop of noise."""
    torch.manual_seed(0)
    network = NeuroNet(TARGETS, decoder=decoder)
    image = torch.randn(1, 1, *(size,) * 3)
    return network, image, {"target": {
        target: torch.randint(classes, (1, *(size,) * 3)) for target, classes in TARGETS.items()}}


def step(inputs: tuple[NeuroNet, torch.Tensor, dict]) -> float:
    """Run one step without the optimiser and return the loss."""
    network, image, batch = inputs
    network.zero_grad()
    loss = CrossEntropy()(network(image), batch)["loss"]
    loss.backward()
    return loss.item()


def assert_equal(size: int) -> None:
    """Check loss and gradients of both sides."""
    sides = [make(decoder, size) for decoder in ("folded", "plain")]
    ours, theirs = (step(side) for side in sides)
    assert abs(ours - theirs) < 1e-5 * theirs, (ours, theirs)
    for (name, one), other in zip(sides[0][0].named_parameters(), sides[1][0].parameters(), strict=True):
        assert (one.grad - other.grad).norm() < 1e-3 * other.grad.norm() + 1e-7, name


def prepare_folded() -> tuple[NeuroNet, torch.Tensor, dict]:
    """Make the inputs of our side."""
    return make("folded", int(os.environ[SIZE]))


def prepare_plain() -> tuple[NeuroNet, torch.Tensor, dict]:
    """Make the inputs of the other side."""
    return make("plain", int(os.environ[SIZE]))


def main() -> None:
    """Check that both sides agree, measure each side's memory in a process of its own, time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ[SIZE] = str(options.size)
    assert_equal(32)
    memory = {"folded, streamed": peak_memory(prepare_folded, step), "plain": peak_memory(prepare_plain, step)}
    print(memory, flush=True)
    folded, plain = prepare_folded(), prepare_plain()
    seconds = alternate({"folded, streamed": lambda: step(folded), "plain": lambda: step(plain)}, options.repeats)
    report([Row(f"one step, {options.size}^3, {sum(TARGETS.values())} classes", seconds, memory)])


if __name__ == "__main__":
    main()
