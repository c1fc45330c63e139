"""What our Trainer set-up adds to a training step: callbacks, loggers and all, against a bare loop.

    python -m tests.benchmarks.trainer_overhead

Both sides train the same network on the same batches with the same loss and optimiser; the weights after the last
step are asserted to be equal first. A step of both takes a few milliseconds, so that the difference shows.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from segexp.methods.segmentation import SegmentationModule
from segexp.metrics import Scorer
from segexp.runs import loggers
from segexp.runs.callbacks import Overlays, Progress
from segexp.runs.checkpoints import Checkpoint, CheckpointFiles, StepSeeds
from segexp.runs.guards import Guard
from segexp.runs.stopping import Listening, StopRequest
from tests.benchmarks.common import Row, report

STEPS = 400


class Network(torch.nn.Module):
    """A small convolution: the step is nearly all overhead."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 4, 3, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return target -> logits."""
        return {"a": self.layer(image)}


class Loss(torch.nn.Module):
    """Cross entropy of the one target."""

    def forward(self, outputs: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the loss and its part."""
        value = F.cross_entropy(outputs["a"], batch["target"]["a"])
        return {"loss": value, "a": value}


def batches() -> list[dict[str, Any]]:
    """Return the batches of a run; a list, so that loading costs both sides nothing."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(8, 1, 1, 16, 16, 16, generator=generator)
    labels = torch.randint(0, 4, (8, 1, 16, 16, 16), generator=generator)
    return [{"image": image[i % 8], "target": {"a": labels[i % 8]}, "case": ["x"]} for i in range(STEPS)]


def bare() -> tuple[torch.Tensor, float]:
    """Return the last weights and the seconds per step of a plain loop."""
    torch.manual_seed(0)
    network, loss = Network(), Loss()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    data = batches()
    started = time.perf_counter()
    for batch in data:
        optimizer.zero_grad()
        loss(network(batch["image"]), batch)["loss"].backward()
        optimizer.step()
    return network.layer.weight.detach(), (time.perf_counter() - started) / STEPS


def ours(callbacks: bool = True) -> tuple[torch.Tensor, float]:
    """Return the last weights and the seconds per step through the set-up of ``segexp train``, or Lightning alone."""
    torch.manual_seed(0)
    module = SegmentationModule(
        ["a"], Network(), Loss(), lambda parameters: torch.optim.Adam(parameters, 1e-3),
        lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0), inference=lambda *_: {},
        scorer=Scorer(), label_maps={})
    with tempfile.TemporaryDirectory() as folder:
        beside = [Listening(StopRequest()), StepSeeds(1, int), Progress(folder, "benchmark"), Overlays(folder),
                  pl.callbacks.LearningRateMonitor("step"), Guard(), Checkpoint(folder, every_steps=STEPS)]
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=STEPS, max_epochs=-1, callbacks=beside if callbacks else [],
            logger=[loggers.csv(folder)] if callbacks else False, plugins=[CheckpointFiles()],
            log_every_n_steps=10, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=Path(folder))
        clock = Clock()
        trainer.callbacks.append(clock)
        trainer.fit(module, DataLoader(batches(), batch_size=None))
    return module.network.layer.weight.detach(), clock.seconds / STEPS


class Clock(pl.Callback):
    """The time from the first step's start to the last step's end."""

    def on_train_start(self, *args: Any) -> None:
        """Start."""
        self.started = time.perf_counter()

    def on_train_end(self, *args: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.started


def main() -> None:
    """Assert equality, measure in turn, print."""
    from segexp.runs.training import quiet

    quiet()
    assert torch.equal(ours()[0], bare()[0]), "the two sides train different weights"
    turns = [(ours()[1], ours(callbacks=False)[1], bare()[1]) for _ in range(5)]
    seconds = {name: [turn[index] for turn in turns] for index, name in enumerate(("ours", "Lightning", "bare loop"))}
    report([Row("training step, overhead of our Trainer set-up", seconds)])
    for name, index, than in (("ours", 0, 2), ("our callbacks and curves", 0, 1)):
        added = sorted(1e3 * (turn[index] - turn[than]) for turn in turns)
        print(f"{name} add per step: median {added[2]:.2f} ms (least {added[0]:.2f}, most {added[-1]:.2f})")


if __name__ == "__main__":
    main()
