"""What a run does when its numbers or its memory give out: stop with a reason, or leave a step out."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from segexp.console import say
from segexp.errors import ConfigError, SegexpError
from segexp.tensors import not_finite

POLICIES = ("stop", "skip")
TOGETHER = 50  # steps whose losses are looked at together on a GPU: reading a number waits for the device
IN_A_ROW = 20  # skipped steps after which nothing is left to hope for
SAID = 5  # skipped steps that are said one by one


class NotFinite(SegexpError):
    """The loss or the weights are NaN or infinite."""


class OutOfMemory(SegexpError):
    """A batch or a whole case does not fit into the memory."""


class Guard(pl.Callback):
    """Keep weights finite, and checkpoints with them.

    ``stop``: the run fails at the first loss that is NaN or infinite, with the step and the cases of its batch; the
    last checkpoint is from before it. ``skip``: a step whose gradients are NaN or infinite changes no weight, no
    momentum and no running statistics, and counts as a step; after `IN_A_ROW` of them the run fails. Under both, a
    checkpoint is never written from weights that are not finite, and training does not start from such weights.

    Args:
        nan: stop or skip.

    Attributes:
        skipped: steps left out so far.
    """

    every_rank = True

    def __init__(self, nan: str = "stop") -> None:
        if nan not in POLICIES:
            raise ConfigError(f"callbacks.guard.nan={nan}: expected {' or '.join(POLICIES)}")
        self.nan, self.skipped, self.in_a_row = nan, 0, 0
        self.recent: list[tuple[int, list[str], Tensor]] = []
        self.step, self.cases = -1, list[str]()
        self.buffers: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what goes on with the run."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting."""
        self.skipped = int(state_dict.get("skipped", 0))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse weights that are not finite."""
        bad = not_finite(pl_module.state_dict())
        if bad:
            raise NotFinite(f"training would start at step {trainer.global_step} from weights that are NaN or infinite "
                            f"({bad}); remove the run (segexp runs remove) and train again")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Note whose batch it is, and what a skipped step has to leave as it was."""
        if trainer.global_step != self.step:
            self.step, self.cases = trainer.global_step, []
            if self.nan == "skip":
                self.buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}
        self.cases += [str(case) for case in batch.get("case", ())] if isinstance(batch, Mapping) else []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Leave out a step whose gradients are not finite."""
        if self.nan != "skip":
            return
        parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if all_finite([one.grad for one in parameters]):
            self.in_a_row = 0
            return
        for one in parameters:
            one.grad = None  # the optimiser passes over these
        for name, buffer in pl_module.named_buffers():
            buffer.copy_(self.buffers[name])
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.skipped <= SAID:
            say(f"step {self.step + 1} is left out: its gradients are NaN or infinite (cases {shown(self.cases)})")
        if self.in_a_row >= IN_A_ROW:
            raise NotFinite(f"{IN_A_ROW} steps in a row, to step {self.step + 1}, have gradients that are NaN or "
                            f"infinite (last cases: {shown(self.cases)}); {ADVICE}")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        """Look at the loss: at once on a CPU, now and then on a GPU."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self.nan == "stop" and isinstance(loss, Tensor):
            self.recent.append((self.step + 1, list(self.cases), loss.detach()))
            if loss.device.type == "cpu" or len(self.recent) >= TOGETHER:
                self.look()

    def look(self) -> None:
        """Raise NotFinite for the first loss since the last look that is not finite."""
        recent, self.recent = self.recent, []
        if recent and not torch.stack([loss for _, _, loss in recent]).isfinite().all():
            step, cases, loss = next(one for one in recent if not one[2].isfinite())
            raise NotFinite(f"the loss of step {step} is {float(loss)} (cases {shown(cases)}); {ADVICE}, or leave such "
                            "steps out with callbacks.guard.nan=skip")

    def on_validation_start(self, *args: Any) -> None:
        """Look before time is spent on whole cases."""
        self.look()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep weights that are not finite out of the checkpoint: the one before stays."""
        self.look()
        bad = not_finite(checkpoint.get("state_dict", {}))
        if bad:
            raise NotFinite(f"after step {trainer.global_step} weights are NaN or infinite ({bad}; cases "
                            f"{shown(self.cases)}); {ADVICE}, or leave such steps out with callbacks.guard.nan=skip")

    def on_train_end(self, *args: Any) -> None:
        """Look a last time, and say how many steps were left out."""
        self.look()
        if self.skipped:
            say(f"{self.skipped} steps were left out, because their gradients were NaN or infinite")


ADVICE = ("lower optimizer.lr, clip with trainer.gradient_clip_val=1, or set trainer.precision=32-true; the same "
          "command goes on from the last checkpoint, which is sound")


def all_finite(gradients: list[Tensor]) -> bool:
    """Say whether all numbers of all tensors are finite; one wait for the device."""
    if not gradients:
        return True
    norms = torch._foreach_norm([one.detach().float() for one in gradients], float("inf"))
    return bool(torch.stack([one.to(norms[0].device) for one in norms]).isfinite().all())


def shown(cases: list[str]) -> str:
    """Return some of the cases for a message."""
    names = list(dict.fromkeys(cases))
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "unknown"


def explained(error: BaseException) -> BaseException:
    """Return the error, or what to do about it where the memory gave out."""
    text = str(error)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text))
    if not memory:
        return error
    better = OutOfMemory(f"the memory gave out ({text.splitlines()[0][:200] if text else type(error).__name__}); use "
                         "smaller or fewer crops (sampling.size, sampling.batch_size with "
                         "trainer.accumulate_grad_batches), trainer.precision=bf16-mixed on a GPU, or smaller windows "
                         "(inference=...); the same command goes on from the last checkpoint")
    better.__cause__ = error
    return better
