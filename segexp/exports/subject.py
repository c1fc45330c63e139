"""What is exported: a finished run with its network restored, and the shape of what it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segexp.exports.description import describe
from segexp.exports.parity import logits_of, sample
from segexp.runs.directory import Run


@dataclass(frozen=True)
class Subject:
    """A finished run as exports see it.

    Attributes:
        run: the run.
        config: its configuration.
        module: its LightningModule, restored; of adversarial methods only the generator is exported.
        datamodule: its data module, scaling as in training.
        shape: [B, C, *spatial] of an input as in training, which the network takes.
        size: sizes that the user fixed, else None.
        allow: module prefixes of the user that a ``_target_`` may name.
        expected: target -> logits of the network for `sample` (shape).
        description: see ``describe``.
    """

    run: Run
    config: Any
    module: Any
    datamodule: Any
    shape: tuple[int, ...]
    size: tuple[int, ...] | None
    allow: tuple[str, ...]
    expected: Mapping[str, Tensor]
    description: dict[str, Any]

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode on the CPU."""
        return self.module.network


def subject_of(run: Run, size: Sequence[int] | int | None = None, allow: Sequence[str] = ()) -> Subject:
    """Restore a finished run.

    Raises:
        ConfigError: ``size`` is not one number, or one for each axis.
        SegexpError: the run is not done (the message has its command), or its checkpoint cannot be used.
    """
    from segexp.runs.restore import changed_config, restore, restore_data

    config = changed_config(run, ())
    datamodule = restore_data(run, config, allow)
    module = restore(run, config, datamodule.label_maps, allow)
    axes = sizes(size if size is not None else list_of(config.sampling.size), config)
    shape = (1, 1, *fitting(module.network, axes))
    expected = logits_of(module.network, sample(shape))
    channels = {target: logits.shape[1] for target, logits in expected.items()}
    return Subject(run, config, module, datamodule, shape, axes if size is not None else None, tuple(allow), expected,
                   describe(run, config, module, datamodule, channels, len(axes)))


def list_of(value: Any) -> Any:
    """Return a plain list of a list in a configuration; a number as it is."""
    return value if isinstance(value, int) else list(value)


def sizes(given: Sequence[int] | int, config: Any) -> tuple[int, ...]:
    """Return one size per axis of what the network sees.

    Raises:
        ConfigError: not whole positive numbers, or the wrong number of them.
    """
    from segexp.errors import ConfigError

    axes = 2 if config.sampling["_target_"].rpartition(".")[2] == "Slices" else 3
    found = (given,) * axes if isinstance(given, int) else tuple(given)
    if len(found) != axes or not all(isinstance(one, int) and one > 0 for one in found):
        example = ",".join(["64"] * axes)
        raise ConfigError(f"size={given}: expected one whole number above 0, or {axes} of them: size=[{example}]")
    return found


def fitting(network: nn.Module, axes: Sequence[int]) -> tuple[int, ...]:
    """Return sizes rounded up to what the network takes."""
    stride = getattr(network, "stride", 1)
    return tuple(-(-size // stride) * stride for size in axes)
