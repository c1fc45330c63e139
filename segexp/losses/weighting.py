"""The weighted mean of the targets' losses (Rajchl et al. 2018, eq. 1)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segexp.errors import ConfigError


class TargetWeights(nn.Module):
    """Weights lambda of the targets' losses.

    ``uniform``: lambda = 1/k over the k targets that the batch has labels for. A mapping target -> number: the same,
    weighted, and rescaled to a sum of one over the targets present. ``uncertainty``: learned homoscedastic weights,
    sum of exp(-s) L + s/2 with one s per target (Kendall et al. 2018).

    Args:
        weights: uniform, uncertainty or a mapping.
        targets: the targets; needed for ``uncertainty`` only, whose parameters exist before the first batch.

    Raises:
        ConfigError: an unknown word or a negative weight.
    """

    def __init__(self, weights: str | Mapping[str, float] = "uniform",
                 targets: Mapping[str, int] | None = None) -> None:
        super().__init__()
        if isinstance(weights, str) and weights not in ("uniform", "uncertainty"):
            raise ConfigError(f"loss.weights={weights}: expected uniform, uncertainty or a mapping target: weight")
        if isinstance(weights, Mapping) and any(value < 0 for value in weights.values()):
            raise ConfigError(f"loss.weights={dict(weights)}: weights must not be negative")
        self.weights = weights if isinstance(weights, str) else dict(weights)
        if weights == "uncertainty":
            if not targets:
                raise ConfigError("loss.weights=uncertainty needs loss.targets, the targets to weight")
            self.log_variance = nn.ParameterDict({target: nn.Parameter(torch.zeros(())) for target in targets})

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of target -> loss over the targets present.

        Raises:
            ConfigError: a mapping lacks one of the targets.
        """
        if self.weights == "uncertainty":
            logs = self.log_variance
            return sum(torch.exp(-logs[target]) * part + logs[target] / 2 for target, part in parts.items())
        if self.weights == "uniform":
            return sum(parts.values()) / len(parts)
        missing = [target for target in parts if target not in self.weights]
        if missing:
            raise ConfigError(f"loss.weights has no weight for {', '.join(missing)}")
        whole = sum(self.weights[target] for target in parts)
        if whole == 0:
            raise ConfigError(f"loss.weights={self.weights}: the targets of a batch have no weight at all")
        return sum(self.weights[target] / whole * part for target, part in parts.items())
