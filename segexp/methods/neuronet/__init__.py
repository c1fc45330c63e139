"""NeuroNet (Rajchl et al. 2018): the network imports without Lightning, the module with it."""

from typing import TYPE_CHECKING

from segexp.methods.neuronet.network import NeuroNet

if TYPE_CHECKING:
    from segexp.methods.neuronet.module import NeuroNetModule

__all__ = ["NeuroNet", "NeuroNetModule"]


def __getattr__(name: str) -> object:
    """Import the LightningModule when it is first asked for."""
    if name == "NeuroNetModule":
        from segexp.methods.neuronet.module import NeuroNetModule

        return NeuroNetModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
