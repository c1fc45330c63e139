"""Data: label maps, reading NIfTI, checking a data set, splits by person, the cache and the sampling.

The names below are loaded when they are first used, so ``import segexp.data.labelmap`` needs numpy only.
"""

from importlib import import_module

_HOME = {
    "CAIN": "cain",
    "ClassCrops": "class_crops",
    "IGNORE": "labelmap",
    "KidneyCTA": "kidney_cta",
    "LabelMap": "labelmap",
    "Crops": "sampling",
    "SegmentationDataModule": "datamodule",
    "Slices": "slices",
    "UKBiobank": "ukbiobank",
    "WMH": "wmh",
    "read_image_case": "whole_cases",
}
__all__ = ["CAIN", "IGNORE", "WMH", "ClassCrops", "Crops", "KidneyCTA", "LabelMap", "SegmentationDataModule", "Slices",
           "UKBiobank", "read_image_case"]


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
