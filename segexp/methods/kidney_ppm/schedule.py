"""The paper's learning rate schedule, counted in optimiser steps."""

import itertools
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from segexp.errors import ConfigError


def multistep(optimizer: Optimizer, milestones: Sequence[float] = (3, 5, 7), epoch_length: int = 14000,
              gamma: float = 0.1) -> MultiStepLR:
    """Multiply the learning rate by ``gamma`` at every milestone (Yang et al. 2018, section III-B).

    Args:
        optimizer: whose learning rate falls.
        milestones: epochs after which it falls, ascending; fractions of an epoch are allowed.
        epoch_length: optimiser steps that count as one epoch; a milestone is rounded to a whole step.
        gamma: factor.

    Returns:
        A scheduler to be stepped after every optimiser step.

    Raises:
        ConfigError: milestones that do not ascend from above 0, or an epoch without steps.
    """
    if epoch_length < 1:
        raise ConfigError(f"scheduler.epoch_length={epoch_length}: expected at least one step")
    steps = [round(epoch * epoch_length) for epoch in milestones]
    if any(before >= after for before, after in itertools.pairwise([0, *steps])):
        raise ConfigError(f"scheduler.milestones={list(milestones)}: with epochs of {epoch_length} steps these are the "
                          f"steps {steps}; expected ascending steps from 1 on")
    return MultiStepLR(optimizer, steps, gamma)
