"""Running statistics of batch normalisation over several ranks, as one process would have them."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics(pl.Callback):
    """Let the running statistics forget nobody's batches: fold the ranks' in the order one process would take them.

    With momentum m, a rank that began at r and took k batches holds x = (1-m)^k r + c. One process, taking the batches
    of rank 0, 1, ... one after the other, holds (1-m)^k (...) + c of each in turn. Layers that average over all
    batches ever seen (momentum None) are left alone.
    """

    def __init__(self) -> None:
        self.step = 0
        self.before: list[tuple[Tensor, int]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: nn.Module) -> None:
        """Remember where the first step begins."""
        self.step = trainer.global_step
        self.remember(running(pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: nn.Module, *args: Any) -> None:
        """Fold after a whole step, before it may be saved."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        statistics = running(pl_module)
        if statistics:
            self.fold(statistics, trainer.world_size)
        self.remember(statistics)

    def remember(self, statistics: list["Statistic"]) -> None:
        """Keep the values and counts that the next step begins with."""
        self.before = [(value.clone(), int(count)) for value, _, count in statistics]

    @torch.no_grad()
    def fold(self, statistics: list["Statistic"], ranks: int) -> None:
        """Replace this rank's statistics by those of all, in one exchange."""
        taken = [int(count) - before for (_, _, count), (_, before) in zip(statistics, self.before, strict=True)]
        first = statistics[0][0]
        mine = torch.cat([*(value.flatten().float() for value, *_ in statistics), first.new_tensor(taken).float()])
        everybody = [torch.empty_like(mine) for _ in range(ranks)]
        torch.distributed.all_gather(everybody, mine)
        sizes = [*(value.numel() for value, *_ in statistics), len(statistics)]
        parts = [whole.split(sizes) for whole in everybody]
        for index, ((value, momentum, count), (start, before)) in enumerate(zip(statistics, self.before, strict=True)):
            result, begun = start.flatten(), start.flatten()
            for part in parts:
                kept = (1 - momentum) ** int(part[-1][index])
                result = kept * result + (part[index] - kept * begun)
            value.copy_(result.view_as(value))
            count.fill_(before + int(sum(part[-1][index] for part in parts)))


Statistic = tuple[Tensor, float, Tensor]


def running(module: nn.Module) -> list[Statistic]:
    """Return (running mean or variance, momentum, number of batches tracked) of every layer that keeps them."""
    layers = [layer for layer in module.modules()
              if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.momentum]
    return [(value, layer.momentum, layer.num_batches_tracked)
            for layer in layers for value in (layer.running_mean, layer.running_var)]
