"""Kidney and tumour in CT angiography (Yang et al. 2018): networks import without Lightning, the module with it."""

from typing import TYPE_CHECKING

from segexp.methods.kidney_ppm.baselines import DynUNet, PSPNet2D, UNet3D
from segexp.methods.kidney_ppm.network import FCNPPM
from segexp.methods.kidney_ppm.schedule import multistep

if TYPE_CHECKING:
    from segexp.methods.kidney_ppm.module import KidneyModule

__all__ = ["FCNPPM", "DynUNet", "KidneyModule", "PSPNet2D", "UNet3D", "multistep"]


def __getattr__(name: str) -> object:
    """Import the LightningModule when it is first asked for."""
    if name == "KidneyModule":
        from segexp.methods.kidney_ppm.module import KidneyModule

        return KidneyModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
