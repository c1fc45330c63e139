"""Siamese content loss (Mac et al. 2020): network and loss import without Lightning, the modules with it."""

from importlib import import_module
from typing import TYPE_CHECKING

from segexp.methods.siamese.content_loss import SiameseLoss
from segexp.methods.siamese.generator import DenseUNet
from segexp.methods.siamese.vgg import Vgg19Front

if TYPE_CHECKING:
    from segexp.methods.siamese.adversarial import AdversarialSiameseModule
    from segexp.methods.siamese.module import SiameseModule

__all__ = ["AdversarialSiameseModule", "DenseUNet", "SiameseLoss", "SiameseModule", "Vgg19Front"]
HOME = {"SiameseModule": "module", "AdversarialSiameseModule": "adversarial"}


def __getattr__(name: str) -> object:
    """Import a LightningModule when it is first asked for."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
