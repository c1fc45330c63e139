"""The Siamese network trained against the generator (Mac et al. 2020, table 2: "Trained SL")."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segexp.console import say
from segexp.errors import ConfigError, SegexpError
from segexp.methods.siamese.content_loss import SiameseLoss
from segexp.methods.siamese.module import SiameseModule
from segexp.methods.siamese.preprocessing import choose

TRAINED = {"all": ("0", "2", "5", "7"), "block2": ("5", "7")}
FULL = 0.5  # part of a volume that is predicted positive from which on the prediction has collapsed
OUTGROWN = 10.0  # times the first step's size at which features count as outgrown


class AdversarialSiameseModule(SiameseModule):
    """The generator minimises the content loss while VGG19's first blocks, from ImageNet, learn to maximise it.

    Every step makes one prediction. The discriminator's optimiser climbs on it with both branches tracked; the
    generator's descends through the discriminator as it then is, which gets no gradient meanwhile.

    A step of training is a step of the generator. Lightning counts the steps of every optimiser that it wraps, so the
    discriminator's is stepped unwrapped: ``global_step``, ``max_steps``, checkpoints and curves mean what they mean
    elsewhere.

    The maximum has no bound (larger weights make larger differences), so collapse is to be expected, and watched:
    ``train/loss_size_pool1`` and ``_pool2``, the mean size of the features, and ``train/positive``, the part of the
    pixels that are predicted positive. Every validation and the test look at their label maps: when they are all empty,
    or half full, or the features have outgrown those of the first step, that is said, kept in the run's record and put
    below every table (`cautions`). Numbers that are not finite end the run with a message.

    Args:
        d_lr: learning rate of the discriminator (section 4.1: 1e-5); the rest is the generator's optimiser's.
        d_every: generator steps per discriminator step.
        order: ``d_first`` or ``g_first``.
        clip_norm: largest norm of the discriminator's gradient; None: unlimited.
        train_layers: ``all`` four convolutions, or those of ``block2`` only.
        **parts: of ``SegmentationModule``; the loss must be ``SiameseLoss``.

    Raises:
        ConfigError: another loss, an unknown word, numbers that make no sense.
    """

    loss: SiameseLoss

    def __init__(self, d_lr: float = 1e-5, d_every: int = 1, order: str = "d_first", clip_norm: float | None = None,
                 train_layers: str = "all", **parts: Any) -> None:
        super().__init__(**parts)
        if not isinstance(self.loss, SiameseLoss):
            raise ConfigError("method=siamese_adversarial trains the network inside loss=siamese; choose that loss")
        choose("method.order", order, ("d_first", "g_first"))
        choose("method.train_layers", train_layers, TRAINED)
        if d_lr <= 0 or d_every < 1 or (clip_norm is not None and clip_norm <= 0):
            raise ConfigError(f"method.d_lr={d_lr}, method.d_every={d_every}, method.clip_norm={clip_norm}: expected "
                              "numbers above 0")
        self.automatic_optimization = False
        self.d_lr, self.d_every, self.order, self.clip_norm = d_lr, d_every, order, clip_norm
        self.discriminator = [self.loss.front.features[name] for name in TRAINED[train_layers]]
        self.shares: list[float] = []  # part of each volume that was predicted positive in this validation or test
        self.first_size: float | None = None
        self.last_size: Tensor | None = None
        self.collapse = ""

    @property
    def cautions(self) -> list[str]:
        """Also say how the training collapsed, if it did."""
        return super().cautions + [f"the training collapsed: {self.collapse}"] * bool(self.collapse)

    def setup(self, stage: str) -> None:
        """Read the ImageNet weights before the first step.

        Raises:
            ConfigError: half precision or several devices: two optimisers would need a scaler, or a wrapper, each.
        """
        super().setup(stage)
        if stage == "fit" and (self.trainer.precision.startswith("16") or self.trainer.world_size > 1):
            raise ConfigError(f"method=siamese_adversarial trains in trainer.precision=32-true or bf16-mixed on one "
                              f"device, not in {self.trainer.precision} on {self.trainer.world_size}")

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[dict[str, Any]]]:
        """Return the generator's and the discriminator's optimiser, and the generator's scheduler."""
        generator = self.optimizer(self.network.parameters())
        discriminator = self.optimizer([weight for layer in self.discriminator for weight in layer.parameters()],
                                       lr=self.d_lr)
        return [generator, discriminator], [{"scheduler": self.scheduler(generator), "interval": "step"}]

    def training_step(self, batch: Mapping[str, Any], index: int) -> Tensor:
        """Take a step of each side and return the generator's loss."""
        step, seen = self.global_step, {}
        outputs = self.network(batch["image"])
        turns = (self.discriminate, self.generate) if self.order == "d_first" else (self.generate, self.discriminate)
        for turn in turns:
            if turn == self.generate or step % self.d_every == 0:
                seen |= turn(outputs, batch)
        if (step + 1) % self.trainer.log_every_n_steps == 0:
            positive = torch.stack([(logits.detach() > 0).float().mean() for logits in outputs.values()]).mean()
            self.log_dict({f"train/{name}": value.detach() for name, value in {**seen, "positive": positive}.items()},
                          batch_size=len(batch["case"]))
        return seen["loss"]

    def on_validation_epoch_start(self) -> None:
        """Forget the volumes of the last validation."""
        super().on_validation_epoch_start()
        self.shares = []

    def on_test_epoch_start(self) -> None:
        """Forget the volumes of the last validation or test."""
        super().on_test_epoch_start()
        self.shares = []

    def on_validation_epoch_end(self) -> None:
        """Also look for a collapse."""
        super().on_validation_epoch_end()
        self.look_for_collapse()

    def on_test_epoch_end(self) -> None:
        """Look for a collapse."""
        super().on_test_epoch_end()
        self.look_for_collapse()

    def _score(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        labels = super()._score(batch)
        self.shares += [float((found == 1).float().mean()) for found in labels.values()]
        return labels

    def look_for_collapse(self) -> None:
        """Keep and say what has collapsed, judged by the label maps of this validation or test."""
        found, volumes = [], f"of {len(self.shares)} volumes"
        if self.shares and not max(self.shares):
            found.append(f"nothing is predicted in any {volumes}")
        elif self.shares and min(self.shares) > FULL:
            found.append(f"more than half of every one {volumes} is predicted")
        if self.first_size and self.last_size is not None:
            growth = float(self.last_size) / self.first_size
            if growth > OUTGROWN:
                found.append(f"the features are {growth:.0f} times as large as in the first step")
        self.collapse = "; ".join(found)
        if found:
            say(f"step {self.global_step}: {self.cautions[-1]}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep the size of the first step's features."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["first_size"] = self.first_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the size of the first step's features from where the run goes on."""
        self.first_size = checkpoint.get("first_size")

    def generate(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take a step down with the generator and return the parts of its loss."""
        optimizer = self.optimizers()[0]
        parts = self.loss(outputs, batch)
        self.refuse_nonsense(parts)
        self.last_size = parts["size_pool2"]
        if self.first_size is None:
            self.first_size = float(self.last_size)
        optimizer.zero_grad()
        self.manual_backward(parts["loss"])
        optimizer.step()
        self.lr_schedulers().step()
        return {"loss" if name == "loss" else f"loss_{name}": value for name, value in parts.items()}

    def discriminate(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take a step up with the discriminator and return its loss, minus the content loss."""
        optimizer = self.optimizers(use_pl_optimizer=False)[1]  # unwrapped: it is not counted
        layers = nn.ModuleList(self.discriminator).requires_grad_(True)
        try:
            parts = self.loss({target: logits.detach() for target, logits in outputs.items()}, batch)
            self.refuse_nonsense(parts)
            optimizer.zero_grad()
            self.manual_backward(-parts["loss"])
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(layers.parameters(), self.clip_norm)
            optimizer.step()
        finally:
            layers.requires_grad_(False)
        return {"loss_discriminator": -parts["loss"]}

    def refuse_nonsense(self, parts: Mapping[str, Tensor]) -> None:
        """Raise SegexpError when the loss is not finite: the two sides have run away."""
        if not bool(torch.isfinite(parts["loss"])):
            sizes = ", ".join(f"{float(parts[name]):g}" for name in ("size_pool1", "size_pool2"))
            raise SegexpError(
                f"step {self.global_step}: the content loss is {parts['loss'].item()}, the features' mean sizes are "
                f"{sizes}: the discriminator has run away, its loss has no bound. Lower method.d_lr={self.d_lr}, set "
                "method.clip_norm, or bound it with loss.normalise_features=true"
            )
