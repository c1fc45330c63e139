"""The LightningModule of every method that labels voxels."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from segexp.data.labelmap import LabelMap
    from segexp.metrics import Scorer

Labels = dict[str, Tensor]


class SegmentationModule(pl.LightningModule):
    """Train, validate, test and predict one or several label maps of an image.

    Glossary: B batch, C channels, K classes, D/H/W depth/height/width.

    Args:
        targets: names of the label maps, in the network's order.
        network: image [B, C, D, H, W] -> target -> logits [B, K, D, H, W].
        loss: (outputs, batch) -> ``{"loss": scalar, part: scalar, ...}``.
        optimizer: makes an optimiser from parameters.
        scheduler: makes a scheduler from an optimiser; it is stepped after every optimiser step.
        inference: (network, image [1, C, D, H, W]) -> target -> class indices [1, D, H, W] on the image's grid.
        scorer: label maps of prediction and reference -> score rows.
        label_maps: target -> its label map.

    """

    def __init__(
        self,
        targets: Sequence[str],
        network: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any],
        inference: Callable[[nn.Module, Tensor], Labels],
        scorer: "Scorer",
        label_maps: Mapping[str, "LabelMap"],
    ) -> None:
        super().__init__()
        self.targets = [targets] if isinstance(targets, str) else list(targets)
        self.network, self.loss = network, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.inference, self.scorer, self.label_maps = inference, scorer, dict(label_maps)
        self.rows: list[dict[str, Any]] = []

    @property
    def facts(self) -> dict[str, str]:
        """What a run's record says about its training beside the configuration: label -> text."""
        return {}

    @property
    def cautions(self) -> list[str]:
        """What everybody who reads the scores has to know: sentences, put below every table with them."""
        return []

    def forward(self, image: Tensor) -> Mapping[str, Any]:
        """Return target -> logits [B, K, D, H, W] of an image [B, C, D, H, W]."""
        return self.network(image)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimiser over network and loss, and its scheduler, stepped every step."""
        optimizer = self.optimizer(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    def training_step(self, batch: Mapping[str, Any], index: int) -> Tensor:
        """Return the loss of a batch of crops."""
        parts = self.loss(self.network(batch["image"]), batch)
        # Reading a number waits for the device: only the steps whose curves are kept pay for it.
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            names = {"loss": "train/loss", **{part: f"train/loss_{part}" for part in parts if part != "loss"}}
            self.log_dict({names[part]: value.detach() for part, value in parts.items()}, batch_size=len(batch["case"]))
        return parts["loss"]

    def on_validation_epoch_start(self) -> None:
        """Forget the rows of the last validation."""
        self.rows = []

    def validation_step(self, batch: Mapping[str, Any], index: int) -> Labels:
        """Label and score a whole case."""
        return self._score(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice of every target and over all targets."""
        self.rows = rows_of_all_ranks(self.rows)
        means = mean_dice(self.rows)
        for target, value in means.items():
            self.log(f"val/dice_{target}", value, sync_dist=True)
        if means:
            self.log("val/dice", sum(means.values()) / len(means), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Forget the rows of the last test."""
        self.rows = []

    def test_step(self, batch: Mapping[str, Any], index: int) -> Labels:
        """Label and score a whole case, also against the truth where the data set has one; keep the rows."""
        labels = self._score(batch)
        prediction = to_arrays(labels)
        if batch.get("truth"):
            truth = {target: value for target, value in to_arrays(batch["truth"]).items() if target in prediction}
            self._keep(prediction, truth, batch, "_truth")
            tools = {target: value for target, value in to_arrays(batch["target"]).items() if target in truth}
            self._keep(tools, {target: truth[target] for target in tools}, batch, "_truth", prefix="tool_")
        return labels

    def on_test_epoch_end(self) -> None:
        """Put the rows of all ranks together."""
        self.rows = rows_of_all_ranks(self.rows)

    def predict_step(self, batch: Mapping[str, Any], index: int) -> Labels:
        """Return target -> class indices [1, D, H, W] of a whole image."""
        return self.inference(self.network, batch["image"])

    def _score(self, batch: Mapping[str, Any]) -> Labels:
        started = time.perf_counter()
        labels = self.inference(self.network, batch["image"])
        prediction = to_arrays(labels)  # waits for the device: the time is the whole time
        seconds = time.perf_counter() - started
        self._keep(prediction, to_arrays(batch["target"]), batch)
        self.rows.append({"case": batch["case"][0], "group": group_of(batch), "target": "", "structure": "",
                          "metric": "predict_seconds", "value": seconds, "unit": "s", "defined": True, "reason": ""})
        return labels

    def _keep(self, prediction: Mapping[str, Any], reference: Mapping[str, Any], batch: Mapping[str, Any],
              suffix: str = "", prefix: str = "") -> None:
        """Score against ``reference``; metrics against a truth have names of their own."""
        rows = self.scorer(prediction, reference, self.label_maps, batch["spacing"][0], batch["case"][0],
                           group_of(batch))
        for row in rows:
            row["metric"] = f"{prefix}{row['metric']}{suffix}"
        self.rows += rows


def group_of(batch: Mapping[str, Any]) -> str:
    """Return the group of a whole case, empty when its data set has none."""
    return batch["group"][0] if "group" in batch else ""


def to_arrays(labels: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return target -> class indices [D, H, W] of target -> [1, D, H, W]."""
    return {target: value[0].cpu().numpy() for target, value in labels.items()}


def rows_of_all_ranks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the score rows of every rank, each case once, in the order in which the cases were dealt."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    everybody: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everybody, rows)
    dealt = [[list(case) for _, case in groupby(mine, key=lambda row: row["case"])] for mine in everybody]
    seen: dict[str, list[dict[str, Any]]] = {}
    for turn in zip_longest(*dealt):
        for case in turn:
            if case:
                seen.setdefault(case[0]["case"], case)
    return [row for case in seen.values() for row in case]


def mean_dice(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return target -> mean over cases of the mean over defined structures of Dice."""
    cases: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["metric"] == "dice" and row["defined"]:
            cases.setdefault((row["target"], row["case"]), []).append(row["value"])
    targets: dict[str, list[float]] = {}
    for (target, _), values in cases.items():
        targets.setdefault(target, []).append(sum(values) / len(values))
    return {target: sum(values) / len(values) for target, values in targets.items()}
