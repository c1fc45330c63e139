"""Row 20: a loss that is no number, no memory, nothing in the foreground, a class that no case has: as configured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segexp import tensors
from segexp.cli import main
from segexp.config import compose, instantiate
from segexp.config.folder import choices
from segexp.config.paths import search_dirs
from segexp.data.labelmap import IGNORE, LabelMap
from segexp.errors import ConfigError
from segexp.methods.segmentation import SegmentationModule, mean_dice
from segexp.metrics import Scorer
from segexp.runs.guards import IN_A_ROW, Guard, NotFinite, OutOfMemory, explained
from tests.faults.conftest import Trained, elsewhere, results

STEP = SegmentationModule.training_step


def at(step: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a training step whose loss is changed at one optimiser step (counted from 1)."""
    def training_step(self: Any, batch: Any, index: int) -> torch.Tensor:
        loss = STEP(self, batch, index)
        return change(loss) if self.global_step + 1 == step else loss
    return training_step


def run_of(outputs: Path) -> tuple[Path, dict[str, Any]]:
    run = next((outputs / "runs" / "neuronet").iterdir())
    return run, json.loads((run / "run.json").read_text())


def test_stop_names_step_and_cases_keeps_the_checkpoint_and_goes_on_to_the_same_weights(
        trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", at(5, lambda loss: loss * float("nan")))
        assert main(elsewhere(trained, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "the loss of step 5 is nan (cases 9" in said and "callbacks.guard.nan=skip" in said
    run, info = run_of(tmp_path)
    assert info["status"] == "failed" and info["error"].startswith("NotFinite: the loss of step 5")
    kept = tensors.load(run / "checkpoints" / "last.ckpt")
    assert kept["global_step"] == 3 and not tensors.not_finite(kept["state_dict"])
    assert main(elsewhere(trained, tmp_path)) == 0  # the fault is gone
    assert "goes on from step 3" in capsys.readouterr().out
    weights, curves, scores = results(tmp_path)
    expected = results(trained.outputs)
    assert all(torch.equal(weights[key], expected[0][key]) for key in expected[0])
    assert (curves, scores) == expected[1:]


def test_weights_that_break_at_the_last_step_before_a_checkpoint_do_not_reach_it(trained: Trained, tmp_path: Path,
                                                                                capsys: Any) -> None:
    """The loss is finite, the gradient is not: only the weights tell."""
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", at(6, Poison.apply))
        assert main(elsewhere(trained, tmp_path)) == 1
        assert "after step 6 weights are NaN or infinite" in capsys.readouterr().err
        kept = tensors.load(run_of(tmp_path)[0] / "checkpoints" / "last.ckpt")
        assert kept["global_step"] == 3 and not tensors.not_finite(kept["state_dict"])
        assert main(elsewhere(trained, tmp_path, "callbacks.guard.nan=skip")) == 0
    said = capsys.readouterr().out
    assert "step 6 is left out: its gradients are NaN or infinite (cases 9" in said and "1 steps were left out" in said
    weights, _, _ = results(tmp_path)
    assert not tensors.not_finite(weights)
    _, info = run_of(tmp_path)
    assert info["status"] == "done" and info["error"] is None


def test_no_memory_is_said_with_what_to_do(trained: Trained, tmp_path: Path, capsys: Any) -> None:
    def hungry(loss: torch.Tensor) -> torch.Tensor:
        return loss + torch.empty(1 << 60, dtype=torch.uint8).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", at(5, hungry))
        assert main(elsewhere(trained, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "the memory gave out" in said and "sampling.batch_size" in said and "Traceback" not in said
    run, info = run_of(tmp_path)
    assert info["status"] == "failed" and tensors.load(run / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_memory_errors_of_all_kinds_are_recognised() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
                  RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")):
        assert isinstance(explained(error), OutOfMemory) and explained(error).__cause__ is error
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert explained(other) is other


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)


def toy_steps(guard: Guard, losses: list[float], momentum: float = 0.9) -> tuple[Toy, list[dict[str, torch.Tensor]]]:
    """Take a step per factor of the loss, with the guard's hooks in Lightning's order; return the state after each."""
    class Trainer:
        global_step = 0

    torch.manual_seed(0)
    module, trainer, states = Toy(), Trainer(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=momentum)
    guard.on_train_start(trainer, module)
    for factor in losses:
        guard.on_train_batch_start(trainer, module, {"case": [f"c{trainer.global_step}"]}, 0)
        optimizer.zero_grad()
        inputs = torch.randn(4, 3) * factor
        module.layer(module.norm(inputs)).pow(2).mean().mul(factor).backward()
        guard.on_before_optimizer_step(trainer, module, optimizer)
        optimizer.step()
        trainer.global_step += 1
        states.append({name: one.clone() for name, one in module.state_dict().items()})
    return module, states


def test_a_skipped_step_changes_nothing_at_all() -> None:
    guard, nan = Guard("skip"), float("nan")
    _, states = toy_steps(guard, [1, 1, nan, nan, 1])
    for one in (2, 3):
        assert all(torch.equal(states[one][name], states[1][name]) for name in states[1]), "weights or statistics moved"
    assert not tensors.not_finite(states[-1]) and guard.skipped == 2 and guard.in_a_row == 0
    assert not torch.equal(states[4]["layer.weight"], states[3]["layer.weight"])
    again = Guard("skip")
    again.load_state_dict(guard.state_dict())
    assert again.skipped == 2


def test_too_many_in_a_row_end_the_run() -> None:
    with pytest.raises(NotFinite, match=rf"{IN_A_ROW} steps in a row, to step {IN_A_ROW + 1}.*last cases: c{IN_A_ROW}"):
        toy_steps(Guard("skip"), [1, *[float("inf")] * (IN_A_ROW + 5)])


def test_a_run_does_not_start_from_weights_that_are_not_finite() -> None:
    class Trainer:
        global_step = 7

    module = Toy()
    with torch.no_grad():
        module.layer.weight[0, 0] = float("inf")
    with pytest.raises(NotFinite, match=r"step 7 .*layer\.weight"):
        Guard().on_train_start(Trainer(), module)
    with pytest.raises(ConfigError, match="stop or skip"):
        Guard("ignore")


EMPTY = {"nothing in the foreground": 0, "nothing known": IGNORE}
LOSSES = {
    "cross_entropy": ("neuronet/nn_tissue", ""), "cross_entropy_consistency": ("neuronet/nn_all", "loss"),
    "dice_cross_entropy": ("neuronet/nn_tissue", "loss"), "weighted_cross_entropy": ("kidney_ppm/fcn_ppm", ""),
    "dice": ("siamese/dice", ""), "tversky": ("siamese/tversky", ""),
    "generalized_dice": ("siamese/generalized_dice", ""), "siamese": ("siamese/siamese", ""),
}
"""Loss -> an experiment that has it, or takes it."""


def test_every_loss_is_tried() -> None:
    assert set(LOSSES) == set(choices(search_dirs(), "loss"))


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_foreground_has_a_finite_loss_and_gradient(name: str) -> None:
    experiment, group = LOSSES[name]
    words = [f"experiment={experiment}", "scale=smoke", "data.root=/x", *([f"loss={name}"] if group else [])]
    config = compose("train", [*words, *(["loss.weights=random"] if name == "siamese" else [])])
    torch.manual_seed(0)
    network, loss = instantiate(config.network), instantiate(config.loss)
    size = config.sampling.size
    shape = [size] * (3 if "neuronet" in experiment else 2) if isinstance(size, int) else list(size)
    image = torch.rand(2, 1, *shape)
    targets = [config.method.targets] if isinstance(config.method.targets, str) else list(config.method.targets)
    for kind, value in EMPTY.items():
        network.zero_grad()
        batch = {"image": image, "case": ["a", "b"],
                 "target": {target: torch.full((2, *shape), value) for target in targets}}
        parts = loss(network(image), batch)
        assert all(torch.as_tensor(one).isfinite().all() for one in parts.values()), (kind, parts)
        if parts["loss"].requires_grad:
            parts["loss"].backward()
        assert all(one.grad is None or one.grad.isfinite().all() for one in network.parameters()), kind


def test_a_class_that_no_validation_case_has_is_undefined_not_nan() -> None:
    maps = {"t": LabelMap.from_mapping("t", {0: "background", 1: "seen", 2: "never"})}
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[:2] = 1
    rows = []
    for case in ("a", "b"):
        rows += Scorer()({"t": reference}, {"t": reference}, maps, (1, 1, 1), case, "")
    never = [row for row in rows if row["structure"] == "never" and row["metric"] == "dice"]
    assert len(never) == 2 and all(not row["defined"] and row["reason"] for row in never)
    assert mean_dice(rows) == {"t": 1.0}
    empty = Scorer()({"t": reference * 0}, {"t": reference * 0}, maps, (1, 1, 1), "c", "")
    assert mean_dice(empty) == {}
