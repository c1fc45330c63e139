"""One training step of the Siamese content loss: the front end chunk by chunk against a full VGG19 under autograd.

`python -m tests.benchmarks.siamese_step [--size 224] [--batch 8] [--filters 32] [--repeats 3]`. Both sides take the
same step with the same weights: generator, both branches, backward. The other side is the obvious one: torchvision's
whole VGG19, not frozen, whose layers after the second pooling are run and not used, and a truth that autograd tracks
like the prediction. A third one runs the layers in use only, frozen, all slices at once, with the truth tracked. Loss
and gradients of the generator have to agree first.
"""

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segexp.methods.siamese import DenseUNet, SiameseLoss
from tests.benchmarks.common import Row, alternate, peak_memory, report

SETTINGS = "SEGEXP_BENCHMARK_SETTINGS"  # child processes find size, batch and filters here
POOLS = (4, 9)


class FullVgg(nn.Module):
    """Eq. 1 by torchvision's VGG19 of which ``last`` layers are run, with everything under autograd."""

    def __init__(self, ours: SiameseLoss, full: bool) -> None:
        from torchvision.models import vgg19

        super().__init__()
        self.ours = ours
        whole = vgg19(weights=None)
        for layer in whole.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # the poolings' results are kept
        state = {key.removeprefix("features."): value for key, value in ours.front.state_dict().items()}
        whole.features.load_state_dict(state, strict=False)
        self.vgg = whole if full else None
        self.layers = whole.features if full else whole.features[: POOLS[-1] + 1].requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> the features of both poolings."""
        kept = []
        for index, layer in enumerate(self.layers):
            image = layer(image)
            if index in POOLS:
                kept.append(image)
        return kept

    def forward(self, outputs: dict[str, Tensor], batch: dict) -> dict[str, Tensor]:
        """Return the loss."""
        image = self.ours.prepare(batch["image"])
        truth = (0.1 + 0.8 * (batch["target"]["wmh"] == 1).float())[:, None].requires_grad_()
        branches = [self.features(image * mask) for mask in (truth, outputs["wmh"].sigmoid())]
        return {"loss": sum((one - other).square().mean() for one, other in zip(*branches, strict=True))}


class Side(NamedTuple):
    """What a step needs."""

    network: DenseUNet
    loss: nn.Module
    batch: dict


def make(kind: str, size: int, batch: int, filters: int) -> Side:
    """Return generator and loss of one kind, with the same weights for all, and a batch of noise with lesions."""
    torch.manual_seed(0)
    network = DenseUNet("wmh", base_filters=filters, recompute=kind == "ours")
    ours = SiameseLoss("random")
    ours.front.load()
    image = torch.rand(batch, 1, size, size)
    classes = (torch.rand(batch, size, size) > 0.99).long()
    loss = ours if kind == "ours" else FullVgg(ours, full=kind == "full")
    return Side(network, loss, {"image": image, "target": {"wmh": classes}, "case": [""] * batch})


def step(side: Side) -> float:
    """Run one step without the optimiser and return the loss."""
    side.network.zero_grad()
    side.loss.zero_grad()
    loss = side.loss(side.network(side.batch["image"]), side.batch)["loss"]
    loss.backward()
    return loss.item()


def loss_alone(side: Side) -> Tensor:
    """Run the loss and its gradient by given logits, without the generator; return the gradient."""
    logits = torch.zeros_like(side.batch["image"], requires_grad=True)
    side.loss.zero_grad()
    side.loss({"wmh": logits}, side.batch)["loss"].backward()
    return logits.grad


def assert_equal(kind: str) -> None:
    """Check the loss and its gradients against ours, on small slices.

    In float64: in float32 rounding decides now and then which of two nearly equal neighbours a pooling takes.
    """
    ours, theirs = (make(name, 48, 3, 8) for name in ("ours", kind))
    for side in (ours, theirs):
        side.network.double()
        side.loss.double()
        side.batch["image"] = side.batch["image"].double()
    one, other = step(ours), step(theirs)
    assert abs(one - other) < 1e-6 * other, (one, other)
    pairs = [(mine.grad, yours.grad) for mine, yours in
             zip(ours.network.parameters(), theirs.network.parameters(), strict=True)]
    for mine, yours in (*pairs, (loss_alone(ours), loss_alone(theirs))):
        assert (mine - yours).norm() < 1e-6 * yours.norm()


def given(kind: str) -> Side:
    """Make the inputs of one kind at the size of the command line."""
    return make(kind, *map(int, os.environ[SETTINGS].split()))


def prepare_ours() -> Side:
    """Make the inputs of our side; import what the others import, so that all start from the same memory."""
    import torchvision.models  # noqa: F401

    return given("ours")


def prepare_full() -> Side:
    """Make the inputs of the obvious side."""
    return given("full")


def prepare_front() -> Side:
    """Make the inputs of the third side."""
    return given("front")


SIDES: dict[str, Callable[[], Side]] = {
    "segexp": prepare_ours, "full VGG19, truth tracked": prepare_full, "layers in use, truth tracked": prepare_front,
}


def main() -> None:
    """Check that all sides agree, measure each side's memory in a process of its own, time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ[SETTINGS] = f"{options.size} {options.batch} {options.filters}"
    for kind in ("full", "front"):
        assert_equal(kind)
    print("loss and gradients agree", flush=True)
    shape = f"{options.batch} slices of {options.size}, {options.filters} filters"
    for work, title in ((loss_alone, "the loss and its gradient"), (step, "the whole step")):
        memory = {name: peak_memory(prepare, work) for name, prepare in SIDES.items()}
        sides = {name: prepare() for name, prepare in SIDES.items()}
        seconds = alternate({name: lambda side=side, work=work: work(side) for name, side in sides.items()},
                            options.repeats)
        report([Row(f"{title}, {shape}", seconds, memory)])


if __name__ == "__main__":
    main()
